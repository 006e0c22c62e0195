"""A connection is alive if it answers requests: what is done about one that does not, and about those that were not
asked lately."""

from __future__ import annotations

import asyncio

import pytest

from fanout.http import Response
from fanout.http.frames import FrameType, Setting, frame, ping, settings
from tests.http.gateway import HEAD, Certificates, Peer, Scene, failure, scene, settle, until

pytestmark = pytest.mark.anyio


def fresh(it: Scene) -> asyncio.Future[Response]:
    return it.pool.request(HEAD, b"/fresh", b"", b"{}", fresh=True)


async def served(it: Scene) -> Peer:
    """A connection that has answered one request."""
    (first,) = it.ask()
    peer = await it.met()
    peer.answer((await peer.request()).stream)
    assert (await first).status == 200
    return peer


async def pongs(peer: Peer) -> None:
    """Answer every PING and nothing else, until the client goes."""
    try:
        while True:
            got = await peer.frame()
            if got.kind == FrameType.PING and not got.flags & 1:
                peer.send(ping(got.payload, ack=True))
    except (asyncio.IncompleteReadError, ConnectionError):
        return


async def through(it: Scene, seconds: float, step: float = 1.0) -> None:
    """Let time pass as it does: in small steps, with all that is said in between heard."""
    for _ in range(int(seconds / step)):
        await it.pass_time(step)
        await settle(60)


async def test_a_connection_that_says_pong_and_nothing_else_is_replaced_at_the_first_timeout(
    certificates: Certificates,
) -> None:
    async with scene(certificates, stall_ping=4.0, ping_timeout=8.0) as it:
        old = await served(it)
        answering = asyncio.ensure_future(pongs(old))
        (lost,) = it.ask()
        await through(it, 14.0)
        assert it.pool.stats.pings > 0
        assert not lost.done()
        await through(it, 2.0)
        assert await failure(lost) == ("unknown", "timeout")
        (after,) = it.ask()
        new = await it.met()
        new.answer((await new.request()).stream)
        assert (await after).status == 200
        assert "answered no request" in it.pool.stats.last_trouble
        await answering
        assert it.whole()


async def test_one_stream_that_is_never_answered_costs_no_connection_that_serves(certificates: Certificates) -> None:
    async with scene(certificates, stall_ping=100.0) as it:
        peer = await served(it)
        (lost,) = it.ask()
        await peer.request()
        await it.pass_time(4.0)
        (other,) = it.ask()
        peer.answer((await peer.request()).stream)
        await other
        await through(it, 16.0, 4.0)
        assert await failure(lost) == ("unknown", "timeout")
        (after,) = it.ask()
        peer.answer((await peer.request()).stream)
        assert (await after).status == 200
        assert it.server.connects == 1


async def test_with_a_mute_connection_go_those_that_have_not_answered_either(certificates: Certificates) -> None:
    async with scene(certificates, connections=2, streams=2, stall_ping=100.0) as it:
        futures = it.ask(4)
        first = await it.met()
        got = await first.requests(2)
        second = await it.met()
        got_second = await second.requests(2)
        for peer, those in ((first, got), (second, got_second)):
            for each in those:
                peer.answer(each.stream)
        await asyncio.gather(*futures)
        await it.tick()
        (lost,) = it.ask()
        await through(it, 20.0, 4.0)
        assert await failure(lost) == ("unknown", "timeout")
        (after,) = it.ask()
        third = await it.met()
        third.answer((await third.request()).stream)
        assert (await after).status == 200


async def test_a_short_wait_of_the_callers_says_nothing_about_a_connection(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        peer = await served(it)
        (short,) = it.ask(timeout=0.2)
        await it.pass_time(0.3)
        assert await failure(short) == ("unknown", "timeout")
        (after,) = it.ask()
        await peer.request()
        peer.answer((await peer.request()).stream)
        assert (await after).status == 200
        assert it.server.connects == 1


@pytest.mark.parametrize("seconds", [0.0, 0.9])
async def test_a_fresh_request_takes_a_connection_that_has_just_answered(
    certificates: Certificates, seconds: float
) -> None:
    async with scene(certificates) as it:
        peer = await served(it)
        it.clock.now += seconds
        future = fresh(it)
        peer.answer((await peer.request()).stream)
        assert (await future).status == 200
        assert it.server.connects == 1


@pytest.mark.parametrize("pong", [True, False])
async def test_a_fresh_request_opens_a_connection_otherwise(certificates: Certificates, pong: bool) -> None:
    async with scene(certificates) as it:
        old = await served(it)
        await it.tick()
        await it.pass_time(1.5)
        if pong:  # which is no answer to a request
            old.send(frame(FrameType.PING, 0, 0, b"12345678"))
            await old.expect(FrameType.PING)
        future = fresh(it)
        new = await it.met()
        new.answer((await new.request()).stream)
        assert (await future).status == 200
        (usual,) = it.ask()
        new.answer((await new.request()).stream)
        assert (await usual).status == 200
        await until(lambda: len(it.pool._ready) == 1)
        assert it.whole()


async def test_many_fresh_requests_share_one_new_connection(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        futures = [fresh(it) for _ in range(20)]
        peer = await it.met()
        for got in await peer.requests(20):
            peer.answer(got.stream)
        assert [(await future).status for future in futures] == [200] * 20
        assert it.server.connects == 1


async def test_fresh_requests_on_trial_wait_for_the_one_that_is_out(certificates: Certificates) -> None:
    async with scene(certificates, first_alone=True) as it:
        futures = [fresh(it) for _ in range(3)]
        peer = await it.met()
        got = await peer.request()
        await it.pass_time(2.0)
        await settle(100)
        assert it.server.connects == 1
        peer.answer(got.stream)
        for each in await peer.requests(2):
            peer.answer(each.stream)
        assert [(await future).status for future in futures] == [200] * 3


async def test_a_fresh_request_waits_for_no_more_than_a_connect_where_none_can_be_made(
    certificates: Certificates,
) -> None:
    async with scene(certificates, backoff_base=1000.0, backoff_cap=1000.0) as it:
        old = await served(it)
        await it.tick()
        await it.pass_time(2.0)
        it.server.context = None
        it.pool._origin.port = 1  # nothing listens there
        assert await failure(fresh(it)) == ("no", "connect")
        next_one = fresh(it)
        await it.pass_time(1.0)
        assert await failure(next_one) == ("no", "connect")
        (usual,) = it.ask()
        old.answer((await old.request()).stream)
        assert (await usual).status == 200


@pytest.mark.parametrize("ticked", [True, False])
async def test_what_was_connected_before_a_suspend_is_proven_before_use(
    certificates: Certificates, ticked: bool
) -> None:
    async with scene(certificates, connections=1) as it:
        old = await served(it)
        await it.tick()
        it.clock.now += 7200.0
        if ticked:
            await it.tick()
        (future,) = it.ask()
        asked = await old.expect(FrameType.PING)
        await settle()
        assert [got.kind for got in old.frames].count(FrameType.HEADERS) == 1  # nothing but the question
        old.send(ping(asked.payload, ack=True))
        old.answer((await old.request()).stream)
        assert (await future).status == 200
        assert it.server.connects == 1


async def test_a_connection_that_did_not_survive_a_suspend_costs_no_request(certificates: Certificates) -> None:
    async with scene(certificates, connections=1) as it:
        await served(it)
        await it.tick()
        it.clock.now += 7200.0
        (future,) = it.ask()
        await it.pass_time(0.3)
        new = await it.met()
        new.answer((await new.request()).stream)
        assert (await future).status == 200


async def test_a_gateway_that_allows_no_stream_gets_none_on_trial_either(certificates: Certificates) -> None:
    async with scene(certificates, first_alone=True) as it:
        (future,) = it.ask()
        peer = await it.met((Setting.MAX_CONCURRENT_STREAMS, 0))
        await peer.expect(FrameType.SETTINGS)
        assert it.pool.capacity() == 0
        await settle(100)
        assert FrameType.HEADERS not in [got.kind for got in peer.frames]
        peer.send(settings([(Setting.MAX_CONCURRENT_STREAMS, 1)]))
        peer.answer((await peer.request()).stream)
        assert (await future).status == 200
        assert it.pool.capacity() == 1


async def test_no_streams_in_mid_flight_and_again_some(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        owed = it.ask(3)
        peer = await it.met()
        got = await peer.requests(3)
        peer.send(settings([(Setting.MAX_CONCURRENT_STREAMS, 0)]))
        await peer.expect(FrameType.SETTINGS)
        assert it.pool.capacity() == 0
        (later,) = it.ask()
        for each in got:
            peer.answer(each.stream)
        await asyncio.gather(*owed)
        assert not later.done()
        peer.send(settings([(Setting.MAX_CONCURRENT_STREAMS, 2)]))
        peer.answer((await peer.request()).stream)
        assert (await later).status == 200


async def test_a_connection_that_stays_shut_is_replaced(certificates: Certificates) -> None:
    async with scene(certificates, request_timeout=15.0) as it:
        old = await served(it)
        old.send(settings([(Setting.MAX_CONCURRENT_STREAMS, 0)]))
        await old.expect(FrameType.SETTINGS)
        assert it.pool.capacity() == 0
        await through(it, 16.0, 4.0)
        new = await it.met()
        (future,) = it.ask()
        new.answer((await new.request()).stream)
        assert (await future).status == 200
        assert it.pool.capacity() > 0
