"""A request's body, read and inflated within bounds."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from typing import Any

from fanout.config import Limits
from fanout.service.errors import Refused

__all__ = ["ClientGone", "Headers", "Inflater", "read_body", "read_stream"]

Headers = Mapping[bytes, bytes]
"""A request's headers, names in lower case."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_PATIENCE = 30.0
"""Seconds that a client may take for a whole body, or for the next piece of a stream."""


class ClientGone(Exception):
    """The client went away before it had said everything: there is nobody to answer."""


async def read_body(receive: Receive, headers: Headers, limits: Limits) -> bytes:
    """The whole body, inflated. Raises `Refused`: 400, 408, 413, 415."""
    inflater = _inflater(headers, limits.inflated_bytes)
    announced = headers.get(b"content-length", b"0")
    if not announced.isdigit() or len(announced) > 18 or int(announced) > limits.body_bytes:
        raise _too_large(limits.body_bytes)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body = message.get("body", b"")
    else:
        body = await _rest(message, receive, limits.body_bytes)
    if len(body) > limits.body_bytes:
        raise _too_large(limits.body_bytes)
    if inflater is None:
        return bytes(body)
    return inflater.feed(body) + inflater.end()


async def _rest(message: MutableMapping[str, Any], receive: Receive, limit: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            while True:
                if message["type"] == "http.disconnect":
                    raise ClientGone
                body += message.get("body", b"")
                if len(body) > limit:
                    raise _too_large(limit)
                if not message.get("more_body"):
                    return bytes(body)
                message = await receive()
    except TimeoutError:
        raise _too_slow() from None


async def read_stream(receive: Receive, headers: Headers) -> AsyncIterator[bytes]:
    """A body of any length in pieces of at most 256 KB, inflated. Raises `Refused`: 400, 408, 415; and `ClientGone`."""
    inflater = _inflater(headers, None)
    while True:
        try:
            async with asyncio.timeout(_PATIENCE):
                message = await receive()
        except TimeoutError:
            raise _too_slow() from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece = message.get("body", b"")
        if inflater is None:
            if piece:
                yield piece
        else:
            for part in inflater.pieces(piece):
                yield part
        if not message.get("more_body"):
            break
    if inflater is not None:
        inflater.end()


class Inflater:
    """gzip or deflate undone, up to `limit` bytes in all (None: any number, in pieces)."""

    _PIECE = 256 * 1024

    def __init__(self, coding: str, limit: int | None) -> None:
        self._raw = coding == "deflate"
        self._limit = limit
        self._stream = zlib.decompressobj(15 if self._raw else 31)
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """Everything that `data` comes to. Raises `Refused`."""
        found = bytearray()
        for piece in self.pieces(data):
            found += piece
            if self._limit is not None and len(found) > self._limit:
                raise _too_large(self._limit)
        return bytes(found)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The same in pieces of at most 256 KB. Raises `Refused`."""
        while data:
            piece, data = self._next(data)
            while piece:
                yield piece
                if len(piece) < self._PIECE or data:
                    break
                # All input is taken, and zlib may still hold output.
                piece, data = self._next(b"")
            if self._stream.eof and (data or self._stream.unused_data):
                raise Refused(400, "invalidRequest", "The body goes on after its compressed part has ended.")

    def _next(self, data: bytes) -> tuple[bytes, bytes]:
        try:
            piece = self._stream.decompress(data, self._PIECE)
        except zlib.error:
            if not self._raw or self._begun:
                raise _damaged() from None
            # "deflate" means the zlib format (RFC 9110, section 8.4.1.2); some clients send the bare stream, as browsers accept.
            self._stream = zlib.decompressobj(-15)
            try:
                piece = self._stream.decompress(data, self._PIECE)
            except zlib.error:
                raise _damaged() from None
        self._begun = True
        return piece, self._stream.unconsumed_tail

    def end(self) -> bytes:
        """What is left at the end of the body. Raises `Refused` for a stream that is cut off."""
        if not self._stream.eof:
            raise _damaged()
        return b""


def _inflater(headers: Headers, limit: int | None) -> Inflater | None:
    coding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Refused(415, "notSupported", "Content-Encoding must be gzip or deflate, or be left out.")
    return Inflater(coding, limit)


def _too_large(limit: int) -> Refused:
    # The rest of the body is not read: the connection cannot be used again.
    text = f"The body is larger than {limit:,} bytes."
    return Refused(413, "invalidRequest", text, {"connection": "close"})


def _too_slow() -> Refused:
    return Refused(408, "invalidRequest", "The body did not arrive in time.", {"connection": "close"})


def _damaged() -> Refused:
    return Refused(400, "invalidRequest", "The body is not what its Content-Encoding says.")
