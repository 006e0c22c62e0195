"""One connection of HTTP/1.1: aiohttp's handler with our parser and limits, behind our reading and connecting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpVersion11, RawResponseMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

from fanout.http.buffers import Forwarding
from fanout.http.http1_parser import AnswerParser, NoAnswer

__all__ = ["Handler", "NoAnswerCame", "Wire"]

_BUFFER = 65_536
"""Bytes of a body that wait for their reader before the connection is asked to pause; twice as many at most."""
_SLEPT = 5.0
"""Seconds that our clock may be ahead of the loop's for one stretch of time: more means that the machine slept."""


class NoAnswerCame(aiohttp.ClientError):
    """The bytes from the server are no answer. `reason` is one of the words of `RequestFailed`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Handler(ResponseHandler):
    """aiohttp's protocol, which manages the connection; `AnswerParser` reads the bytes, one for each request.

    `clock` gives seconds that pass while the machine sleeps.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float]) -> None:
        super().__init__(loop=loop)
        self._clock = clock
        self._parser_of_answer: AnswerParser | None = None
        self._stream: StreamReader | None = None
        self.requests = 0
        self.opened_at = self.answered_at = self.began_at = clock()
        self._answered_by_loop = loop.time()

    def begin(self) -> None:
        """A request is about to be written."""
        self.requests += 1
        self.began_at = self._clock()
        self._parser_of_answer = AnswerParser()
        self._stream = None

    def set_response_params(self, **_: Any) -> None:
        """aiohttp's own parser is not made."""

    def idle(self) -> float:
        """Seconds since the last answer; infinite where the machine slept since."""
        now = self._clock()
        if now - self.answered_at - (self._loop.time() - self._answered_by_loop) > _SLEPT:
            return float("inf")
        return now - self.answered_at

    @property
    def unanswered(self) -> bool:
        """Whether not a byte came for the last request."""
        return self._parser_of_answer is not None and not self._parser_of_answer.began

    def data_received(self, data: bytes) -> None:
        if not data:
            return  # aiohttp resumes its own parser so
        parser = self._parser_of_answer
        if parser is None or parser.done or parser.broken:
            # Unasked: it would be taken for the answer to the next request, and every answer after it for the one
            # before.
            self.force_close()
            if self.transport is not None:
                self.transport.close()
            return
        status = parser.status
        try:
            parser.feed(data)
        except NoAnswer as nothing:
            self._fail(nothing)
            return
        if parser.status:
            self._tell(parser, first=not status)

    def connection_lost(self, exc: BaseException | None) -> None:
        parser = self._parser_of_answer
        if parser is not None and parser.status and not (parser.done or parser.broken):
            parser.end()
            self._tell(parser, first=False)
        super().connection_lost(exc)

    def _tell(self, parser: AnswerParser, *, first: bool) -> None:
        if not parser.kept and (parser.done or parser.broken):
            self.force_close()
        if first:
            self.answered_at = self._clock()
            self._answered_by_loop = self._loop.time()
            self._stream = EMPTY_PAYLOAD if parser.done and not parser.body else self._new_stream()
            self._payload = self._stream
            self.feed_data((_message(parser), self._stream), 0)
        stream = self._stream
        if stream is None or stream is EMPTY_PAYLOAD:
            return
        if parser.body:
            stream.feed_data(bytes(parser.body))
            parser.body.clear()
        if parser.done:
            stream.feed_eof()
        elif parser.broken:
            stream.set_exception(aiohttp.ClientPayloadError("the body broke off"))
            if self.transport is not None:
                self.transport.close()

    def _new_stream(self) -> StreamReader:
        return StreamReader(self, _BUFFER, loop=self._loop)

    def _fail(self, nothing: NoAnswer) -> None:
        self.set_exception(NoAnswerCame(nothing.reason))
        if self.transport is not None:
            self.transport.abort()


def _message(parser: AnswerParser) -> RawResponseMessage:
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in parser.fields]
    return RawResponseMessage(
        HttpVersion11,
        parser.status,
        parser.reason,
        CIMultiDictProxy(CIMultiDict(fields)),
        tuple(parser.fields),
        not parser.kept,
        None,
        False,
        False,
    )


class Wire(Forwarding):
    """The protocol that `dial` makes: the handler behind the loop's read buffer."""

    inner: Handler

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__(Handler(asyncio.get_running_loop(), clock))
        self.address = ""

    async def ready(self, where: str) -> None:
        """At once: HTTP/1.1 has no greeting."""

    def abort(self) -> None:
        self.inner.abort()
