"""The connections of the HTTP/1.1 client and the requests that go over them: begun, queued, answered, given up.

Requests have no task, and no timer of their own: one look for all of them keeps their deadlines.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Literal

from fanout.core.proxy import Egress
from fanout.http.dial import DialFailed, Origin, Resolver, Way, dial, resolve
from fanout.http.http1_connection import Exchange, Host, Wire
from fanout.http.http1_head import apart, fields_of, lines_of, sound
from fanout.http.http1_values import Http1Answers, Http1Response, Http1Settings
from fanout.http.response import MISDIRECTED, RequestFailed, Response

__all__ = ["Session"]

_FRESH = 1.0
"""Seconds for which an answer makes a connection fresh (`Delivery.fresh`)."""
_MOST_HOSTS = 10_000
_TICK = 0.1
"""Seconds between two looks at the deadlines: their precision."""
_STALL = 0.5
"""A look that comes so many seconds late shows that the process was stopped or its loop blocked: bytes that came
meanwhile are read first."""
_GOODBYE = 1.0
"""Seconds for connections to end when the client is closed."""


class Session:
    """See `Http1Client`, whose arguments these are. Make it on the loop that uses it."""

    def __init__(
        self,
        context: ssl.SSLContext,
        settings: Http1Settings,
        resolver: Resolver,
        clock: Callable[[], float],
        egress: Egress,
    ) -> None:
        self.max_body = settings.max_body
        self._context = context
        self._settings = settings
        self._resolver = resolver
        self._clock = clock
        self._egress = egress
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._retired_at = float("-inf")
        self._hosts: dict[str, Host] = {}
        self._under_way: set[Exchange] = set()
        self._dialling: set[asyncio.Task[Wire]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._answers: dict[Http1Answers, list[tuple[int, Response | RequestFailed]]] = {}
        """Answers to requests that were started together, until the next turn of the loop."""

    # -- requests

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float | None,
        *,
        fresh: bool = False,
        patience: float | None = None,
    ) -> Response:
        """As `Http1Client.request`."""
        try:
            origin, target = apart(url)
            sound(target)
            host = self._host(origin)
            fields = fields_of(method, host.origin.authority, headers, len(body))
        except ValueError:
            host, target, fields = None, "", b""
        if host is None:
            raise RequestFailed("no", "malformed")  # out here: the error's text may hold the whole URL
        limit = self._settings.request_timeout if timeout is None else timeout
        future: asyncio.Future[Response] = self._loop.create_future()
        data = b"%b %b%b\r\n%b" % (method.encode(), target.encode(), fields, body)
        exchange = Exchange(future, host, data, limit, self._loop.time() + limit, fresh)
        exchange.brief = timeout is not None
        exchange.repeatable = method == "GET"
        if patience is not None:
            exchange.patience = patience
        self._begin(exchange)
        try:
            return await future
        finally:
            if exchange in self._under_way:
                self._give_up(exchange)

    def start(
        self,
        answers: Http1Answers,
        method: str,
        origin: str,
        targets: Sequence[str],
        headers: Mapping[str, str],
        own: tuple[str, Sequence[str]],
        body: bytes,
        *,
        fresh: bool,
    ) -> Sequence[int]:
        """As `Http1Client.start`."""
        host, count = self._hosts.get(origin), len(targets)
        if host is None or host.waiting or not host.idle:
            return range(count)
        sound(*targets)
        fields = fields_of(method, host.origin.authority, headers, len(body))
        lines = lines_of((own[0], value) for value in own[1])
        begin, end = f"{method} ".encode(), b"\r\n" + body
        limit = self._settings.request_timeout
        deadline = self._loop.time() + limit
        for index in range(count):
            wire = self._idle(host, fresh=fresh)
            if wire is None:
                return range(index, count)
            data = b"".join((begin, targets[index].encode(), fields, lines[index], end))
            exchange = Exchange((answers, index), host, data, limit, deadline, fresh)
            self._watch(exchange)
            self._send(wire, exchange)
        return ()

    def _host(self, origin: str) -> Host:
        """Raises `ValueError` for a text that is no origin."""
        host = self._hosts.get(origin)
        if host is None:
            if len(self._hosts) >= _MOST_HOSTS:
                self._hosts = {name: each for name, each in self._hosts.items() if each.open or each.waiting}
            host = self._hosts[origin] = Host(Origin(origin))
        return host

    def _watch(self, exchange: Exchange) -> None:
        self._under_way.add(exchange)
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK, self._tick)

    def _begin(self, exchange: Exchange) -> None:
        """Send it over a connection that is idle, or a new one; or let it wait for one of our own."""
        self._watch(exchange)
        host = exchange.host
        wire = None if host.waiting else self._idle(host, fresh=exchange.fresh)
        if wire is not None:
            self._send(wire, exchange)
        elif host.waiting or host.open >= self._settings.connections:
            exchange.queued, exchange.deadline = True, self._loop.time() + exchange.patience
            host.waiting[exchange] = None
        else:
            self._dial(host, exchange)

    def _send(self, wire: Wire, exchange: Exchange) -> None:
        exchange.wire = wire
        wire.begin(exchange)

    def _next(self, host: Host, wire: Wire | None = None) -> None:
        """A connection is idle, or there is room for a new one: for the request that waits for the longest time."""
        while host.waiting and (wire is not None or host.open < self._settings.connections):
            exchange, _ = host.waiting.popitem(last=False)
            now = self._loop.time()
            exchange.queued, exchange.patience = False, max(0.0, exchange.deadline - now)
            exchange.deadline = now + exchange.limit
            if wire is None:
                self._dial(host, exchange)
            elif self._serves(wire, fresh=exchange.fresh):
                self._send(wire, exchange)
                return
            else:
                self._dial(host, exchange)  # in its place: closing it has the next one looked for
                wire.close()
                return
        if wire is not None and self._serves(wire, fresh=False):
            host.idle.append(wire)
            if self._sweeper is None:
                self._sweeper = self._loop.call_later(self._settings.keep_alive / 4, self._sweep)
        elif wire is not None:
            wire.close()

    # -- connections

    def _idle(self, host: Host, *, fresh: bool) -> Wire | None:
        """A connection that may carry the request now, taken from the idle ones. The one that answered last."""
        idle = host.idle
        while idle:
            wire = idle.pop()
            if self._serves(wire, fresh=fresh):
                return wire
            if fresh and self._serves(wire, fresh=False):  # and so are all others, for they answered before it
                idle.append(wire)
                if host.open >= self._settings.connections:
                    idle.popleft().close()
                return None
            wire.close()
        return None

    def _serves(self, wire: Wire, *, fresh: bool) -> bool:
        """Whether a connection may carry a request."""
        idle = wire.idle()
        if not wire.usable or idle > self._settings.keep_alive or wire.opened_at <= self._retired_at:
            return False
        return not fresh or (idle <= _FRESH and (wire.host.reuses or not wire.requests))

    def _dial(self, host: Host, exchange: Exchange) -> None:
        host.dialling += 1
        task = exchange.dialling = self._loop.create_task(self._connect(host))
        self._dialling.add(task)
        task.add_done_callback(partial(self._dialled, host, exchange))

    async def _connect(self, host: Host) -> Wire:
        origin, resolver, timeout = host.origin, self._resolver, self._settings.connect_timeout
        context = self._context if origin.scheme == "https" else None
        way = Way(context, resolver, self._egress(origin.host, origin.port), judged=resolver is not resolve)
        try:
            async with asyncio.timeout(timeout):
                return await dial(origin, partial(Wire, self, host, self._clock), way, timeout + 1.0)
        except TimeoutError:
            raise DialFailed("connect", f"{origin.host} took more than {timeout:g} s") from None

    def _dialled(self, host: Host, exchange: Exchange, task: asyncio.Task[Wire]) -> None:
        self._dialling.discard(task)
        host.dialling -= 1
        exchange.dialling = None
        error = None if task.cancelled() else task.exception()
        waits = exchange in self._under_way
        if task.cancelled() or error is not None or not task.result().usable:
            if waits:
                # A resolver that raises something else than OSError is its author's bug.
                reason = error.reason if isinstance(error, DialFailed) else "connect"
                self._fail(exchange, "no", reason, str(error).encode() if reason == "proxy" else b"")
            self._next(host)
            return
        wire = task.result()
        host.wires.add(wire)
        if waits:
            self._send(wire, exchange)
        elif self._closed:
            wire.close()
        else:
            self._next(host, wire)

    def retire(self) -> None:
        """As `Http1Client.retire`."""
        self._retired_at = self._clock()
        for host in self._hosts.values():
            for wire in [*host.idle]:
                wire.close()

    def _sweep(self) -> None:
        """Close the connections that have been idle for too long."""
        self._sweeper = None
        hosts = [host for host in self._hosts.values() if host.idle]
        for host in hosts:
            while host.idle and not self._serves(host.idle[0], fresh=False):
                host.idle.popleft().close()
        if hosts:
            self._sweeper = self._loop.call_later(self._settings.keep_alive / 4, self._sweep)

    # -- calls of connections (http1_connection.Owner)

    def wire_answered(self, wire: Wire, exchange: Exchange, response: Http1Response, *, kept: bool) -> None:
        """See `Owner`."""
        if wire.requests > 1:
            wire.host.reuses = True
        if response.status == MISDIRECTED:
            self._fail(exchange, "no", "misdirected")
            wire.close()
            return
        if kept:
            # A server that says nothing of it may have ended the connection behind its answer: that is read first.
            self._loop.call_soon(self._next, wire.host, wire)
        self._finish(exchange, response)

    def wire_failed(self, wire: Wire, exchange: Exchange, reason: str) -> None:
        """See `Owner`."""
        stale = wire.requests > 1 and not wire.heard
        self._unanswered(wire)
        if stale and exchange.repeatable and not self._closed:
            # The server closed a kept connection as this request came: another one is due a new connection.
            exchange.repeatable, exchange.fresh, exchange.wire = False, True, None
            self._begin(exchange)
        else:
            self._fail(exchange, "unknown", reason)

    def wire_ended(self, wire: Wire) -> None:
        """See `Owner`."""
        host = wire.host
        with suppress(ValueError):
            host.idle.remove(wire)
        if wire in host.wires:
            host.wires.discard(wire)
            if not self._closed:
                self._next(host)

    def _unanswered(self, wire: Wire) -> None:
        """Its request got no answer. Idle connections that are older, and have not answered since it was sent, would
        give none either: they are closed."""
        host = wire.host
        if wire.requests > 1 and not wire.heard:
            host.reuses = False
        for idle in [*host.idle]:
            if idle.opened_at <= wire.opened_at and idle.answered_at <= wire.began_at:
                idle.close()

    # -- the ends of requests

    def _finish(self, exchange: Exchange, result: Response | RequestFailed) -> None:
        self._under_way.discard(exchange)
        token = exchange.token
        if isinstance(token, tuple):
            if not self._answers:
                self._loop.call_soon(self._hand_over)
            self._answers.setdefault(token[0], []).append((token[1], result))
        elif token.done():
            pass
        elif isinstance(result, Response):
            token.set_result(result)
        else:
            token.set_exception(result)

    def _hand_over(self) -> None:
        answers, self._answers = self._answers, {}
        for receiver, results in answers.items():
            try:
                receiver.answered(results)
            except Exception as error:
                # Without the arguments: a request's target may hold an address.
                said = {"message": "The receiver of an HTTP/1.1 answer raised", "exception": error}
                self._loop.call_exception_handler(said)

    def _fail(
        self, exchange: Exchange, sent: Literal["no", "unknown"], reason: str, detail: bytes = b"", *, own: bool = False
    ) -> None:
        reason = "closed" if self._closed else reason
        self._finish(exchange, RequestFailed(sent, reason, detail, own=own or self._closed))

    def _give_up(self, exchange: Exchange) -> None:
        """Its answer is waited for no more."""
        self._under_way.discard(exchange)
        exchange.host.waiting.pop(exchange, None)
        if exchange.dialling is not None:
            exchange.dialling.cancel()
        if exchange.wire is not None and exchange.wire.exchange is exchange:
            exchange.wire.exchange = None
            exchange.wire.abort()

    def _end(self, exchange: Exchange, reason: str) -> None:
        """No more of an answer is waited for: the deadline passed, or the client is closed. The part that has come
        counts."""
        wire, queued = exchange.wire, exchange.queued
        response = wire.answer_so_far() if wire is not None else None
        if response is not None:
            self._finish(exchange, response)
        else:
            # In the queue for one of our own connections that is an event of our own; likewise where the caller left
            # less than a whole request's time and nothing was sent.
            own = queued or (wire is None and exchange.brief)
            self._fail(exchange, "no" if wire is None else "unknown", reason, own=own)
            if wire is not None:
                self._unanswered(wire)
        self._give_up(exchange)

    def _tick(self) -> None:
        """End the requests that are past their deadline, and those whose answer is waited for no more."""
        now, due = self._loop.time(), self._timer.when() if self._timer is not None else float("inf")
        if now - due > _STALL:
            self._timer = self._loop.call_later(0.01, self._tick)
            return
        self._timer = None
        for exchange in [*self._under_way]:
            if exchange.over:
                self._give_up(exchange)
            elif now >= exchange.deadline:
                self._end(exchange, "timeout")
        if self._under_way and self._timer is None:
            self._timer = self._loop.call_later(_TICK, self._tick)

    async def aclose(self) -> None:
        """Close every connection. Requests under way fail with `closed`."""
        self._closed = True
        for timer in (self._timer, self._sweeper):
            if timer is not None:
                timer.cancel()
        for exchange in [*self._under_way]:
            self._end(exchange, "closed")
        if self._dialling:
            await asyncio.wait([*self._dialling])
        wires = [wire for host in self._hosts.values() for wire in host.wires]
        for wire in wires:
            wire.close()
        if wires:
            await asyncio.wait([wire.ended for wire in wires], timeout=_GOODBYE)
        for wire in wires:
            wire.abort()
