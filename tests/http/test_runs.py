"""`H2Pool.start`: a run's requests are answered by index, whatever happens, and harm no connection."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.http import Head, RequestFailed, Requests, Response, literal
from fanout.http.codec import Codec
from fanout.http.frames import ErrorCode, FrameType, Setting, rst_stream, settings, settings_ack
from tests.http.gateway import HEAD, Certificates, Scene, scene, settle, until

pytestmark = pytest.mark.anyio


class Heard:
    """What a run's receiver is told; it may raise at each call."""

    def __init__(self, *, raises: bool = False) -> None:
        self.raises = raises
        self.accepts: list[list[int]] = []
        self.outcomes: dict[int, Any] = {}
        self.given_up: set[int] = set()
        self.twice: list[int] = []

    def _note(self, index: int, what: Any) -> None:
        if index in self.outcomes:
            self.twice.append(index)  # an exception here would be the loop's to report, and fail no test
        self.outcomes[index] = what

    def accepted(self, indices: list[int]) -> None:
        self.accepts.append(indices)
        for index in indices:
            self._note(index, 200)
        self._raise()

    def answered(self, index: int, response: Response) -> None:
        self._note(index, (response.status, response.body))
        self._raise()

    def failed(self, index: int, failure: RequestFailed) -> None:
        self._note(index, (failure.sent, failure.reason))
        self._raise()

    def over(self, index: int) -> bool:
        return index in self.given_up or index in self.outcomes

    def _raise(self) -> None:
        if self.raises:
            raise ValueError("the receiver's fault")


def requests(count: int, first: int = 0) -> Requests:
    paths = [b"/%d" % n for n in range(first, first + count)]
    own = [literal("n", str(n)) for n in range(first, first + count)]
    return Requests(HEAD, paths, literal("common", "c"), own, [b"{}"] * count)


async def warm(it: Scene) -> Any:
    """A connection that has answered once, and the test's end of it."""
    (future,) = it.ask()
    peer = await it.met()
    peer.answer((await peer.request()).stream)
    await future
    return peer


async def test_a_run_is_answered_by_index(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        peer, heard = await warm(it), Heard()
        assert list(it.pool.start(heard, requests(5))) == []
        got = await peer.requests(5)
        assert [(each.headers[":path"], each.headers["common"], each.headers["n"], each.body) for each in got] == [
            (f"/{n}", "c", str(n), b"{}") for n in range(5)
        ]
        peer.answer(got[3].stream, b"\x8c", b"bad")
        for n in (4, 0, 2):
            peer.answer(got[n].stream, body=b"{}" if n == 2 else b"")
        peer.send(rst_stream(got[1].stream, ErrorCode.REFUSED_STREAM))
        await until(lambda: len(heard.outcomes) == 5)
        assert heard.outcomes == {0: 200, 1: ("no", "refused"), 2: 200, 3: (400, b"bad"), 4: 200}
        assert it.pool.stats.failed == {"refused": 1}
        assert heard.twice == []
        assert it.pool._ready[0].codec.answered == [], "a later read answers none of them again"


async def test_answers_of_one_read_come_as_one_list_and_not_inside_of_the_connection(
    certificates: Certificates,
) -> None:
    async with scene(certificates) as it:
        peer, heard = await warm(it), Heard()
        it.pool.start(heard, requests(8))
        connection = it.pool._ready[0]
        for each in await peer.requests(8):
            peer.answer(each.stream)
        received, inside = connection._receive, []
        connection._receive = lambda data: (received(data), inside.append(bool(heard.outcomes)))  # type: ignore[method-assign, assignment]
        await until(lambda: len(heard.outcomes) == 8)
        assert inside[0] is False
        assert sum(map(len, heard.accepts)) == 8
        assert len(heard.accepts) <= len(inside)


async def test_a_receiver_that_raises_costs_no_other_its_answer(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        peer, bad, good = await warm(it), Heard(raises=True), Heard()
        (single,) = it.ask()
        it.pool.start(bad, requests(4))
        it.pool.start(good, requests(4))
        first, *others = await peer.requests(9)
        for each in (*others[:2], *others[4:6]):
            peer.answer(each.stream)
        for each in (*others[2:3], *others[6:7]):
            peer.answer(each.stream, b"\x8c")
        peer.answer(first.stream)
        assert (await single).status == 200
        await until(lambda: len(good.outcomes) == 3 and len(bad.outcomes) == 3)
        peer.abort()
        await until(lambda: len(good.outcomes) == 4 and len(bad.outcomes) == 4)
        assert good.outcomes == bad.outcomes == {0: 200, 1: 200, 2: (400, b""), 3: ("unknown", "closed")}
        assert {type(context["exception"]) for context in told} == {ValueError}


async def test_there_is_room_for_as_many_as_the_streams_that_are_free(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        heard = Heard()
        assert list(it.pool.start(heard, requests(3))) == [0, 1, 2], "no connection yet, and a run opens none"
        (future,) = it.ask()
        peer = await it.met((Setting.MAX_CONCURRENT_STREAMS, 4))
        first = await peer.request()
        assert list(it.pool.start(heard, requests(5))) == [3, 4]
        waits = it.ask(1)
        assert list(it.pool.start(Heard(), requests(1))) == [0], "what waits was here before"
        for each in (first, *await peer.requests(3)):
            peer.answer(each.stream)
        await future
        peer.answer((await peer.request()).stream)
        await waits[0]
        assert heard.outcomes == {0: 200, 1: 200, 2: 200}
        assert it.whole()


async def test_a_run_is_shared_by_connections(certificates: Certificates) -> None:
    async with scene(certificates, connections=2, streams=4) as it:
        futures = it.ask(3)
        one = await it.met()
        first = await one.requests(3)
        two = await it.met()
        await until(lambda: len(it.pool._ready) == 2)
        heard = Heard()
        assert list(it.pool.start(heard, requests(6))) == [5]
        for peer, count in ((one, 1), (two, 4)):
            for each in await peer.requests(count):
                peer.answer(each.stream)
        for each in first:
            one.answer(each.stream)
        await asyncio.gather(*futures)
        await until(lambda: len(heard.outcomes) == 5)


async def test_a_fresh_run_goes_over_what_answered_within_a_second(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        peer, heard = await warm(it), Heard()
        await it.tick()
        await it.pass_time(1.5)
        assert list(it.pool.start(heard, requests(2), True)) == [0, 1]
        assert list(it.pool.start(heard, requests(1))) == []
        peer.answer((await peer.request()).stream)
        await until(lambda: len(heard.outcomes) == 1)
        assert list(it.pool.start(heard, Requests(HEAD, [b"/"], b"", [b""], [b"x"]), True)) == []
        heard.outcomes.clear()
        peer.answer((await peer.request()).stream)
        await until(lambda: len(heard.outcomes) == 1)


async def test_what_is_given_up_frees_its_stream_within_a_tick(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        peer, heard = await warm(it), Heard()
        it.pool.start(heard, requests(3))
        got = await peer.requests(3)
        heard.given_up = {0, 2}
        await it.tick()
        assert it.pool.in_flight == 1
        assert {(await peer.expect(FrameType.RST_STREAM)).stream for _ in range(2)} == {got[0].stream, got[2].stream}
        peer.answer(got[0].stream)
        peer.answer(got[1].stream)
        await until(lambda: 1 in heard.outcomes)
        await settle()
        assert heard.outcomes == {1: 200}
        assert it.pool.stats.cancelled == 2


async def test_a_run_times_out_and_ends_with_the_pool(certificates: Certificates) -> None:
    async with scene(certificates, request_timeout=5.0) as it:
        peer, late, closed = await warm(it), Heard(), Heard()
        it.pool.start(late, requests(2))
        await it.tick()
        await it.pass_time(3)
        it.pool.start(closed, requests(2))
        await it.pass_time(3)
        assert late.outcomes == dict.fromkeys(range(2), ("unknown", "timeout"))
        await peer.requests(4)
        await it.pool.aclose()
        assert closed.outcomes == dict.fromkeys(range(2), ("unknown", "closed"))
        assert list(it.pool.start(closed, requests(2))) == [0, 1]


def _codec(window: int) -> Codec:
    codec = Codec()
    codec.start()
    codec.receive(settings([(Setting.INITIAL_WINDOW_SIZE, window)]) + settings_ack())
    codec.take()
    return codec


_BODIES = st.lists(st.integers(0, 300), max_size=6)


@given(_BODIES, st.integers(0, 2000), st.booleans())
def test_a_run_is_sent_as_its_requests_one_by_one(sizes: list[int], window: int, long: bool) -> None:
    """The bytes, what waits for a window, and the ids do not tell a run from single requests."""
    together, single = _codec(window), _codec(window)
    head = Head("POST", "https", "gateway.test", [("x", "y" * (20_000 if long else 1))])
    paths = [b"/" + b"p" * (n * 150) for n in range(len(sizes))]
    bodies = [b"b" * size for size in sizes]
    own = [literal("n", str(n)) for n in range(len(sizes))]
    common = literal("common", "c")
    tokens = [(None, n) for n in range(len(sizes))]
    for _ in range(2):  # the second time the head is in the table
        together.start_run(tokens, Requests(head, paths, common, own, bodies))
        for token, path, fields, body in zip(tokens, paths, own, bodies, strict=True):
            single.request(token, head, path, common + fields, body)
    assert together.streams == single.streams
    assert together.next_stream == single.next_stream
    assert together.outflow.window == single.outflow.window
    assert list(together.outflow.waiting) == list(single.outflow.waiting)
    assert together.take() == single.take()
