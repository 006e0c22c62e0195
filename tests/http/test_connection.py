"""The connection by itself, over a transport that only remembers; and endings that need exact timing."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from fanout.core.turns import Turns
from fanout.http import H2Pool, PoolSettings, PoolStats
from fanout.http.connection import Connection
from fanout.http.frames import FrameType, frame, ping, settings
from tests.http.gateway import HEAD, Certificates, Clock, failure, gateway, scene, settle, until

pytestmark = pytest.mark.anyio


class Remembering(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


class Nobody:
    waiting = False

    def connection_moved(self, connection: Connection) -> None: ...
    def connection_proved(self, connection: Connection) -> None: ...
    def connection_ended(self, connection: Connection) -> None: ...


def connected(clock: Clock) -> tuple[Connection, Remembering]:
    connection = Connection(Nobody(), PoolSettings(), PoolStats(), random.Random(1), clock)
    transport = Remembering()
    connection.connection_made(transport)
    connection.data_received(settings([]))
    connection.flush()
    transport.written.clear()
    return connection, transport


async def test_writes_of_one_turn_of_the_loop_leave_together() -> None:
    connection, transport = connected(Clock())
    connection.data_received(ping(b"12345678"))
    connection.data_received(ping(b"abcdefgh"))
    assert transport.written == []
    await settle()
    assert transport.written == [ping(b"12345678", ack=True) + ping(b"abcdefgh", ack=True)]


@pytest.mark.parametrize(("pieces", "writes"), [(0, [1]), (1, [1]), (3, [3]), (5, [5]), (12, [5, 5, 2])])
async def test_while_other_work_is_in_line_requests_are_gathered_for_a_few_turns(
    pieces: int, writes: list[int]
) -> None:
    """Each piece of work ends in one more frame to write."""
    connection, transport = connected(Clock())
    await settle()
    loop = asyncio.get_running_loop()
    left = pieces

    def piece() -> bool:
        nonlocal left
        left -= 1
        connection.data_received(ping(b"12345678"))
        return left > 0

    if pieces:
        Turns.on(loop).add(loop, piece)
    else:
        connection.data_received(ping(b"12345678"))
    await settle()
    assert [len(each) // 17 for each in transport.written] == writes


async def test_while_the_transport_asks_to_wait_nothing_is_written() -> None:
    connection, transport = connected(Clock())
    assert connection.limit == 500
    connection.pause_writing()
    assert connection.limit == 0
    assert connection.nominal == 500
    connection.data_received(ping(b"12345678"))
    await settle()
    assert transport.written == []
    connection.resume_writing()
    assert transport.written == [ping(b"12345678", ack=True)]
    assert connection.limit == 500


async def test_a_drained_connection_whose_peer_does_not_close_is_aborted() -> None:
    clock = Clock()
    connection, transport = connected(clock)
    connection.drain()
    assert transport.closed
    assert transport.written[-1][3] == FrameType.GOAWAY
    connection.tick(clock.now + 1.9)
    assert not transport.aborted
    connection.tick(clock.now + 2.0)
    assert transport.aborted


async def test_losing_the_connection_resolves_everything_once() -> None:
    connection, _ = connected(Clock())
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(3)]
    for future in futures[:2]:
        connection.codec.request(future, HEAD, b"/", b"", b"x")
    connection.flush()
    connection.codec.request(futures[2], HEAD, b"/", b"", b"x")
    futures[0].cancel()
    connection.connection_lost(ConnectionResetError())
    assert futures[0].cancelled()
    assert await failure(futures[1]) == ("unknown", "closed")
    assert await failure(futures[2]) == ("no", "closed")
    connection.data_received(frame(FrameType.HEADERS, 0x5, 1, b"\x88"))
    assert connection.ended.done()
    assert connection.limit == 0


async def test_a_connection_that_ends_as_it_opens_is_not_kept(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial(origin: object, make: Any, **_: object) -> Connection:
        connection: Connection = make()
        connection.connection_made(Remembering())
        connection.data_received(settings([]))
        connection.connection_lost(None)
        return connection

    monkeypatch.setattr("fanout.http.pool.dial", dial)
    async with scene(certificates) as it:
        (future,) = it.ask()
        assert await failure(future) == ("no", "closed")
        assert not it.pool._ready
        assert not it.pool._draining
        (future,) = it.ask()
        assert await failure(future) == ("no", "closed")
        assert it.pool.stats.opened == 1  # then it backs off


async def test_closing_while_settings_are_awaited_closes_the_socket(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        (future,) = it.ask()
        peer = await it.server.accept()
        await peer.expect_preface()
        await it.pool.aclose()
        assert await failure(future) == ("no", "closed")
        await peer.gone()


async def test_without_tls_a_peer_that_reads_nothing_cannot_hold_a_closing_connection() -> None:
    clock = Clock()
    async with gateway(None) as server:
        quiet = PoolSettings(tick=3600.0, connections=1, warm=0.0, dns_interval=None, stall_ping=1e6)
        async with H2Pool(server.url, ssl_context=None, settings=quiet, clock=clock, rng=random.Random(1)) as pool:
            future = pool.request(HEAD, b"/", b"", b"x" * 60_000)
            peer = await server.accept()
            await peer.hello((4, 2**31 - 1))
            peer.send(frame(FrameType.WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")))
            await peer.request()
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            others = [pool.request(HEAD, b"/", b"", b"x" * 1_000_000) for _ in range(20)]
            connection = pool._ready[0]
            await until(lambda: connection.limit == 0)
            pool._tick()
            clock.now += 20.0
            pool._tick()
            assert await failure(future) == ("unknown", "timeout")
            for other in others:
                assert (await failure(other))[1] == "timeout"
            pool.retire()
            await settle()
            assert not connection.ended.done()
            clock.now += 2.0
            pool._tick()
            await connection.ended
            assert pool.in_flight == 0
