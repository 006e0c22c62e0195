"""How many items are unread and unseen: asked for, and told over the stream without being asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from feedrig import Rig, events, running

from fanout.core.counts import Counts
from fanout.core.feed import FeedChange
from fanout.errors import StorageError
from fanout.service.feed import FeedSettings, NewItem

pytestmark = pytest.mark.anyio

QUICK = FeedSettings(heartbeat=60.0, poll=0.005)


async def put(rig: Rig, target: str = "user:alice", **more: Any) -> str:
    return (await rig.feed.post("default", target, NewItem(content={}, **more))).item_id


async def test_counts_are_asked_for_and_seen_is_set(backend: str) -> None:
    async with running(backend) as rig, rig.client("alice") as alice, rig.client("bob") as bob:
        first = await put(rig, external_id="a/1")
        await put(rig, "all")
        assert (await alice.get("/v1/me/counts")).json() == {"unread": 2, "unseen": 2}
        assert (await alice.put("/v1/me/seen", json={"item": "a/1"})).json() == {"unread": 2, "unseen": 1}
        assert (await alice.put("/v1/me/seen", json={})).json() == {"unread": 2, "unseen": 0}
        assert (await alice.put("/v1/me/seen", json={"item": first})).json()["unseen"] == 0, "it never moves back"
        await alice.patch(f"/v1/me/feed/{first}", json={"read": True})
        answer = await alice.get("/v1/me/counts")
        assert (answer.json(), answer.headers["cache-control"]) == ({"unread": 1, "unseen": 0}, "no-store")
        assert (await bob.get("/v1/me/counts")).json() == {"unread": 1, "unseen": 1}
        refused = await bob.put("/v1/me/seen", json={"item": first})
        assert (refused.status_code, refused.json()["error"]["innerError"]["code"]) == (404, "item")
        for wrong in ({"item": ""}, {"item": 7}, {"items": "x"}, []):
            assert (await bob.put("/v1/me/seen", json=wrong)).status_code == 400


async def test_a_stream_begins_with_the_counts_and_tells_each_change(backend: str) -> None:
    async with running(backend, feed=QUICK) as rig, rig.client("alice") as client:
        first = await put(rig)
        await put(rig, "user:bob")
        async with events(client) as stream:
            kinds = [(await stream.next(counts=True))[0] for _ in range(2)]
            assert (kinds, stream.counts) == (["cursor", "counts"], [(1, 1)])
            await put(rig)
            assert (await stream.next(counts=True))[0] == "change"
            assert await stream.next(counts=True) == ("counts", "", (2, 2))
            await client.put("/v1/me/seen", json={})
            assert await stream.next(counts=True) == ("counts", "", (2, 0))
            await rig.feed.change("default", "alice", FeedChange(item=first, read=True))
            assert (await stream.next(counts=True))[0] == "change"
            assert await stream.next(counts=True) == ("counts", "", (1, 0))
            await rig.feed.change("default", "alice", FeedChange(item=first, action="dismissed"))
            assert (await stream.next(counts=True))[0] == "change"
            await rig.feed.change("default", "alice", FeedChange(item=first, delete=True))
            assert (await stream.next(counts=True))[0] == "change", "counts that are as before are not told"


async def test_a_reader_who_goes_on_from_a_cursor_counts_nothing_twice() -> None:
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client:
        begin = (await client.get("/v1/me/feed")).json()["cursor"]
        await put(rig)
        await put(rig, "all")
        async with events(client, **{"last-event-id": begin}) as stream:
            for _ in range(3):
                await stream.next()
            await put(rig)
            await stream.next()
            assert await stream.next(counts=True) == ("counts", "", (3, 3))
            assert stream.counts == [(2, 2), (3, 3)]


async def test_a_broadcast_adds_one_without_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        running("memory:", feed=QUICK) as rig,
        rig.client("alice") as alice,
        rig.client("bob") as bob,
        events(alice) as one,
        events(bob) as two,
    ):
        await put(rig, "user:alice")
        assert [(await one.next(counts=True))[0] for _ in range(4)] == ["cursor", "counts", "change", "counts"]
        assert [(await two.next(counts=True))[0] for _ in range(2)] == ["cursor", "counts"]
        asked: list[str] = []
        counts = rig.engine.storage.feed.counts

        async def noted(app: str, user: str, now: float) -> Counts:
            asked.append(user)
            return await counts(app, user, now)

        monkeypatch.setattr(rig.engine.storage.feed, "counts", noted)
        await put(rig, "all", external_id="x")
        for stream, expected in ((one, (2, 2)), (two, (1, 1))):
            assert (await stream.next(counts=True))[0] == "change"
            assert await stream.next(counts=True) == ("counts", "", expected)
        assert asked == []
        await rig.feed.change("default", "bob", FeedChange(item="x", read=True))
        assert [(await two.next(counts=True))[0] for _ in range(2)] == ["change", "counts"]
        assert asked == ["bob"]
        await rig.feed.post("default", "all", NewItem(content={"n": 2}, external_id="x"))
        assert [(await each.next(counts=True))[0] for each in (one, two)] == ["change", "change"]
        assert await two.next(counts=True) == ("counts", "", (1, 1)), "one that is replaced is unread again"
        assert sorted(asked) == ["alice", "bob", "bob"], "which only a read can say"


async def test_a_stream_that_lies_behind_misses_nothing_by_a_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be read for it comes before what is of everybody."""
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client, events(client) as stream:
        assert (await stream.next())[0] == "cursor"
        feed = rig.engine.storage.feed
        read = feed.read
        (held,) = rig.feed.hub._all()

        async def away(*arguments: Any) -> Any:
            raise StorageError("The database cannot be reached.")

        monkeypatch.setattr(feed, "read", away)
        mine = await put(rig)
        while not held.behind or held.busy:
            await asyncio.sleep(0.001)
        monkeypatch.setattr(feed, "read", read)
        every = await put(rig, "all")
        assert [(await stream.next())[2]["id"] for _ in range(2)] == [mine, every]
        assert stream.counts[-1] in ((0, 0), (2, 2))
