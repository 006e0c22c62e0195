"""What the client keeps of changes that the service has not confirmed, and how it reads a long feed. In Node, the
service on a socket."""

from __future__ import annotations

from typing import Any

import pytest
from webrig import Node, Web

pytestmark = [pytest.mark.anyio, pytest.mark.external]

STARTED = """
const browser = (h.kept.browser ??= new h.Browser(args.url));
const tab = (h.kept.tab = browser.tab({ token: args.token, ...args.options }));
await tab.run((client) => client.start());
return [...tab.client.items.keys()];
"""
DOES = "await h.kept.tab.run((client) => client[args.what](args.id, ...(args.more ?? [])));"
NEXT = "h.kept.tab.kill();" + STARTED


async def started(js: Node, service: Web, code: str = STARTED, **options: Any) -> Any:
    return await js.run(code, url=service.url, token=service.token("alice"), options=options)


async def other(service: Web, id: str, **change: Any) -> None:
    """What another device of hers does."""
    answer = await service.ask("alice", "PATCH", f"/v1/me/feed/{id}", json=change)
    assert answer.status_code == 200, answer.text


async def state(service: Web) -> dict[str, tuple[bool, str]]:
    return {each["id"]: (each["read"], each["action"]) for each in await service.items("alice")}


async def test_what_is_done_without_a_network_is_shown_at_once_and_sent_by_the_next_page(
    js: Node, service: Web
) -> None:
    id, gone = await service.post(), await service.post()
    await started(js, service)
    code = """
    const { browser, tab } = h.kept;
    browser.cut();
    const item = await tab.run((client) => client.dismiss(args.id));
    await tab.run((client) => client.markRead(args.id));
    await tab.run((client) => client.remove(args.gone));
    return [item.action, item.unsent, tab.client.items.has(args.gone), tab.client.waiting, tab.heard("change").length];
    """
    assert await js.run(code, id=id, gone=gone) == ["dismissed", True, False, 2, 5]
    assert await state(service) == {id: (False, "none"), gone: (False, "none")}
    await js.run("h.kept.tab.kill(); h.kept.browser.cut(false);")
    assert await started(js, service, NEXT) == [id]
    assert await state(service) == {id: (True, "dismissed")}
    assert await js.run("return h.kept.tab.client.waiting") == 0


async def test_what_is_kept_is_shown_before_the_service_has_answered(js: Node, service: Web) -> None:
    id = await service.post()
    await started(js, service)
    await js.run("h.kept.browser.cut()")
    assert await started(js, service, NEXT) == [id]
    assert await js.run("return h.kept.tab.client.status") == "offline"


@pytest.mark.parametrize(
    ("mine", "theirs", "comes"),
    [
        # The answer was lost, and another device decided later.
        (("markRead", True), {"read": False}, (False, "none")),
        (("dismiss",), {"action": "activated"}, (False, "activated")),
        # It says nothing of what was asked for.
        (("dismiss",), {"read": True}, (True, "dismissed")),
        (("markRead", True), {"action": "snoozed"}, (True, "snoozed")),
    ],
)
async def test_a_change_whose_answer_was_lost_overrides_no_later_one(
    js: Node, service: Web, mine: tuple[Any, ...], theirs: dict[str, Any], comes: tuple[bool, str]
) -> None:
    id = await service.post()
    await started(js, service)
    lost = "h.kept.browser.loses = 1; await h.kept.tab.run((client) => client[args.mine[0]](args.id, ...args.mine.slice(1))); h.kept.tab.kill();"
    await js.run(lost, id=id, mine=mine)
    await other(service, id, **theirs)
    await started(js, service, NEXT)
    assert await state(service) == {id: comes}
    assert await js.run(
        "const item = h.kept.tab.client.items.get(args.id); return [item.read, item.action]", id=id
    ) == list(comes)


async def test_what_was_wanted_after_a_lost_answer_does_not_yield_to_ones_own_earlier_wish(
    js: Node, service: Web
) -> None:
    id = await service.post()
    await started(js, service)
    code = """
    const { browser, tab } = h.kept;
    browser.loses = 1;
    await tab.run((client) => client.dismiss(args.id));
    await tab.run((client) => client.snooze(args.id));
    return tab.client.waiting;
    """
    assert await js.run(code, id=id) == 0
    assert await state(service) == {id: (False, "snoozed")}


async def test_what_could_not_be_sent_yields_to_what_another_device_decided_meanwhile(js: Node, service: Web) -> None:
    id = await service.post()
    await started(js, service)
    await js.run("h.kept.browser.cut();" + DOES, what="dismiss", id=id)
    await other(service, id, action="activated")
    await js.run("h.kept.browser.cut(false); await h.until(() => h.kept.tab.client.waiting === 0)")
    assert await state(service) == {id: (False, "activated")}


@pytest.mark.parametrize("what", ["dismiss", "remove"])
async def test_an_item_that_was_posted_anew_is_not_touched_by_what_was_done_to_the_old_one(
    js: Node, service: Web, what: str
) -> None:
    unsid = (await service.ask("alice", "POST", "/v1/me/subscriptions", json={"device_id": "d"})).json()["unsid"]

    async def post(title: str) -> str:
        payload = {"visualContent": {"title": title}}
        return await service.post_graph(
            unsid, targetHostName="app.example.com", appNotificationId="order-42", payload=payload
        )

    id = await post("On its way")
    await started(js, service)
    await js.run("h.kept.browser.cut();" + DOES, what=what, id=id)
    assert await post("Lost on the way") == id
    await js.run("h.kept.browser.cut(false); await h.until(() => h.kept.tab.client.waiting === 0)")
    assert await state(service) == {id: (False, "none")}
    assert await js.run("return h.kept.tab.client.items.get(args.id).content.title", id=id) == "Lost on the way"


async def test_a_removal_whose_answer_was_lost_brings_nothing_back(js: Node, service: Web) -> None:
    id = await service.post()
    await started(js, service)
    code = """
    const { browser, tab } = h.kept;
    browser.loses = 1;
    await tab.run((client) => client.remove(args.id));
    const shown = [];
    tab.client.addEventListener("change", () => shown.push(tab.client.items.has(args.id)));
    browser.cut();
    browser.cut(false);
    await h.until(() => tab.client.waiting === 0);
    return [tab.client.items.size, shown.includes(true)];
    """
    assert await js.run(code, id=id) == [0, False]
    assert await started(js, service, NEXT) == []


async def test_what_is_there_no_more_is_refused_and_leaves_the_page(js: Node, service: Web) -> None:
    await started(js, service)
    code = "return h.kept.tab.run((client) => client.dismiss('none')).then(() => '', (error) => [error.status, h.kept.tab.client.waiting])"
    assert await js.run(code) == [404, 0]


async def test_the_newest_are_read_then_followed_and_older_ones_on_demand(js: Node, service: Web) -> None:
    ids = [await service.post(title=str(number)) for number in range(7)]
    newest = list(reversed(ids))
    assert await started(js, service, newest=3) == newest[:3]
    reads = "return h.kept.browser.asked.filter((each) => each.startsWith('GET /v1/me/feed'))"
    asked = await js.run("await h.until(() => h.kept.browser.asked.length > 2);" + reads)
    assert asked == ["GET /v1/me/feed?limit=3&order=newest", "GET /v1/me/feed/events"], (
        "the stream goes on from the page's cursor"
    )

    late = await service.post(title="late")
    await js.run("await h.until(() => h.kept.tab.client.items.has(args.id))", id=late)
    assert await js.run("return h.kept.tab.run((client) => client.more(2))") is True
    assert await js.run("return [...h.kept.tab.client.items.keys()]") == [*newest[:3], late, *newest[3:5]]

    assert sorted(await started(js, service, NEXT, newest=3)) == sorted([*newest[:5], late]), "it knows what it had"
    assert await js.run("return h.kept.tab.run((client) => client.more(10))") is False
    assert sorted(await js.run("return [...h.kept.tab.client.items.keys()]")) == sorted([*ids, late])


async def test_a_page_that_wants_everything_trusts_no_kept_part(js: Node, service: Web) -> None:
    ids = [await service.post(title=str(number)) for number in range(5)]
    await started(js, service, newest=2)
    assert sorted(await started(js, service, NEXT)) == sorted(ids)


async def test_a_change_before_the_stream_was_there_is_not_missed(js: Node, service: Web) -> None:
    """From the page's cursor: what has changed since the reading began, not since the stream."""
    ids = [await service.post(title=str(number)) for number in range(4)]
    code = """
    const browser = (h.kept.browser = new h.Browser(args.url));
    const tab = (h.kept.tab = browser.tab({ token: args.token, newest: 2 }));
    const { fetch } = tab;
    let go;
    h.kept.gate = new Promise((done) => (go = done));
    h.kept.go = go;
    tab.fetch = async (url, options) => {
      if (url.endsWith("/events")) await h.kept.gate;
      return fetch.call(tab, url, options);
    };
    await tab.run((client) => client.start());
    """
    await js.run(code, url=service.url, token=service.token("alice"))
    await other(service, ids[0], action="dismissed")
    await js.run("h.kept.go(); await h.until(() => h.kept.tab.client.items.has(args.id))", id=ids[0])


async def test_signing_out_leaves_nothing_of_the_user_but_what_was_not_sent(js: Node, service: Web) -> None:
    id = await service.post()
    await started(js, service)
    code = """
    const { browser, tab } = h.kept;
    await tab.run((client) => client.subscribe());
    const user = tab.client.user;
    browser.cut();
    await tab.run((client) => client.dismiss(args.id));
    const failed = await tab.run((client) => client.unsubscribe()).then(() => false, () => true);
    const { items, unsent } = await h.store.load(browser.memory, user);
    const kept = await h.store.kept(browser.memory, user, "bearer", "unsid", "cursor");
    return [failed, tab.client.items.size, tab.client.user, items, unsent.map(({ item }) => item), kept];
    """
    assert await js.run(code, id=id) == [True, 0, None, [], [id], [None, None, None]]
    await js.run("h.kept.browser.cut(false)")
    await started(js, service, NEXT)
    assert await state(service) == {id: (False, "dismissed")}


async def test_all_is_marked_as_read_in_one_call_and_what_came_meanwhile_stays(js: Node, service: Web) -> None:
    ids = [await service.post(title=str(number)) for number in range(4)]
    await started(js, service, newest=3)
    await js.run("await h.until(() => h.kept.tab.client.status === 'synchronized'); h.kept.browser.asked = [];")
    code = """
    const { browser, tab } = h.kept;
    await tab.run((client) => client.markAllRead());
    return [tab.client.waiting, [...tab.client.items.values()].every((item) => item.read), browser.asked.filter((each) => each.startsWith("PATCH"))];
    """
    assert await js.run(code) == [0, True, ["PATCH /v1/me/feed"]]
    assert await state(service) == dict.fromkeys(ids, (True, "none")), "those too that this page has not read"

    late = [await service.post(title=str(number)) for number in range(2)]
    await js.run("await h.until(() => h.kept.tab.client.items.has(args.id)); h.kept.browser.cut();", id=late[1])
    await js.run("await h.kept.tab.run((client) => client.markAllRead())")
    unknown = await service.post(title="Nobody has seen it")
    await js.run("h.kept.browser.cut(false); await h.until(() => h.kept.tab.client.waiting === 0)")
    assert await state(service) == dict.fromkeys([*ids, *late], (True, "none")) | {unknown: (False, "none")}


async def test_counts_come_with_the_stream_and_after_looking(js: Node, service: Web) -> None:
    first = await service.post()
    await started(js, service)
    counts = "await h.until(() => JSON.stringify(h.kept.tab.client.counts) === args.counts); return true"
    assert await js.run(counts, counts='{"unread":1,"unseen":1}')
    await service.post()
    assert await js.run(counts, counts='{"unread":2,"unseen":2}')
    await js.run("await h.kept.tab.run((client) => client.look(args.id))", id=first)
    assert await js.run(counts, counts='{"unread":2,"unseen":1}')
    await js.run(DOES, what="markRead", id=first)
    assert await js.run(counts, counts='{"unread":1,"unseen":1}')
    await js.run("await h.kept.tab.run((client) => client.look())")
    assert await js.run(counts, counts='{"unread":1,"unseen":0}')
