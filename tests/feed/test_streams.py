"""Event streams: at once, in order, and resumable."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from feedrig import Events, events, running
from streamrig import QUICK, put, took

from fanout.core.feed import FeedChange
from fanout.core.model import Notification
from fanout.errors import StorageError
from fanout.service.feed import NewItem

pytestmark = pytest.mark.anyio


async def test_changes_come_in_order_with_the_cursor_of_each(backend: str) -> None:
    async with running(backend, feed=QUICK) as rig, rig.client("alice") as client, events(client) as stream:
        kind, id, data = await stream.next()
        assert (kind, data) == ("cursor", {"cursor": id})
        one = await put(rig, n=1)
        kind, first, data = await stream.next()
        assert (kind, data["id"], data["content"]) == ("change", one, {"n": 1})
        await put(rig, user="bob")
        two = await put(rig, n=2)
        _, second, data = await stream.next()
        assert (data["id"], second > first) == (two, True)
        await rig.feed.change("default", "alice", FeedChange(item=one, read=True))
        _, _, data = await stream.next()
        assert (data["id"], data["read"]) == (one, True)
        page = (await client.get("/v1/me/feed", params={"cursor": first})).json()
        assert [item["id"] for item in page["items"]] == [two, one], "an event's id is a cursor"


async def test_what_could_not_be_read_for_a_stream_is_read_when_the_database_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client, events(client) as stream:
        assert (await stream.next())[0] == "cursor"
        read, tried = rig.engine.storage.feed.read, asyncio.Event()

        async def away(*arguments: Any) -> Any:
            tried.set()
            raise StorageError("The database cannot be reached.")

        monkeypatch.setattr(rig.engine.storage.feed, "read", away)
        made = await put(rig)
        await asyncio.wait_for(tried.wait(), 30)
        monkeypatch.setattr(rig.engine.storage.feed, "read", read)
        assert await took(stream, 1) == [made]


async def test_a_stream_goes_on_where_the_reader_was(backend: str) -> None:
    async with running(backend, feed=QUICK) as rig, rig.client("alice") as client:
        begin = (await client.get("/v1/me/feed")).json()["cursor"]
        made = [await put(rig, n=n) for n in range(4)]
        async with events(client, **{"last-event-id": begin}) as stream:
            assert (await stream.next())[:2] == ("cursor", begin)
            assert await took(stream, 2) == made[:2]
        async with events(client, **{"last-event-id": stream.last_id}) as stream:
            await stream.next()
            assert await took(stream, 2) == made[2:]
            made.append(await put(rig, n=9))
            assert await took(stream, 1) == made[-1:]
        async with client.stream("GET", "/v1/me/feed/events", params={"cursor": begin}) as response:
            stream = Events(response)
            assert (await stream.next())[1] == begin
            assert await took(stream, 5) == made


async def test_a_cursor_that_is_too_old_is_told_to_begin_anew(backend: str) -> None:
    async with running(backend, feed=QUICK) as rig, rig.client("alice") as client:
        begin = (await client.get("/v1/me/feed")).json()["cursor"]
        id = await put(rig)
        await rig.feed.change("default", "alice", FeedChange(item=id, delete=True))
        rig.clock.ahead += 31 * 86_400
        while await rig.engine.storage.prune(rig.clock.now(), limit=100):
            pass
        async with events(client, **{"last-event-id": begin}) as stream:
            kind, fresh, _ = await stream.next()
            assert kind == "resync"
            assert (await client.get("/v1/me/feed", params={"cursor": fresh})).json()["items"] == []
            again = await put(rig)
            assert await took(stream, 1) == [again]
        for wrong in ("nonsense", "0" * 39):
            answer = await client.get("/v1/me/feed/events", headers={"last-event-id": wrong})
            assert answer.status_code == 400


@pytest.mark.parametrize("told", ["incarnation", "number"])
async def test_a_database_that_is_another_than_before_makes_readers_begin_anew(
    told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage says so, or the number of changes is lower than it was."""
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client, events(client) as stream:
        assert (await stream.next())[0] == "cursor"
        assert await took(stream, 0) == []
        one = await put(rig)
        assert await took(stream, 1) == [one]
        if told == "incarnation":
            monkeypatch.setattr(rig.engine.storage, "incarnation", 1, raising=False)
        else:
            rig.feed.hub._seq += 1000
        await put(rig)
        kind, fresh, _ = await stream.next()
        assert kind == "resync"
        again = await put(rig)
        assert await took(stream, 1) == [again]
        page = (await client.get("/v1/me/feed", params={"cursor": fresh})).json()
        assert [item["id"] for item in page["items"]] == [again]


async def test_another_process_is_heard_of(tmp_path: Any) -> None:
    where = f"sqlite:{tmp_path}/feed.db"
    async with (
        running(where, feed=QUICK) as here,
        running(where, feed=QUICK) as there,
        here.client("alice") as client,
        there.client("alice") as other,
        events(client) as stream,
    ):
        assert (await stream.next())[0] == "cursor"
        id = await put(there, n=1)
        assert await took(stream, 1) == [id]
        await other.patch(f"/v1/me/feed/{id}", json={"action": "activated"})
        assert (await stream.next())[2]["action"] == "activated"


async def test_the_writers_own_stream_is_not_told(backend: str) -> None:
    async with running(backend, feed=QUICK) as rig:
        mine = await rig.subscribe("alice", "webpush", "mine")
        other = await rig.subscribe("alice", "webpush", "other")
        id = await put(rig)
        async with (
            rig.client("alice", unsid=mine["unsid"]) as writer,
            rig.client("alice", unsid=other["unsid"]) as reader,
            events(writer) as own,
            events(reader) as others,
        ):
            assert [(await each.next())[0] for each in (own, others)] == ["cursor", "cursor"]
            await writer.patch(f"/v1/me/feed/{id}", json={"read": True})
            assert (await others.next())[2]["read"]
            await reader.patch(f"/v1/me/feed/{id}", json={"action": "dismissed"})
            data = (await own.next())[2]
            assert (data["read"], data["action"]) == (True, "dismissed")
            refused = await reader.get("/v1/me/feed/events", headers={"x-uns-id": "nobody's"})
            assert refused.status_code == 403


async def test_a_broadcast_reaches_every_stream(backend: str) -> None:
    async with (
        running(backend, feed=QUICK) as rig,
        rig.client("alice") as alice,
        rig.client("bob") as bob,
        events(alice) as one,
        events(bob) as two,
    ):
        assert [(await each.next())[0] for each in (one, two)] == ["cursor", "cursor"]
        posted = await rig.feed.post("default", "all", NewItem(content={}), Notification(data={"n": 1}))
        assert await took(one, 1) == await took(two, 1) == [posted.item_id]


async def test_no_change_is_missed_or_told_twice_while_streams_break(backend: str) -> None:
    """A reader that is cut off again and again, and goes on from its last id, has each change once."""
    async with running(backend, feed=QUICK) as rig, rig.client("alice") as client:
        seen: list[int] = []
        total = 120

        async def write() -> None:
            for n in range(total):
                await put(rig, n=n)

        writing = asyncio.create_task(write())
        page = (await client.get("/v1/me/feed", params={"limit": 1000})).json()
        seen += [item["content"]["n"] for item in page["items"]]
        last = page["cursor"]
        while len(seen) < total:
            async with events(client, **{"last-event-id": last}) as stream:
                assert (await stream.next())[0] == "cursor"
                for _ in range(min(7, total - len(seen))):
                    _, last, data = await stream.next()
                    seen.append(data["content"]["n"])
        await writing
        assert seen == list(range(total))
