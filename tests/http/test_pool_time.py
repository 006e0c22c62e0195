"""The deadlines of the pool, and a loop that was blocked."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

from fanout.core.outcome import Deferred
from fanout.http import H2Pool, RequestFailed, unanswered
from fanout.http.frames import ErrorCode, FrameType
from tests.http.gateway import Certificates, failure, scene

pytestmark = pytest.mark.anyio


async def test_a_request_has_a_deadline_and_a_late_answer_harms_nobody(certificates: Certificates) -> None:
    async with scene(certificates, request_timeout=15.0, stall_ping=100.0) as it:
        early, *_ = it.ask()
        short, *_ = it.ask(timeout=3.0)
        long, *_ = it.ask(timeout=60.0)
        peer = await it.met()
        first, second, third = await peer.requests(3)
        await it.pass_time(2.5)
        assert not short.done()
        await it.pass_time(0.5)
        assert await failure(short) == ("unknown", "timeout")
        late, *_ = it.ask()
        fourth = await peer.request()
        await it.pass_time(11.5)
        assert not early.done()
        await it.pass_time(0.5)
        assert await failure(early) == ("unknown", "timeout")
        await peer.expect(FrameType.RST_STREAM)
        resets = [(got.stream, got.payload) for got in peer.frames if got.kind == FrameType.RST_STREAM]
        cancel = ErrorCode.CANCEL.to_bytes(4, "big")
        assert resets == [(second.stream, cancel), (first.stream, cancel)]
        peer.answer(first.stream)
        peer.answer(second.stream, body=b"late")
        peer.answer(third.stream)
        peer.answer(fourth.stream)
        assert (await long).status == (await late).status == 200
        assert it.pool.stats.failed == {"timeout": 2}
        assert it.whole()


def be_late(pool: H2Pool) -> None:
    """The tick that comes next is five seconds late by the loop's own clock."""
    due = asyncio.get_running_loop().time() - 5.0
    assert pool._timer is not None
    pool._timer.cancel()
    pool._timer = Mock(asyncio.TimerHandle, when=lambda: due)


async def test_after_a_blocked_loop_answers_go_before_deadlines(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        (future,) = it.ask()
        peer = await it.met()
        got = await peer.request()
        be_late(it.pool)
        it.clock.now += 100.0
        it.pool._tick()
        assert not future.done()
        peer.answer(got.stream)
        assert (await future).status == 200


async def test_after_a_blocked_loop_deadlines_go_on(certificates: Certificates) -> None:
    async with scene(certificates, request_timeout=15.0) as it:
        (future,) = it.ask()
        peer = await it.met()
        await peer.request()
        be_late(it.pool)
        it.pool._tick()  # the next one comes at once, and by itself
        it.clock.now += 100.0
        assert await failure(future) == ("unknown", "timeout")


async def test_own_deadlines_are_forgotten_with_their_requests(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        (warm,) = it.ask()
        peer = await it.met()
        serving = asyncio.ensure_future(peer.serve())
        await warm
        for _ in range(10):
            await asyncio.gather(*it.ask(100, timeout=1000.0))
            await it.tick()
        assert len(it.pool._ready[0].deadlines) < 200
        serving.cancel()


async def test_the_deadline_of_a_request_counts_while_it_waits_for_a_connection(certificates: Certificates) -> None:
    async with scene(certificates, streams=1) as it:
        sent, waiting = it.ask(2, timeout=5.0)
        brief, *_ = it.ask(timeout=1.0)
        await it.pass_time(1.0)
        assert await failure(brief) == ("no", "timeout")
        peer = await it.met()
        await peer.request()
        await it.pass_time(4.0)
        assert await failure(sent) == ("unknown", "timeout")
        assert await failure(waiting) == ("no", "timeout")
        assert it.whole()


async def test_time_waited_for_a_free_stream_is_our_own_and_not_the_gateways(certificates: Certificates) -> None:
    """Half of the deadline at most; a request that is sent before that has the whole deadline from then on."""
    async with scene(certificates, streams=1, connections=1, request_timeout=20.0, stall_ping=100.0) as it:
        (first,) = it.ask()
        peer = await it.met()
        head = await peer.request()
        sent, *_ = it.ask()
        await it.pass_time(9.0)
        waiting, *_ = it.ask()
        peer.answer(head.stream)
        assert (await first).status == 200
        await peer.request()
        await it.pass_time(10.0)
        with pytest.raises(RequestFailed) as caught:
            await waiting
        assert unanswered(caught.value.sent, caught.value.reason, **caught.value.evidence) == Deferred("timeout")
        await it.pass_time(9.0)
        assert not sent.done()  # 28 s after it was asked, 19 s after it was sent
        await it.pass_time(1.5)
        assert await failure(sent) == ("unknown", "timeout")
        assert it.whole()
