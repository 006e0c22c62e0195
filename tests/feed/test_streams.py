"""Event streams: at once, in order, resumable, bounded, and ended when they must."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from feedrig import Events, Rig, events, running

from fanout.core.feed import FeedChange
from fanout.core.model import Notification
from fanout.errors import StorageError
from fanout.service.auth import Caller
from fanout.service.auth.errors import unauthorized, unavailable
from fanout.service.feed import FeedSettings, NewItem
from fanout.service.feed.streams import EventStream

pytestmark = pytest.mark.anyio

QUICK = FeedSettings(heartbeat=0.02, poll=0.005)


async def put(rig: Rig, user: str = "alice", **content: Any) -> str:
    """Enter an item that is pushed to nobody; its id."""
    return (await rig.feed.post("default", f"user:{user}", NewItem(content=content))).item_id


async def took(stream: Events, count: int) -> list[str]:
    """The ids of the next changes."""
    return [(await stream.next())[2]["id"] for _ in range(count)]


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


async def test_signs_of_life_come_while_nothing_happens() -> None:
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client, events(client) as stream:
        assert (await stream.next())[0] == "cursor"
        waiting = asyncio.create_task(stream.next())
        while stream.comments < 3:
            await asyncio.sleep(0.005)
        await put(rig)
        assert (await waiting)[0] == "change"


class Gate:
    """An authenticator whose tokens can end."""

    protected = True

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def authenticate(self, headers: Any) -> Caller:
        if self.error is not None:
            raise self.error
        return Caller("default", "alice", "client", frozenset(), "delegated")

    async def aclose(self) -> None:
        return None


async def test_a_stream_ends_with_the_callers_token() -> None:
    gate = Gate()
    async with running("memory:", feed=QUICK, authenticator=gate) as rig, rig.client("alice") as client:
        async with events(client) as stream:
            assert (await stream.next())[0] == "cursor"
            # Nobody can say whether the token is good: that is no reason to end.
            gate.error = unavailable("keys", "The issuer's keys cannot be had.", 1)
            waiting = asyncio.create_task(stream.next())
            before = stream.comments
            while stream.comments < before + 2:
                await asyncio.sleep(0.005)
            gate.error = unauthorized("expired", "The access token has expired.")
            kind, _, data = await waiting
            assert (kind, data) == ("unauthorized", {"message": "The access token has expired."})
            with pytest.raises(StopAsyncIteration):
                await stream.next()
        assert len(rig.feed.hub) == 0


class Ending(Gate):
    """An authenticator whose token says when it ends, and that is never asked again in time."""

    def __init__(self, ends_at: float) -> None:
        super().__init__()
        self.ends_at = ends_at

    async def authenticate(self, headers: Any) -> Caller:
        return Caller("default", "alice", "client", frozenset(), "delegated", ends_at=self.ends_at)


async def test_a_busy_stream_ends_with_its_token_all_the_same() -> None:
    """With a change each second no heartbeat is due, at which the token was looked at."""
    seldom = FeedSettings(poll=0.005, heartbeat=3600.0)
    gate = Ending(time.time() + 600)
    async with running("memory:", feed=seldom, authenticator=gate) as rig, rig.client("alice") as client:
        async with events(client) as stream:
            assert (await stream.next())[0] == "cursor"
            for n in range(5):
                rig.clock.ahead += 119
                id = await put(rig, n=n)
                assert await took(stream, 1) == [id]
            rig.clock.ahead += 119
            await put(rig, text="too late")
            kind, _, data = await stream.next()
            assert (kind, "too late" in str(data)) == ("unauthorized", False)
            with pytest.raises(StopAsyncIteration):
                await stream.next()
        assert len(rig.feed.hub) == 0


async def test_a_broadcast_does_not_reach_a_stream_whose_token_has_ended() -> None:
    seldom = FeedSettings(poll=0.005, heartbeat=3600.0)
    gate = Ending(time.time() + 600)
    async with (
        running("memory:", feed=seldom, authenticator=gate) as rig,
        rig.client("alice") as client,
        events(client) as stream,
    ):
        assert (await stream.next())[0] == "cursor"
        rig.clock.ahead += 601
        await rig.feed.post("default", "all", NewItem(content={"title": "x"}), Notification(data={"n": 1}))
        assert (await stream.next())[0] == "unauthorized"


async def test_a_token_that_is_good_by_the_clocks_difference_alone_opens_a_stream_for_that_long() -> None:
    gate = Ending(time.time() - 30)
    async with (
        running("memory:", feed=QUICK, authenticator=gate) as rig,
        rig.client("alice") as client,
        events(client) as stream,
    ):
        assert (await stream.next())[0] == "cursor"
        id = await put(rig)
        assert await took(stream, 1) == [id]
        rig.clock.ahead += 31
        assert (await stream.next())[0] == "unauthorized"


@pytest.mark.parametrize("how", ["expired", "ended"])
async def test_a_stream_ends_with_its_subscription(how: str) -> None:
    async with running("memory:", feed=QUICK) as rig:
        device = await rig.subscribe("alice", "apns", expires_in=3600)
        async with rig.client("alice", unsid=device["unsid"]) as client, events(client) as stream:
            found = {(await stream.next())[0] for _ in range(2)}  # it is about to expire from the first
            assert found == {"cursor", "subscription"}
            if how == "ended":
                assert (await client.delete(f"/v1/me/subscriptions/{device['id']}")).status_code == 204
            else:
                rig.clock.ahead += 3601
            kind, _, data = await stream.next()
            assert (kind, data["state"]) == ("subscription", how)
            with pytest.raises(StopAsyncIteration):
                await stream.next()
            assert (await client.get("/v1/me/feed/events")).status_code == 403, "and it does not begin again"


async def test_streams_end_when_the_service_does() -> None:
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client, events(client) as stream:
        assert (await stream.next())[0] == "cursor"
        await rig.feed.close_streams()
        with pytest.raises(StopAsyncIteration):
            await stream.next()
        assert (await client.get("/v1/me/feed/events")).status_code == 429
        assert len(rig.feed.hub) == 0


async def test_a_server_that_cancels_what_is_open_ends_a_stream_and_logs_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As uvicorn does with `timeout_graceful_shutdown`, in whose log each exception of an app's is an error."""
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client, events(client) as stream:
        assert (await stream.next())[0] == "cursor"
        (request,) = [each.task for each in rig.feed.hub._all()]
        assert request is not None
        request.cancel()
        with pytest.raises(StopAsyncIteration):
            await stream.next()
        await asyncio.wait([request])
        assert len(rig.feed.hub) == 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_reader_who_leaves_is_forgotten() -> None:
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client:
        async with events(client) as stream:
            assert (await stream.next())[0] == "cursor"
            assert len(rig.feed.hub) == 1
        while len(rig.feed.hub):
            await asyncio.sleep(0.005)


async def test_one_user_may_open_so_many() -> None:
    settings = FeedSettings(streams_per_user=2, streams=3)
    async with (
        running("memory:", feed=settings) as rig,
        rig.client("alice") as client,
        rig.client("bob") as other,
        rig.client("carol") as last,
        events(client) as one,
        events(client) as two,
    ):
        for stream in (one, two):
            assert (await stream.next())[0] == "cursor"
        assert (await client.get("/v1/me/feed/events")).status_code == 429
        async with events(other) as three:
            assert (await three.next())[0] == "cursor"
            assert (await last.get("/v1/me/feed/events")).status_code == 429


def open_and_leave_lying(url: str, headers: Mapping[str, str]) -> socket.socket:
    """A reader that asks for a stream and then reads nothing."""
    host, _, port = url.removeprefix("http://").partition(":")
    lying = socket.socket()
    lying.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lying.connect((host, int(port)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    lying.sendall(f"GET /v1/me/feed/events HTTP/1.1\r\nhost: {host}:{port}\r\n{lines}\r\n".encode())
    return lying


async def lag_behind(rig: Rig, stream: Events, rounds: int) -> None:
    """Changes of which each reader's copy is large, until a reader who reads nothing is stuck; the other stream is read."""
    assert (await stream.next())[0] == "cursor"
    for n in range(rounds):
        id = await put(rig, text="x" * 100_000, n=n)
        assert await took(stream, 1) == [id], "the others are not kept waiting"


async def test_a_slow_reader_keeps_nobody_waiting_and_is_told_to_begin_anew() -> None:
    settings = FeedSettings(backlog=5, heartbeat=0.05, poll=0.005, content_bytes=200_000)
    async with running("memory:", feed=settings) as rig, rig.client("alice") as client, events(client) as stream:
        loop = asyncio.get_running_loop()
        slow = await loop.run_in_executor(None, open_and_leave_lying, rig.url, {"x-fanout-user": "alice"})
        with slow:
            while len(rig.feed.hub) < 2:
                await asyncio.sleep(0.005)
            await lag_behind(rig, stream, 80)
            slow.setblocking(False)
            seen = b""
            async with asyncio.timeout(30):
                while b"event: resync" not in seen[-300:]:
                    seen = seen[-300:] + await loop.sock_recv(slow, 65_536)


async def test_a_reader_who_never_reads_is_given_up() -> None:
    settings = FeedSettings(heartbeat=0.05, poll=0.005, patience=0.2, content_bytes=200_000)
    async with running("memory:", feed=settings) as rig, rig.client("alice") as client, events(client) as stream:
        loop = asyncio.get_running_loop()
        slow = await loop.run_in_executor(None, open_and_leave_lying, rig.url, {"x-fanout-user": "alice"})
        with slow:
            while len(rig.feed.hub) < 2:
                await asyncio.sleep(0.005)
            await lag_behind(rig, stream, 80)
            while len(rig.feed.hub) > 1:
                await asyncio.sleep(0.01)


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


async def test_the_request_that_opens_a_stream_can_not_be_anybodys() -> None:
    async with running("memory:") as rig, httpx.AsyncClient(base_url=rig.url) as client:
        assert (await client.get("/v1/me/feed/events")).status_code == 403


async def test_what_is_read_and_held_for_a_reader_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that lies 60 large changes behind has them all, in order; no reading and no piece is larger than the bounds."""
    async with running("memory:", feed=QUICK) as rig, rig.client("alice") as client:
        begin = (await client.get("/v1/me/feed")).json()["cursor"]
        ids = [await put(rig, text="x" * 60_000, n=n) for n in range(60)]
        read, sent = [], []
        facet = rig.engine.storage.feed
        real, send = facet.read, EventStream.send

        async def reading(*arguments: Any) -> Any:
            page = await real(*arguments)
            read.append(sum(len(item.content) for item in page.items))
            return page

        async def sending(stream: EventStream, data: bytes, now: float) -> None:
            sent.append(len(data))
            await send(stream, data, now)

        monkeypatch.setattr(facet, "read", reading)
        monkeypatch.setattr(EventStream, "send", sending)
        async with events(client, **{"last-event-id": begin}) as stream:
            assert (await stream.next())[0] == "cursor"
            assert await took(stream, 60) == ids
        assert max(read) <= 8 * 65_536
        assert max(sent) <= 2 * 262_144 + 8 * 65_536


async def test_a_reader_that_lies_too_many_large_changes_behind_begins_anew() -> None:
    async with running("memory:", feed=replace(QUICK, backlog=20)) as rig, rig.client("alice") as client:
        begin = (await client.get("/v1/me/feed")).json()["cursor"]
        for n in range(40):
            await put(rig, text="x" * 60_000, n=n)
        async with events(client, **{"last-event-id": begin}) as stream:
            kinds = []
            while "resync" not in kinds:
                kinds.append((await stream.next())[0])
            assert kinds.count("change") < 20
            again = await put(rig)
            assert await took(stream, 1) == [again]
