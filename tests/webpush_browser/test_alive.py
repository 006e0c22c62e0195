"""Each way in which the web client can be dead while it believes itself alive. The client runs in Node, the service on
a socket."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from webrig import Node, Web, web

pytestmark = [pytest.mark.anyio, pytest.mark.external]

KEY = "BDd3_hVL9fZi9Ybo2UUzA284WG5FZR30_95YeZJsiApwXKpNcF1rRPF3foIiBHXRdJI2Qhumhf6_LFTeZaNndIo"
"""An application server key (RFC 8292, section 2.4): only its text matters here."""

FOLLOWING = """
const browser = new h.Browser(args.url, args.addresses ?? [], args.permission ?? "default");
const tab = browser.tab({ token: args.token, ...args.options });
Object.assign(h.kept, { browser, tab });
await tab.run((client) => client.start());
await tab.run((client) => client.subscribe(args.subscribe ?? {}));
await h.until(() => tab.client.status === "synchronized");
return tab.client.unsid;
"""
AGAIN = """
const { tab } = h.kept;
await h.until(() => tab.heard("subscription").includes("renewed") && tab.client.status === "synchronized" && tab.client.unsid !== args.unsid);
return tab.client.unsid;
"""
ARRIVES = "await h.until(() => h.kept.tab.client.items.has(args.id)); return true;"
END = "h.kept.tab?.kill(); h.kept = {};"


def restore(copy: Path, file: Path) -> None:
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()
    shutil.copy(copy, file)


async def following(js: Node, service: Web, user: str = "alice", **more: Any) -> str:
    return str(await js.run(FOLLOWING, url=service.url, token=service.token(user), **more))


async def hears(js: Node, service: Web, user: str = "alice") -> bool:
    """Whether what is posted now arrives."""
    return bool(await js.run(ARRIVES, id=await service.post(f"user:{user}")))


async def test_a_subscription_that_was_ended_elsewhere_is_made_again(js: Node, service: Web) -> None:
    unsid = await following(js, service)
    (held,) = await service.devices("alice")

    await service.ask("alice", "DELETE", f"/v1/me/subscriptions/{held['id']}")

    again = await js.run(AGAIN, unsid=unsid)
    assert [each["unsid"] for each in await service.devices("alice")] == [again]
    assert await hears(js, service)


async def test_one_that_was_ended_while_no_page_was_open_is_noticed_at_the_first_change(js: Node, service: Web) -> None:
    unsid = await following(js, service)
    id = await service.post()
    await js.run(ARRIVES, id=id)
    (held,) = await service.devices("alice")
    await js.run("h.kept.tab.run((client) => client.stop())")
    await service.ask("alice", "DELETE", f"/v1/me/subscriptions/{held['id']}")

    await js.run("await h.kept.tab.run((client) => client.dismiss(args.id))", id=id)

    assert (await service.items("alice"))[0]["action"] == "dismissed", "the change is sent, as no device of hers"
    await js.run("await h.until(() => h.kept.tab.client.unsid !== null)")
    assert await js.run("return h.kept.tab.client.unsid") != unsid


async def test_one_that_the_cap_ended_is_made_again_once_and_then_ever_more_rarely(js: Node) -> None:
    async with web(cap=2) as service:
        unsid = await following(js, service)
        for number in (1, 2):
            await service.ask("alice", "POST", "/v1/me/subscriptions", json={"device_id": f"other-{number}"})
        again = await js.run(AGAIN, unsid=unsid)
        for number in (3, 4):
            await service.ask("alice", "POST", "/v1/me/subscriptions", json={"device_id": f"other-{number}"})

        told = await js.run(
            "await h.until(() => h.kept.tab.heard('subscription').includes('ended')); return h.kept.tab.heard('subscription')"
        )

        assert told == ["renewed", "ended"]
        assert again not in [each["unsid"] for each in await service.devices("alice")]
        assert await hears(js, service), "it follows as no device of hers meanwhile"
        await js.run(END)


async def test_how_long_a_browser_waits_before_it_subscribes_again(js: Node) -> None:
    waits = await js.run(
        "return [null, ...[1, 2, 3, 7, 50].map((count) => ({ count, at: 0 })), { count: 1, at: 9e9 }].map((each) => h.renewalWait(each, 1000))"
    )
    assert waits == [0, 59_000, 119_000, 239_000, 3_599_000, 3_599_000, 0]


async def test_a_new_key_of_the_service_makes_the_browser_subscribe_again(js: Node, service: Web) -> None:
    await following(
        js, service, addresses=service.addresses(1, 2), permission="granted", subscribe={"applicationServerKey": KEY}
    )
    (before,) = await service.devices("alice")
    code = """
    const { browser, tab } = h.kept;
    tab.kill();
    const next = (h.kept.tab = browser.tab({ token: args.token, applicationServerKey: args.key }));
    const old = browser.held.endpoint;
    await next.run((client) => client.start());
    return [old !== browser.held.endpoint, next.heard("subscription")];
    """
    assert await js.run(code, token=service.token("alice"), key=service.gateway.key.public) == [True, ["renewed"]]
    (after,) = await service.devices("alice")
    assert (after["unsid"], after["state"]) == (before["unsid"], "active")


async def test_a_permission_that_is_withdrawn_is_told_and_given_again_it_is_used(js: Node, service: Web) -> None:
    key = service.gateway.key.public
    await following(
        js, service, addresses=service.addresses(1, 2), permission="granted", subscribe={"applicationServerKey": key}
    )
    assert [each["binding"] for each in await service.devices("alice")] == ["webpush"]

    told = "h.kept.browser.allow(args.state); await h.until(() => h.kept.tab.heard('subscription').at(-1) === args.told); return true;"
    assert await js.run(told, state="denied", told="denied")
    assert [each["binding"] for each in await service.devices("alice")] == [None]
    assert await hears(js, service)

    again = "const { browser, tab } = h.kept; await browser.memory.run((rows) => rows.delete('values', `${tab.client.user}/renewals`));"
    assert await js.run(again + told, state="granted", told="renewed")
    assert [each["binding"] for each in await service.devices("alice")] == ["webpush"]


async def test_a_browser_that_gives_no_push_subscription_follows_without_one(js: Node, service: Web) -> None:
    code = """
    const { browser, tab } = h.kept;
    browser.held = null;
    tab.kill();
    const next = (h.kept.tab = browser.tab({ token: args.token }));
    await next.run((client) => client.start());
    return next.heard("subscription");
    """
    await following(
        js,
        service,
        addresses=service.addresses(1),
        permission="granted",
        subscribe={"applicationServerKey": service.gateway.key.public},
    )
    assert await js.run(code, token=service.token("alice")) == ["ended"]
    assert await hears(js, service)


async def test_a_push_subscription_that_the_browser_changed_is_told_by_the_worker(js: Node, service: Web) -> None:
    await following(
        js,
        service,
        addresses=service.addresses(1, 2),
        permission="granted",
        subscribe={"applicationServerKey": service.gateway.key.public},
    )
    before = await service.devices("alice")
    await js.run("h.kept.tab.kill(); await h.kept.browser.worker().change();")
    after = await service.devices("alice")
    assert [each["unsid"] for each in after] == [each["unsid"] for each in before]
    assert after[0]["renewed_at"] > before[0]["renewed_at"]


async def test_one_that_changed_without_a_token_is_told_by_the_next_page(js: Node, service: Web) -> None:
    await following(
        js,
        service,
        addresses=service.addresses(1, 2),
        permission="granted",
        subscribe={"applicationServerKey": service.gateway.key.public},
    )
    code = """
    const { browser, tab } = h.kept;
    tab.kill();
    browser.cut();
    await browser.worker().change().catch(() => {});
    browser.cut(false);
    const next = (h.kept.tab = browser.tab({ token: args.token }));
    await next.run((client) => client.start());
    return next.heard("subscription");
    """
    before = await service.devices("alice")
    assert await js.run(code, token=service.token("alice")) == ["renewed"]
    assert (await service.devices("alice"))[0]["renewed_at"] > before[0]["renewed_at"]


async def test_a_database_that_was_restored_is_read_anew(js: Node, tmp_path: Path) -> None:
    """From before the subscription and some of the items: the UNSID is unknown, and the numbers of changes begin below
    the client's."""
    file, copy = tmp_path / "fanout.db", tmp_path / "copy.db"
    async with web(f"sqlite:{file}") as service:
        kept = await service.post(title="Kept")
        await service.stop()
        shutil.copy(file, copy)
        await service.start()
        unsid = await following(js, service)
        lost = [await service.post(title=f"Lost {number}") for number in range(3)]
        await js.run(ARRIVES, id=lost[-1])
        await js.run("await h.kept.tab.run((client) => client.markRead(args.id))", id=kept)

        await service.stop()
        restore(copy, file)
        await service.start()

        await js.run("h.kept.browser.cut(false)")
        assert await js.run(AGAIN, unsid=unsid)
        assert await hears(js, service)
        shown = await js.run("return [...h.kept.tab.client.items.values()].map(({ id, read }) => [id, read])")
        assert sorted(shown) == sorted([each["id"], each["read"]] for each in await service.items("alice"))
        await js.run(END)


async def test_another_user_in_the_same_browser_gets_a_device_and_a_feed_of_his_own(js: Node, service: Web) -> None:
    hers, his = await service.post(title="Hers"), await service.post("user:bob", title="His")
    unsid = await following(
        js,
        service,
        addresses=service.addresses(1, 2),
        permission="granted",
        subscribe={"applicationServerKey": service.gateway.key.public},
    )
    await js.run(ARRIVES, id=hers)
    code = """
    const { browser, tab } = h.kept;
    tab.kill();
    const next = (h.kept.tab = browser.tab({ token: args.token }));
    await next.run((client) => client.start());
    return [next.client.user !== tab.client.user, [...next.client.items.keys()], next.client.unsid, next.heard("subscription")];
    """
    other, shown, mine, told = await js.run(code, token=service.token("bob"))
    assert (other, shown, told) == (True, [his], ["renewed"])
    assert mine not in (None, unsid)
    assert [each["binding"] for each in await service.devices("bob")] == ["webpush"]
    assert await service.devices("alice") == [], "her pushes do not come to his browser any more"
    assert await hears(js, service, "bob")


async def test_two_users_with_a_tab_each_do_not_push_one_another_out(js: Node, service: Web) -> None:
    """The browser's pushes are for whoever signed in last; the other follows as a device without pushes."""
    key = service.gateway.key.public
    await following(
        js, service, addresses=service.addresses(1, 2, 3), permission="granted", subscribe={"applicationServerKey": key}
    )
    code = """
    const { browser, tab } = h.kept;
    const other = (h.kept.other = browser.tab({ token: args.token }));
    await other.run((client) => client.start());
    await h.until(() => tab.heard("subscription").length && tab.client.status === "synchronized" && tab.client.unsid !== null);
    const said = [tab.heard("subscription"), other.heard("subscription")];
    browser.cut();
    browser.cut(false); // both connect anew, and look at how they are subscribed
    await h.until(() => [tab, other].every(({ client }) => client.status === "synchronized"));
    return said;
    """
    assert await js.run(code, token=service.token("bob")) == [["renewed"], ["renewed"]]
    assert [each["binding"] for each in await service.devices("alice")] == [None]
    assert [each["binding"] for each in await service.devices("bob")] == ["webpush"]
    assert await hears(js, service)
    await js.run("h.kept.other.kill()")


async def test_an_address_that_the_gateway_calls_dead_is_given_up_for_a_new_one(js: Node, service: Web) -> None:
    dead = json.dumps(service.gateway.subscribe("alice", behaviour="dead"))
    await following(
        js,
        service,
        addresses=[dead, *service.addresses(1)],
        permission="granted",
        subscribe={"applicationServerKey": service.gateway.key.public},
    )
    await service.post()
    async with asyncio.timeout(120):
        while (await service.devices("alice"))[0]["state"] != "unreachable":
            await asyncio.sleep(0.02)
    code = """
    const { browser, tab } = h.kept;
    const before = browser.held.endpoint;
    browser.cut();
    browser.cut(false);
    await h.until(() => tab.heard("subscription").includes("renewed"));
    return browser.held.endpoint !== before;
    """
    assert await js.run(code)
    assert [each["state"] for each in await service.devices("alice")] == ["active"]


async def test_a_token_function_that_changes_its_user_in_the_middle_sends_nothing_as_the_other(
    js: Node,
) -> None:
    async with web() as service:  # of its own: what is posted to everybody stays
        await changes_its_user(js, service)


async def changes_its_user(js: Node, service: Web) -> None:
    code = """
    const browser = new h.Browser(args.url);
    const tab = (h.kept.tab = browser.tab({ token: ({ renew }) => (renew ? args.bob : args.alice) }));
    await tab.run((client) => client.start());
    const user = tab.client.user;
    const { fetch } = tab;
    tab.fetch = (url, options) => fetch.call(tab, url, options.headers.authorization.endsWith(args.alice) ? { ...options, headers: { ...options.headers, authorization: "Bearer fut_old" } } : options);
    const item = await tab.run((client) => client.dismiss(args.id));
    await h.until(() => tab.client.user !== user && tab.client.status === "synchronized");
    return [item, [...tab.client.items.values()].map(({ action }) => action), browser.asked.filter((each) => each.startsWith("PATCH")).length];
    """
    id = await service.post("all", title="To everybody")
    for user in ("alice", "bob"):
        await service.ask(user, "POST", "/v1/me/subscriptions", json={"device_id": "d"})
    _, actions, patches = await js.run(
        code, url=service.url, alice=service.token("alice"), bob=service.token("bob"), id=id
    )
    assert actions == ["none"], "what alice dismissed is not dismissed for bob, though the item is the same"
    assert patches == 1, "the one that was refused for its token"
    assert (await service.items("bob"))[0]["action"] == "none"
    await js.run(END)


async def test_a_stream_that_says_nothing_any_more_is_dead(js: Node, service: Web) -> None:
    code = """
    const browser = new h.Browser(args.url);
    const tab = (h.kept.tab = browser.tab({ token: args.token, silence: 300 }));
    const { fetch } = tab;
    let streams = 0;
    tab.fetch = async (url, options) => {
      if (!url.endsWith("/events") || streams++) return fetch.call(tab, url, options);
      const body = new ReadableStream({ start: (controller) => options.signal.addEventListener("abort", () => controller.error(options.signal.reason)) });
      return new Response(body); // a connection that was cut somewhere, without a word
    };
    await tab.run((client) => client.start());
    await h.until(() => streams > 1 && tab.client.status === "synchronized");
    return true;
    """
    assert await js.run(code, url=service.url, token=service.token("alice"))
    assert await hears(js, service)


async def test_a_start_without_a_network_follows_as_soon_as_there_is_one(js: Node, service: Web) -> None:
    id = await service.post()
    code = """
    const browser = new h.Browser(args.url);
    browser.cut();
    const tab = (h.kept.tab = browser.tab({ token: args.token }));
    await tab.run((client) => client.start());
    const before = tab.client.status;
    browser.cut(false);
    await h.until(() => tab.client.items.has(args.id));
    return before;
    """
    assert await js.run(code, url=service.url, token=service.token("alice"), id=id) == "offline"
    assert await hears(js, service)


async def test_a_cursor_that_the_service_does_not_know_makes_it_read_anew(js: Node, service: Web) -> None:
    id = await service.post()
    code = """
    const browser = new h.Browser(args.url);
    const first = browser.tab({ token: args.token });
    await first.run((client) => client.start());
    first.kill();
    await h.store.keep(browser.memory, first.client.user, { cursor: "of another service" });
    const tab = (h.kept.tab = browser.tab({ token: args.token }));
    await tab.run((client) => client.start());
    return [...tab.client.items.keys()];
    """
    assert await js.run(code, url=service.url, token=service.token("alice")) == [id]
    assert await hears(js, service)


async def test_what_a_stopped_page_had_asked_for_is_left_to_the_worker(js: Node, service: Web) -> None:
    """A page that is being closed is not seen. Had it taken the item, the worker would find nothing new to show."""
    await following(js, service)
    await js.run("h.kept.browser.cut()")
    id = await service.post(title="Fetched")
    code = """
    const { browser, tab } = h.kept;
    const fetch = tab.fetch.bind(tab);
    let release, asked;
    const held = new Promise((done) => (release = done));
    const waits = new Promise((done) => (asked = done));
    tab.fetch = async (url, options) => {
      const answer = await fetch(url, options);
      if (!String(url).includes("/v1/me/feed?")) return answer;
      const text = await answer.text();
      asked();
      await held;
      return new Response(text, { status: answer.status });
    };
    browser.cut(false);
    await waits;
    tab.run((client) => client.stop());
    release();
    await tab.run((client) => client.get(args.id));
    browser.pages = [{ visibilityState: "visible", postMessage: () => {} }];
    await browser.worker().push({ fanout: { id: "n" }, data: { feed: { cursor: "" } } });
    return [tab.client.items.has(args.id), browser.tray.map(({ title }) => title)];
    """
    assert await js.run(code, id=id) == [False, ["Fetched"]]


async def test_stopped_and_started_at_once_it_follows_once(js: Node, service: Web) -> None:
    code = """
    const browser = new h.Browser(args.url);
    const tab = (h.kept.tab = browser.tab({ token: args.token }));
    for (let time = 0; time < 3; time++) {
      await tab.run((client) => client.start());
      tab.run((client) => client.stop());
    }
    await tab.run((client) => client.start());
    await h.until(() => tab.client.status === "synchronized");
    return true;
    """
    assert await js.run(code, url=service.url, token=service.token("alice"))
    await js.run("h.kept.browser = h.kept.tab.browser; h.kept.browser.asked = [];")
    assert await hears(js, service)
    assert [each for each in await js.run("return h.kept.browser.asked") if "events" in each] == []


async def test_a_refusal_that_no_trying_helps_is_told(js: Node, service: Web) -> None:
    code = """
    const browser = new h.Browser(args.url);
    let token = args.token;
    const tab = (h.kept.tab = browser.tab({ token: () => token }));
    await tab.run((client) => client.start());
    await h.until(() => browser.asked.some((each) => each.includes("events")));
    token = "fut_old";
    const { fetch } = tab;
    tab.fetch = (url, options) => fetch.call(tab, url, { ...options, headers: { authorization: "Bearer fut_old" } });
    browser.cut();
    browser.cut(false);
    await h.until(() => tab.heard("stopped").length);
    return [tab.heard("unauthorized").length, tab.heard("stopped")[0].status, tab.client.status];
    """
    assert await js.run(code, url=service.url, token=service.token("alice")) == [1, 401, "offline"]
