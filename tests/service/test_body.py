"""Bodies are read and inflated within bounds."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

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
    found = [piece async for piece in read_stream(said(*pieces), {b"content-encoding": coding})]
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
        [piece async for piece in read_stream(said(b"x", gone=True), {})]


async def test_a_stream_that_inflates_a_thousandfold_is_taken_in_small_pieces() -> None:
    packed = gzip.compress(b"\n" * 200_000_000, compresslevel=6)
    tracemalloc.start()
    total = most = 0
    async for piece in read_stream(said(packed), {b"content-encoding": b"gzip"}):
        total += len(piece)
        most = max(most, len(piece))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 200_000_000
    assert most <= 256 * 1024
    assert peak < 4_000_000
