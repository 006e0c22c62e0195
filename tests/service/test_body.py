"""Bodies are read and inflated within bounds."""

from __future__ import annotations

import asyncio
import gzip
import os
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import fanout.service.body as body_module
from fanout.config import Limits
from fanout.service.body import ClientGone, read_body, read_stream
from fanout.service.errors import Refused

pytestmark = pytest.mark.anyio
LIMITS = Limits(body_bytes=1000, inflated_bytes=5000)


def said(*pieces: bytes, gone: bool = False) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A client that says this, and then goes away or is done."""
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        if not left:
            return {"type": "http.disconnect"}
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left) or gone}

    return receive


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-15)
    return made.compress(data) + made.flush()


CODINGS = {b"gzip": gzip.compress, b"x-gzip": gzip.compress, b"deflate": zlib.compress, b" GZIP ": gzip.compress}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("cut", [1, 7, 10_000])
async def test_compressed_bodies_are_inflated(coding: bytes, cut: int) -> None:
    packed = CODINGS[coding](b"some text " * 100)
    pieces = [packed[at : at + cut] for at in range(0, len(packed), cut)]
    assert await read_body(said(*pieces), {b"content-encoding": coding}, LIMITS) == b"some text " * 100
    found = [piece async for piece in read_stream(said(*pieces), {b"content-encoding": coding}, LIMITS)]
    assert b"".join(found) == b"some text " * 100


async def test_deflate_without_its_wrapper_is_taken_too() -> None:
    assert await read_body(said(raw_deflate(b"text")), {b"content-encoding": b"deflate"}, LIMITS) == b"text"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x" * 1001, {}, 413),
        (b"x", {b"content-length": b"1001"}, 413),
        (b"x", {b"content-length": b"9" * 30}, 413),
        (gzip.compress(b"x" * 5001, mtime=0), {b"content-encoding": b"gzip"}, 413),
        (zlib.compress(b"x" * 500_000), {b"content-encoding": b"deflate"}, 413),
        (b"text", {b"content-encoding": b"br"}, 415),
        (b"text", {b"content-encoding": b"gzip, gzip"}, 415),
        (b"text", {b"content-encoding": b"\xff"}, 415),
        (b"text", {b"content-encoding": b"gzip"}, 400),
        (b"text", {b"content-encoding": b"deflate"}, 400),
        (b"", {b"content-encoding": b"gzip"}, 400),
        (gzip.compress(b"x" * 100, mtime=0)[:-9], {b"content-encoding": b"gzip"}, 400),
        (gzip.compress(b"x", mtime=0) + gzip.compress(b"y", mtime=0), {b"content-encoding": b"gzip"}, 400),
        (gzip.compress(b"x", mtime=0) + b"more", {b"content-encoding": b"gzip"}, 400),
    ],
)
async def test_what_is_refused(body: bytes, headers: dict[bytes, bytes], status: int) -> None:
    with pytest.raises(Refused) as refused:
        await read_body(said(body), headers, LIMITS)
    assert refused.value.status_code == status


async def test_a_body_that_grows_beyond_its_bound_is_not_read_to_its_end() -> None:
    receive = said(*[b"x" * 600] * 1000)
    with pytest.raises(Refused) as refused:
        await read_body(receive, {}, LIMITS)
    assert refused.value.status_code == 413
    assert (await receive())["type"] == "http.request"


async def test_a_client_that_goes_away_is_answered_nothing() -> None:
    with pytest.raises(ClientGone):
        await read_body(said(b"x", gone=True), {}, LIMITS)
    with pytest.raises(ClientGone):
        [piece async for piece in read_stream(said(b"x", gone=True), {}, LIMITS)]


def bomb(size: int) -> bytes:
    """A gzip body that inflates to `size` line breaks."""
    made = zlib.compressobj(9, wbits=31)
    return b"".join([made.compress(b"\n" * 1_000_000) for _ in range(size // 1_000_000)]) + made.flush()


def in_pieces(body: bytes, size: int = 65_536) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


async def test_a_stream_that_inflates_a_thousandfold_is_refused_before_it_costs_anything() -> None:
    packed = bomb(200_000_000)
    tracemalloc.start()
    total = 0

    async def read() -> None:
        nonlocal total
        async for piece in read_stream(said(*in_pieces(packed)), {b"content-encoding": b"gzip"}, LIMITS):
            total += len(piece)

    with pytest.raises(Refused) as refused:
        await read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.status_code == 413
    assert total < 8_000_000
    assert peak < 1_000_000


async def test_what_inflates_as_lines_do_is_taken_in_small_pieces_and_leaves_turns_to_others() -> None:
    lines = b"".join(
        b'{"user": "user-%d", "transport": "fcm", "address": "token-%d"}\n' % (n, n * n) for n in range(100_000)
    )
    packed = gzip.compress(lines, 6)
    assert len(lines) > 5 * len(packed)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    pieces = [piece async for piece in read_stream(said(packed), {b"content-encoding": b"gzip"}, LIMITS)]
    beside.cancel()
    assert b"".join(pieces) == lines
    assert max(map(len, pieces)) <= 64 * 1024
    assert turns >= len(lines) // (64 * 1024) - 1


async def test_a_stream_has_a_limit_of_its_own_compressed_or_not() -> None:
    limits = Limits(import_bytes=300_000)
    for body, headers in (
        (b"x" * 300_001, {}),
        (gzip.compress(os.urandom(150_000).hex().encode() + b"x"), {b"content-encoding": b"gzip"}),
    ):
        with pytest.raises(Refused) as refused:
            [piece async for piece in read_stream(said(*in_pieces(body)), headers, limits)]
        assert refused.value.status_code == 413


@pytest.mark.parametrize("said_first", [(), (b"x",)])
async def test_a_body_has_a_deadline_from_its_head_on(
    said_first: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that never starts."""
    monkeypatch.setattr(body_module, "_PATIENCE", 0.01)
    left = list(said_first)

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(Refused) as refused:
        await read_body(receive, {}, LIMITS)
    assert refused.value.status_code == 408
    left = list(said_first)
    with pytest.raises(Refused) as refused:
        [piece async for piece in read_stream(receive, {}, LIMITS)]
    assert refused.value.status_code == 408


@pytest.mark.parametrize(("size", "seconds", "taken"), [(1, 20.0, False), (65_536, 29.0, True), (1024, 1.0, True)])
async def test_a_stream_that_drips_is_ended_and_one_that_only_is_slow_is_not(
    size: int, seconds: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece comes within the patience. A byte every 20 seconds would hold its connection for as long as it
    likes."""
    clock = [0.0]
    monkeypatch.setattr(body_module, "_now", lambda: clock[0])
    pieces = said(*[b"x" * size] * 100)

    async def receive() -> dict[str, Any]:
        clock[0] += seconds
        return await pieces()

    async def read() -> int:
        return sum([len(piece) async for piece in read_stream(receive, {}, Limits())])

    if taken:
        assert await read() == 100 * size
    else:
        with pytest.raises(Refused) as refused:
            await read()
        assert refused.value.status_code == 408
        assert clock[0] <= 40.0


def no_timer(*_: object) -> Any:
    raise AssertionError("a timer was armed although nothing had to be waited for")


@pytest.mark.parametrize("pieces", [(b"text",), (b"",)])
async def test_a_body_that_is_there_arms_no_timer(pieces: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "timeout", no_timer)
    assert await read_body(said(*pieces), {}, LIMITS) == b"".join(pieces)


async def test_the_pieces_of_a_stream_that_are_there_arm_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "timeout", no_timer)
    assert [piece async for piece in read_stream(said(b"a", b"b"), {}, LIMITS)] == [b"a", b"b"]


@pytest.mark.parametrize("read", [read_body, read_stream])
async def test_a_message_that_is_waited_for_is_asked_for_once(read: Any) -> None:
    """Also one of a server that loses a message where its `receive` is closed and called again."""
    asked, come = 0, asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        number = asked
        await asyncio.sleep(0)
        await come.wait()
        return {"type": "http.request", "body": b"%d" % number, "more_body": number < 3}

    asyncio.get_running_loop().call_soon(come.set)
    found = read(receive, {}, LIMITS)
    got = await found if read is read_body else b"".join([piece async for piece in found])
    assert (got, asked) == (b"123", 3)
