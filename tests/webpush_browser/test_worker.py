"""The service worker: what it shows, and what becomes of what the user does in the tray. It runs in Node, the service
on a socket."""

from __future__ import annotations

from typing import Any

import pytest
from webrig import Node, Web, web

pytestmark = [pytest.mark.anyio, pytest.mark.external]

SIGNED_IN = """
const browser = (h.kept.browser = new h.Browser(args.url));
const tab = browser.tab({ token: args.token });
await tab.run((client) => client.start());
await tab.run((client) => client.subscribe());
tab.kill();
h.kept.worker = browser.worker();
return tab.client.unsid;
"""
PUSHED = """
await h.kept.worker.push({ ...args.content, fanout: { id: "n" } });
return h.kept.browser.tray.map(({ title, body, tag }) => [title, body ?? null, tag]);
"""
VAGUE = ["There is something new", None, "fanout"]


async def signed_in(js: Node, service: Web, user: str = "alice") -> str:
    return str(await js.run(SIGNED_IN, url=service.url, token=service.token(user)))


async def cursor(service: Web) -> str:
    return str((await service.ask("alice", "GET", "/v1/me/feed")).json()["cursor"])


async def pushed(js: Node, **content: Any) -> Any:
    return await js.run(PUSHED, content=content)


async def test_the_item_that_a_push_is_about_is_shown_as_it_was_fetched(js: Node, service: Web) -> None:
    """What Graph sends a browser has no visual: only which item it is."""
    unsid = await signed_in(js, service)
    visual = {"visualContent": {"title": "Shipped", "body": "Order 42"}}
    id = await service.post_graph(
        unsid, targetHostName="app.example.com", payload=visual, targetPolicy={"platformTypes": ["webPush"]}
    )
    feed = {"cursor": await cursor(service), "item": id, "change": "posted"}

    assert await pushed(js, data={"feed": feed}) == [["Shipped", "Order 42", id]]
    assert await pushed(js, data={"feed": feed}) == [["Shipped", "Order 42", id]], "once, also when it comes again"


async def test_it_is_shown_too_where_a_page_has_read_it_already(js: Node, service: Web) -> None:
    id = await service.post(title="Known")
    await signed_in(js, service)
    feed = {"cursor": await cursor(service), "item": id, "change": "posted"}
    assert await pushed(js, data={"feed": feed}) == [["Known", "Order 42", id]]


async def test_without_a_page_before_only_what_is_pushed_is_shown(js: Node, service: Web) -> None:
    """A worker that knows no cursor reads the newest, and floods no tray with what is old."""
    for number in range(3):
        await service.post(title=f"Old {number}")
    await signed_in(js, service)
    await js.run(
        "const { memory } = h.kept.browser; await h.store.forget(memory, await h.store.kept(memory, '', 'user'))"
    )
    id = await service.post(title="New")
    feed = {"cursor": await cursor(service), "item": id, "change": "posted"}
    assert await pushed(js, data={"feed": feed}) == [["New", "Order 42", id]]


async def test_a_push_that_shows_itself_is_shown_once_and_without_a_network(js: Node, service: Web) -> None:
    await signed_in(js, service)
    id = await service.post()
    feed = {"cursor": await cursor(service), "item": id, "change": "posted"}
    assert await pushed(js, title="Shipped", data={"feed": feed}) == [["Shipped", "Order 42", id]]
    await js.run("h.kept.browser.tray = []; h.kept.browser.cut();")
    assert await pushed(js, title="Shipped", data={"feed": feed}) == [["Shipped", None, id]]


async def test_what_was_dealt_with_elsewhere_leaves_the_tray_and_is_not_shown_by_a_late_push(
    js: Node, service: Web
) -> None:
    await signed_in(js, service)
    id = await service.post()
    feed = {"cursor": await cursor(service), "item": id, "change": "posted"}
    assert await pushed(js, data={"feed": feed}) == [["Shipped", "Order 42", id]]
    await service.ask("alice", "PATCH", f"/v1/me/feed/{id}", json={"action": "dismissed"})
    assert await pushed(js, data={"feed": feed}) == [VAGUE]


async def test_after_a_database_was_restored_a_push_is_not_taken_for_known(js: Node, service: Web) -> None:
    await signed_in(js, service)
    await js.run(
        "const { memory } = h.kept.browser; await h.store.keep(memory, await h.store.kept(memory, '', 'user'), { cursor: args.cursor })",
        cursor="0".ljust(26, "V"),
    )
    id = await service.post()
    feed = {"cursor": await cursor(service), "item": id, "change": "posted"}
    assert await pushed(js, data={"feed": feed}) == [["Shipped", "Order 42", id]]


async def test_raw_content_is_shown_by_the_renderer_of_the_app(js: Node, service: Web) -> None:
    unsid = await signed_in(js, service)
    policy = {"platformTypes": ["webPush"]}
    ids = [
        await service.post_graph(
            unsid, targetHostName="app.example.com", payload={"rawContent": raw}, targetPolicy=policy
        )
        for raw in ("42", "quiet", "broken")
    ]
    renderer = """
    self.fanoutRender = async ({ content }) => {
      if (content.rawContent === "broken") throw new Error("no");
      return content.rawContent === "quiet" ? null : { title: `Order ${content.rawContent}` };
    };
    """
    code = """
    const { browser } = h.kept;
    browser.scripts[`${browser.url}/render.js`] = args.renderer;
    h.kept.worker = browser.worker("?renderer=/render.js");
    """
    feed = {"cursor": await cursor(service), "item": ids[0], "change": "posted"}
    assert await pushed(js, data={"feed": feed}) == [VAGUE], "nothing can show it"
    await js.run(code, renderer=renderer)
    assert await pushed(js, data={"feed": feed}) == [["Order 42", None, ids[0]]]


@pytest.mark.parametrize(
    "renderer",
    [
        "https://elsewhere.example/render.js",
        "//elsewhere.example/render.js",
        "data:text/javascript,1",
        "blob:SELF/1",
        "",
    ],
)
async def test_a_renderer_of_another_origin_is_refused(js: Node, service: Web, renderer: str) -> None:
    code = """
    const browser = new h.Browser(args.url);
    const loaded = [];
    browser.scripts = new Proxy({}, { get: (_, url) => (loaded.push(url), "1") });
    try {
      browser.worker(`?renderer=${encodeURIComponent(args.renderer)}`);
    } catch (error) {
      return [error.message, loaded];
    }
    return ["", loaded.filter((url) => new URL(url).origin !== args.url)];
    """
    said, loaded = await js.run(code, url=service.url, renderer=renderer.replace("SELF", service.url))
    assert loaded == []
    assert said.startswith("The renderer must be") or not renderer


async def test_what_the_user_does_in_the_tray_after_the_token_ended_is_sent_with_the_next_one(
    js: Node, service: Web
) -> None:
    await signed_in(js, service)
    closed, clicked = await service.post(title="Close"), await service.post(title="Click", url="/orders/42")
    await pushed(js, data={"feed": {"cursor": await cursor(service)}})
    code = """
    const { browser, worker } = h.kept;
    const user = await h.store.kept(browser.memory, "", "user");
    await h.store.keep(browser.memory, user, { bearer: "fut_ended" });
    await worker.close(args.closed);
    await worker.click(args.clicked);
    return browser.opened;
    """
    opened = await js.run(code, closed=closed, clicked=clicked)
    assert opened == f"{service.url}/orders/42"
    assert {each["action"] for each in await service.items("alice")} == {"none"}

    code = """
    const tab = (h.kept.tab = h.kept.browser.tab({ token: args.token }));
    await tab.run((client) => client.start());
    return tab.client.waiting;
    """
    assert await js.run(code, token=service.token("alice")) == 0
    states = {each["id"]: (each["read"], each["action"]) for each in await service.items("alice")}
    assert states == {closed: (False, "dismissed"), clicked: (True, "activated")}


async def test_they_are_sent_with_that_users_token_only(js: Node) -> None:
    async with web() as service:  # of its own: what is posted to everybody stays
        await sends_as(js, service)


async def sends_as(js: Node, service: Web) -> None:
    """The item is everybody's: with bob's token it would be bob who dismisses it."""
    for user in ("alice", "bob"):
        await service.ask(user, "POST", "/v1/me/subscriptions", json={"device_id": "d"})
    await signed_in(js, service)
    id = await service.post("all")
    await pushed(js, data={"feed": {"cursor": await cursor(service)}})
    signs_in = """
    const { browser, worker } = h.kept;
    const tab = browser.tab({ token: args.token });
    await tab.run((client) => client.start());
    tab.kill();
    """
    dismisses = """
    const { browser, worker } = h.kept;
    const user = await h.store.kept(browser.memory, "", "user");
    await h.store.keep(browser.memory, user, { bearer: "fut_ended" });
    await worker.close(args.id);
    """
    await js.run(dismisses, id=id)
    await js.run(signs_in + "await worker.sync();", token=service.token("bob"))
    assert [each["action"] for each in await service.items("bob")] == ["none"]
    assert [each["action"] for each in await service.items("alice")] == ["none"]
    await js.run(signs_in, token=service.token("alice"))
    assert [each["action"] for each in await service.items("bob")] == ["none"]
    assert [each["action"] for each in await service.items("alice")] == ["dismissed"]


async def test_another_users_notifications_leave_the_tray_when_she_signs_in(js: Node, service: Web) -> None:
    await signed_in(js, service)
    await service.post(title="For alice")
    assert len(await pushed(js, data={"feed": {"cursor": await cursor(service)}})) == 1
    code = "const tab = h.kept.browser.tab({ token: args.token }); await tab.run((client) => client.start()); tab.kill(); return h.kept.browser.tray.length;"
    assert await js.run(code, token=service.token("bob")) == 0


async def test_background_sync_sends_what_waits(js: Node, service: Web) -> None:
    await signed_in(js, service)
    id = await service.post()
    await pushed(js, data={"feed": {"cursor": await cursor(service)}})
    code = """
    const { browser, worker } = h.kept;
    browser.synced = [];
    browser.registration.sync = { register: async (tag) => browser.synced.push(tag) };
    browser.cut();
    await worker.close(args.id);
    const failed = await worker.sync().then(() => false, () => true); // the browser tries again
    browser.cut(false);
    await worker.sync();
    return [browser.synced, failed];
    """
    assert await js.run(code, id=id) == [["fanout-unsent"], True]
    assert (await service.items("alice"))[0]["action"] == "dismissed"


async def test_a_device_that_was_ended_elsewhere_still_sends_what_was_done_in_the_tray(js: Node, service: Web) -> None:
    await signed_in(js, service)
    id = await service.post()
    await pushed(js, data={"feed": {"cursor": await cursor(service)}})
    (held,) = await service.devices("alice")
    await service.ask("alice", "DELETE", f"/v1/me/subscriptions/{held['id']}")
    await js.run("await h.kept.worker.close(args.id)", id=id)
    assert (await service.items("alice"))[0]["action"] == "dismissed"
