"""A request's body, read and inflated within bounds."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from fanout.config import Limits
from fanout.service.begun import Begun
from fanout.service.errors import Refused

__all__ = ["ClientGone", "Headers", "Inflater", "read_body", "read_stream"]

Headers = Mapping[bytes, bytes]
"""A request's headers, names in lower case."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_PATIENCE = 30.0
"""Seconds from the request's head to the end of the body, or, less the time of earlier pieces, to the next piece of a
stream."""
_SLOWEST = 1024.0
"""Bytes a second by which a stream earns its sender time: a byte now and then holds nothing open for ever."""
_RATIO = 100
_FREE = 262_144
"""Bytes that any compressed body may inflate to. Beyond them it may have at most `_RATIO` times the bytes that came
over the wire: JSON and NDJSON are compressed ten- to thirtyfold, and gzip's own limit is 1,032."""


class ClientGone(Exception):
    """The client went away before it had said everything: there is no client to answer."""


async def read_body(receive: Receive, headers: Headers, limits: Limits) -> bytes:
    """The whole body, inflated. Raises `Refused`: 400, 408, 413, 415."""
    inflater = _inflater(headers, limits.inflated_bytes)
    announced = headers.get(b"content-length", b"0")
    if not announced.isdigit() or len(announced) > 18 or int(announced) > limits.body_bytes:
        raise _too_large(limits.body_bytes)
    body = await _whole(receive, limits.body_bytes)
    if inflater is None:
        return body
    found = bytearray()
    async for piece in inflater.pieces(body):
        found += piece
    inflater.end()
    return bytes(found)


async def _whole(receive: Receive, limit: int) -> bytes:
    first = Begun(receive())
    if first.ended and not first.result.get("more_body"):
        return _piece(first.result, 0, limit)
    try:
        async with asyncio.timeout(_PATIENCE):
            message = await first
            parts = [_piece(message, 0, limit)]
            size = len(parts[0])
            while message.get("more_body"):
                message = await receive()
                parts.append(_piece(message, size, limit))
                size += len(parts[-1])
    except TimeoutError:
        raise _too_slow() from None
    return b"".join(parts)


def _piece(message: Mapping[str, Any], before: int, limit: int) -> bytes:
    """The bytes of one message of a body, of which so many came before. Raises `Refused` 413, and `ClientGone`."""
    if message["type"] == "http.disconnect":
        raise ClientGone
    piece = message.get("body", b"")
    if before + len(piece) > limit:
        raise _too_large(limit)
    return bytes(piece)


async def read_stream(receive: Receive, headers: Headers, limits: Limits) -> AsyncIterator[bytes]:
    """A body of up to `import_bytes` in pieces, inflated ones of at most 64 KB. Raises `Refused`: 400, 408, 413, 415;
    and `ClientGone`."""
    inflater = _inflater(headers, limits.import_bytes)
    size, left = 0, _PATIENCE
    while True:
        began = _now()
        asked = Begun(receive())
        try:
            if asked.ended:
                message = asked.result
            else:
                async with asyncio.timeout(left):
                    message = await asked
        except TimeoutError:
            raise _too_slow() from None
        left = min(_PATIENCE, left - (_now() - began) + len(message.get("body", b"")) / _SLOWEST)
        if left <= 0 and message.get("more_body"):
            raise _too_slow()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        size += len(piece)
        if size > limits.import_bytes:
            raise _too_large(limits.import_bytes)
        if inflater is None:
            if piece:
                yield piece
        else:
            async for part in inflater.pieces(piece):
                yield part
        if not message.get("more_body"):
            break
    if inflater is not None:
        inflater.end()


def _now() -> float:
    return asyncio.get_running_loop().time()


class Inflater:
    """gzip or deflate undone, up to `limit` bytes in all and up to a hundred times the bytes that came over the
    wire."""

    _PIECE = 64 * 1024

    def __init__(self, coding: str, limit: int) -> None:
        self._raw = coding == "deflate"
        self._limit = limit
        self._stream = zlib.decompressobj(15 if self._raw else 31)
        self._begun = False
        self._taken = self._made = 0

    async def pieces(self, data: bytes) -> AsyncIterator[bytes]:
        """The JSON value of `data`, written in pieces of at most 64 KB, with a turn of the loop for the others after
        each. Raises `Refused`."""
        self._taken += len(data)
        while data:
            piece, data = self._next(data)
            while piece:
                self._count(piece)
                yield piece
                full = len(piece) == self._PIECE
                if full:
                    await asyncio.sleep(0)
                if not full or data:
                    break
                # All input is taken, and zlib may still hold output.
                piece, data = self._next(b"")
            if self._stream.eof and (data or self._stream.unused_data):
                raise Refused(400, "invalidRequest", "The body goes on after its compressed part has ended.")

    def _count(self, piece: bytes) -> None:
        self._made += len(piece)
        if self._made > self._limit:
            raise _too_large(self._limit)
        if self._made > _FREE + _RATIO * self._taken:
            raise Refused(
                413,
                "invalidRequest",
                f"The body inflates to more than {_RATIO} times its size: send it without Content-Encoding.",
            )

    def _next(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            piece = self._stream.decompress(data, self._PIECE)
        except zlib.error:
            if not self._raw or self._begun:
                raise _damaged() from None
            # "deflate" means the zlib format (RFC 9110, section 8.4.1.2); some clients send the bare stream, as
            # browsers accept.
            self._stream = zlib.decompressobj(-15)
            try:
                piece = self._stream.decompress(data, self._PIECE)
            except zlib.error:
                raise _damaged() from None
        self._begun = True
        return piece, self._stream.unconsumed_tail

    def end(self) -> None:
        """The body has ended. Raises `Refused` for a stream that is cut off."""
        if not self._stream.eof:
            raise _damaged()


def _inflater(headers: Headers, limit: int) -> Inflater | None:
    coding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Refused(415, "notSupported", "Content-Encoding must be gzip or deflate, or be left out.")
    return Inflater(coding, limit)


def _too_large(limit: int) -> Refused:
    return Refused(413, "invalidRequest", f"The body is larger than {limit:,} bytes.")


def _too_slow() -> Refused:
    return Refused(408, "invalidRequest", "The body did not arrive in time.")


def _damaged() -> Refused:
    return Refused(400, "invalidRequest", "The body is not what its Content-Encoding says.")
