"""What an event stream holds for a slow reader is bounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from feedrig import Events, Rig, events, running
from streamrig import QUICK, put, took

from fanout.service.feed import FeedSettings
from fanout.service.feed.streams import EventStream

pytestmark = pytest.mark.anyio


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
    """Changes of which each reader's copy is large, until a reader who reads nothing is stuck; the other stream is
    read."""
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
            async with asyncio.timeout(120):
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


async def test_the_request_that_opens_a_stream_can_not_be_anybodys() -> None:
    async with running("memory:") as rig, httpx.AsyncClient(base_url=rig.url) as client:
        assert (await client.get("/v1/me/feed/events")).status_code == 403


async def test_what_is_read_and_held_for_a_reader_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that lies 60 large changes behind has them all, in order; no reading and no piece is larger than the
    bounds."""
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
