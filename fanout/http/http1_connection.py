"""The connections to one host over HTTP/1.1: on each a request is written and its answer read, then the next."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Protocol

from fanout.http.buffers import Buffered
from fanout.http.dial import Origin
from fanout.http.http1_parser import AnswerParser, NoAnswer, whole
from fanout.http.http1_values import Http1Answers, Http1Response
from fanout.http.response import Response

__all__ = ["Exchange", "Host", "Owner", "Token", "Wire"]

Token = asyncio.Future[Response] | tuple[Http1Answers, int]

_SLEPT = 5.0
"""Seconds that our clock may be ahead of the loop's for one stretch of time: more means that the machine slept."""


class Host:
    """The connections to one origin: those that are idle (the one that answered last at the end), all (`wires`) and
    those that come about, and the requests that wait for one."""

    __slots__ = ("dialling", "idle", "origin", "reuses", "waiting", "wires")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.idle: deque[Wire] = deque()
        self.wires: set[Wire] = set()
        self.dialling = 0
        self.waiting: OrderedDict[Exchange, None] = OrderedDict()
        self.reuses = False
        """Whether it has answered a second request on a connection, and failed none since."""

    @property
    def open(self) -> int:
        """Connections that are there or come about."""
        return len(self.wires) + self.dialling


class Exchange:
    """One request: its bytes, until when it may wait (`deadline`, in the loop's seconds), and how far it has come.

    While it waits for one of our own connections (`queued`) it may wait `patience` seconds; the server has the whole
    `limit` from then on. `brief`: the caller left less than a whole request's time. `repeatable`: it may be sent twice.
    """

    __slots__ = (
        "brief",
        "data",
        "deadline",
        "dialling",
        "fresh",
        "host",
        "limit",
        "patience",
        "queued",
        "repeatable",
        "token",
        "wire",
    )

    def __init__(self, token: Token, host: Host, data: bytes, limit: float, deadline: float, fresh: bool) -> None:
        self.token = token
        self.host = host
        self.data = data
        self.limit = limit
        self.deadline = deadline
        self.fresh = fresh
        self.patience = limit / 2
        self.brief = self.repeatable = self.queued = False
        self.wire: Wire | None = None
        self.dialling: asyncio.Task[Any] | None = None

    @property
    def over(self) -> bool:
        """Whether its answer is waited for no more."""
        token = self.token
        return token[0].over(token[1]) if type(token) is tuple else token.done()  # type: ignore[union-attr]


class Owner(Protocol):
    """The receiver of a connection's events; every call comes from the loop."""

    max_body: int

    def wire_answered(self, wire: Wire, exchange: Exchange, response: Http1Response, *, kept: bool) -> None:
        """The answer to its request. `kept`: the connection may carry another."""
        ...

    def wire_failed(self, wire: Wire, exchange: Exchange, reason: str) -> None:
        """Its request gets no answer, and the connection carries no other."""
        ...

    def wire_ended(self, wire: Wire) -> None:
        """It carries no further request."""
        ...


class Wire(Buffered):
    """The protocol that `dial` makes. `clock` gives seconds that pass while the machine sleeps.

    `exchange` is the request under way. `opened_at`, `began_at` and `answered_at` are seconds of the clock: when it was
    connected, a request was written, and a head came.
    """

    def __init__(self, owner: Owner, host: Host, clock: Callable[[], float]) -> None:
        super().__init__()
        self.address = ""
        self.host = host
        self.exchange: Exchange | None = None
        self.requests = 0
        self.heard = False
        """Whether a byte of the last request's answer came."""
        self.usable = True
        self._owner = owner
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._parser: AnswerParser | None = None
        self.opened_at = self.answered_at = self.began_at = clock()
        self._answered_by_loop = self._loop.time()

    async def ready(self, where: str) -> None:
        """At once: HTTP/1.1 has no greeting."""

    def begin(self, exchange: Exchange) -> None:
        """Write a request."""
        assert self._transport is not None
        self.requests += 1
        self.began_at = self._clock()
        self.exchange = exchange
        self.heard, self._parser = False, None
        self._transport.write(exchange.data)

    def idle(self) -> float:
        """Seconds since the last answer; infinite where the machine slept since."""
        idle = self._clock() - self.answered_at
        return float("inf") if idle - (self._loop.time() - self._answered_by_loop) > _SLEPT else idle

    def close(self) -> None:
        """Say goodbye, and carry no further request."""
        if self._leave() and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._leave()
        if self._transport is not None:
            self._transport.abort()

    def _leave(self) -> bool:
        usable, self.usable = self.usable, False
        if usable:
            self._owner.wire_ended(self)
        return usable

    def answer_so_far(self) -> Http1Response | None:
        """The answer, as far as it has come; None while it decides nothing. A status of success alone says that the
        message was taken. A refusal without its body may have lost its reason; one larger than we read keeps none."""
        parser = self._parser
        if parser is None or not parser.status:
            return None
        if not (parser.done or 200 <= parser.status < 300 or len(parser.body) > self._owner.max_body):
            return None
        return Http1Response(parser.status, bytes(parser.body[: self._owner.max_body]), parser.lines)

    # -- calls of the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of uvloop: no subclass of asyncio.Transport

    def data_received(self, data: bytes) -> None:
        exchange, parser = self.exchange, self._parser
        if exchange is None:
            # Unasked: it would be taken for the answer to the next request, and every answer after it for the one
            # before.
            self.close()
            return
        self.heard = True
        if parser is None:
            found = whole(data)
            if found is not None:
                status, lines, body = found
                self._head_came()
                self._answered(exchange, Http1Response(status, body[: self._owner.max_body], lines), kept=True)
                return
            parser = self._parser = AnswerParser()
        undecided = not parser.status
        try:
            parser.feed(data)
        except NoAnswer as nothing:
            self._failed(exchange, nothing.reason)
            self.abort()
            return
        if undecided and parser.status:
            self._head_came()
        over = parser.done or parser.broken or len(parser.body) > self._owner.max_body
        if over and not self._answered_so_far(exchange, kept=parser.done and parser.kept):
            self._failed(exchange, "malformed")
            self.abort()

    def eof_received(self) -> None:
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        exchange = self.exchange
        if self._parser is not None and self._parser.status:
            self._parser.end()
        if exchange is not None and not self._answered_so_far(exchange, kept=False):
            self._failed(exchange, "closed")
        self._leave()
        self.ended.set_result(None)

    def _head_came(self) -> None:
        self.answered_at, self._answered_by_loop = self._clock(), self._loop.time()

    def _answered_so_far(self, exchange: Exchange, *, kept: bool) -> bool:
        response = self.answer_so_far()
        if response is not None:
            self._answered(exchange, response, kept=kept)
        return response is not None

    def _answered(self, exchange: Exchange, response: Http1Response, *, kept: bool) -> None:
        self.exchange = self._parser = None
        self._owner.wire_answered(self, exchange, response, kept=kept and self.usable)
        if not kept:
            self.close()

    def _failed(self, exchange: Exchange, reason: str) -> None:
        self.exchange = None
        self._owner.wire_failed(self, exchange, reason)
