"""`H2Pool`: a few connections to one origin that heal themselves, behind one method that returns a future."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Self

from fanout.core.proxy import Egress, direct
from fanout.http.answers import Answers
from fanout.http.codec import Requests
from fanout.http.connection import FULL, Connection
from fanout.http.dial import DialFailed, Origin, Resolver, Way, dial, resolve
from fanout.http.frames import ErrorCode
from fanout.http.hpack_encoder import Head
from fanout.http.names import NameWatch
from fanout.http.response import RequestFailed, Response
from fanout.http.retiring import ageing, all_ended, idle, useless
from fanout.http.settings import PoolSettings, PoolStats, figures_of
from fanout.http.tls import alert_of
from fanout.http.upkeep import AT_ONCE, GAP, STALL, Reconnect, wants_connection
from fanout.http.waiting import Waiting, WaitingRoom, least_used

__all__ = ["H2Pool"]


class H2Pool:
    """HTTP/2 connections to one origin.

    Opened and closed as an async context manager, in a running loop; no connection is made before the first request. A
    connection leaves the pool at its GOAWAY, loss, age or fault, is replaced, and goes on only to read the answers that
    are due.

    Args:
        url: `https://host[:port]`; `http://` speaks HTTP/2 in the clear, for tests.
        ssl_context: Made by `client_tls`; None for `http://`.
        settings: Limits and times.
        clock: Gives monotonic seconds.
        rng: Draws jitter.
        resolver: Finds the addresses of the host anew for each connect.
        egress: The proxy of connections. It is told the gateway's name, and an address where a `resolver` is given.

    Raises:
        ValueError: The URL is no origin, or has an `ssl_context` that does not fit it.
    """

    def __init__(
        self,
        url: str,
        *,
        ssl_context: ssl.SSLContext | None,
        settings: PoolSettings | None = None,
        clock: Callable[[], float] = monotonic,
        rng: random.Random | None = None,
        resolver: Resolver | None = None,
        egress: Egress = direct,
    ) -> None:
        self._origin = Origin(url)
        if (self._origin.scheme == "https") != (ssl_context is not None):
            raise ValueError("An https gateway needs an ssl_context, and an http gateway takes none.")
        self._context = ssl_context
        self._settings = settings or PoolSettings()
        self._clock = clock
        self._rng = rng or random.Random()
        self._resolver = resolver or resolve
        self._egress = egress
        self.stats = PoolStats()
        self._ready: list[Connection] = []
        self._draining: set[Connection] = set()
        self._room = WaitingRoom(self._refuse, clock)
        self._reconnect = Reconnect(self._settings)
        self._connecting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._open = False
        self._used_at = float("-inf")
        self._ticked_at = float("inf")
        self._numbered = 0
        self._names = NameWatch(self._origin, self._resolver, self._settings, self.stats)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._ticked_at = self._clock()
        self._timer = self._loop.call_later(self._settings.tick, self._tick)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Fail everything pending (`sent` is `"no"` for requests that waited) and close every connection.
        Idempotent."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        self._fail_waiting("closed")
        tasks = [task for task in (self._connecting, self._names.task) if task is not None]
        for task in tasks:
            task.cancel()
        connections = [*self._ready, *self._draining]
        for connection in connections:
            connection.close()
        if tasks:
            await asyncio.wait(tasks)
        await all_ended(connections)

    # -- requests

    @property
    def authority(self) -> str:
        """The authority that a `Head` for this origin names."""
        return self._origin.authority

    @property
    def waiting(self) -> bool:
        """Whether requests wait for a connection or a free stream."""
        return len(self._room) > 0

    @property
    def in_flight(self) -> int:
        """Requests on the wire or waiting for it."""
        streams = sum(len(connection.codec.streams) for connection in (*self._ready, *self._draining))
        return streams + len(self._room)

    def figures(self) -> dict[str, int]:
        """Connections that take requests and requests under way, now, and the counts of `stats`, with `failed` as one
        sum."""
        return figures_of(self.stats, len(self._ready), self.in_flight)

    def capacity(self) -> int:
        """The number of requests that may be in flight at once, as connections stand now: a total, not the free part.

        At least 1, but for a gateway that allows no stream at present (SETTINGS_MAX_CONCURRENT_STREAMS = 0): then 0.
        More than that wait here for their turn, which is no better than with the caller. A second connection, once the
        first is half used, adds to it.
        """
        ready = self._ready
        return sum(connection.nominal for connection in ready) if ready else 1

    def request(
        self,
        head: Head,
        path: bytes,
        fields: bytes,
        body: bytes,
        timeout: float | None = None,
        future: asyncio.Future[Response] | None = None,
        fresh: bool = False,
        patience: float | None = None,
    ) -> asyncio.Future[Response]:
        """Send a request. Cancelling the future resets the stream within a tick. The pool must be open.

        Args:
            head: The part that requests share.
            path: The path, sent as it is.
            fields: Fields made by `literal`, joined.
            body: The body.
            timeout: Seconds in place of the setting's; the wait for a free stream among our own does not count.
            future: The future that resolves, of a caller that handed it out before the request could be made; None
                makes one.
            fresh: Whether it must go over a connection that was opened, or answered a request, within the last second.
            patience: Seconds to wait for a free stream at most: then it fails as an event of our own. None: half of
                `timeout`.

        Returns:
            The future of the answer. It resolves exactly once, to a `Response` or with `RequestFailed`.
        """
        if future is None:
            future = self._loop.create_future()
        if fresh:
            self._wait(future, head, path, fields, body, timeout, patience, fresh=True)
            return future
        best = None
        least = 1 << 60
        for connection in self._ready:
            load = len(connection.codec.streams)
            if load < least and load < connection.limit:
                best = connection
                least = load
        if best is None or (
            # Asked once in a turn of the loop, for the clock costs as much as all the rest here.
            not best.flushing and self._clock() - self._ticked_at > GAP and self._doubt()
        ):
            self._wait(future, head, path, fields, body, timeout, patience)
            return future
        stream = best.codec.request(future, head, path, fields, body)
        if timeout is not None:
            best.deadlines[stream] = self._clock() + timeout
        if not best.flushing:
            if least == 0:
                best.write()  # to an idle connection at once: later requests of this turn gather behind it
            else:
                best.flushing = True
                self._loop.call_soon(best.flush_in_turn)
        elif len(best.codec.out) > FULL:
            best.write()
        if least >= best.half and self._connecting is None and len(self._ready) < self._settings.connections:
            self._consider()
        return future

    def start(self, answers: Answers, requests: Requests, fresh: bool = False) -> Sequence[int]:
        """Send a run of requests, as far as there is room at this moment.

        Args:
            answers: The receiver, of each request that was sent, never before this returns. Of a status 200 it is given
                no response.
            requests: The requests.
            fresh: As for `request`.

        Returns:
            The indices of those that were not sent: `request` may wait.
        """
        count, sent, ready = len(requests.paths), 0, self._ready
        if self._room:
            return range(count)  # waiting requests were here before
        if fresh:
            ready = self._room.freshest(ready, self._clock())
        elif ready and not ready[0].flushing and self._clock() - self._ticked_at > GAP:
            self._doubt()
        while sent < count and (best := least_used(ready)) is not None:
            end = min(count, sent + best.limit - len(best.codec.streams))
            best.start_run([(answers, index) for index in range(sent, end)], requests.part(sent, end))
            sent = end
            if len(best.codec.streams) > best.half and self._connecting is None:
                self._consider()
        return range(sent, count)

    def retire(self, ssl_context: ssl.SSLContext | None = None) -> None:
        """Replace every connection, because the credential is new. Requests in flight are awaited on the old ones.

        Args:
            ssl_context: The context of connections from now on; None keeps the present one.
        """
        if ssl_context is not None:
            self._context = ssl_context
            if self._connecting is not None:
                self._connecting.cancel()
        for connection in list(self._ready):
            self._retire(connection)
        self._consider()

    def _wait(
        self,
        future: asyncio.Future[Response],
        head: Head,
        path: bytes,
        fields: bytes,
        body: bytes,
        timeout: float | None,
        patience: float | None,
        *,
        fresh: bool = False,
    ) -> None:
        now = self._clock()
        room = self._room
        if not self._open:
            self._refuse(future, "closed")
        elif not self._ready and self._connecting is None and not self._reconnect.soon(now):
            self._refuse(future, self._reconnect.reason)
        elif len(room) >= self._settings.max_waiting:
            self._refuse(future, "overload")
        else:
            limit = self._settings.request_timeout if timeout is None else timeout
            wait = Waiting(
                future, head, path, fields, body, now, limit / 2 if patience is None else patience, now + limit
            )
            (room.fresh if fresh else room.usual).append(wait)
            self._pump()
            self._consider()

    def _refuse(self, future: asyncio.Future[Response], reason: str) -> None:
        if not future.done():
            self.stats.count_failed(reason)
            # Where there are connections, a request waited for a stream among our own; otherwise the gateway allowed
            # no connection.
            own = not self._open or reason == "overload" or (reason == "timeout" and bool(self._ready))
            future.set_exception(RequestFailed("no", reason, own=own, connected=False))

    def _fail_waiting(self, reason: str) -> None:
        """No connection is to be had: refuse the requests that none of the remaining ones will carry."""
        if not self._ready or not self._open:
            self._room.refuse_all(self._room.usual, reason)
        if not self._room.freshest(self._ready, self._clock()) or not self._open:
            self._room.refuse_all(self._room.fresh, reason)

    def _pump(self) -> None:
        """Send the waiting requests, as far as there is room."""
        room = self._room
        if room.fresh:
            room.pump(room.fresh, room.freshest(self._ready, self._clock()))
        if room.usual:
            room.pump(room.usual, self._ready)
            if room.usual:
                now = self._clock()
                for connection in self._ready:
                    connection.prove(now)

    # -- calls of connections (connection.Owner)

    def connection_moved(self, connection: Connection) -> None:
        """Streams of `connection` became free, a limit moved, or it takes no more requests."""
        codec = connection.codec
        if connection in self._ready and (codec.going or codec.closed):
            if codec.going:
                self.stats.goaways += 1
                if codec.goaway_code:
                    said = codec.goaway_debug[:200].decode("ascii", "backslashreplace")
                    self.stats.last_trouble = f"the gateway said goodbye with error {codec.goaway_code}: {said}"
                elif codec.goaway_code is None:
                    self.stats.last_trouble = "the gateway answered 421: the connection led to another server"
            # Without this, a gateway that ends each connection at once would be called without a pause.
            if not connection.proved or codec.goaway_code == ErrorCode.ENHANCE_YOUR_CALM:
                word = "goaway" if codec.going else "closed"
                self._reconnect.failed(self._clock(), self._rng, word, told=bool(codec.goaway_code))
            self._leave(connection)
            self._consider()
        if self._room:
            self._pump()

    def connection_proved(self, connection: Connection) -> None:
        """The first answer of `connection` came."""
        self._reconnect.succeeded()

    def connection_ended(self, connection: Connection) -> None:
        """The socket of `connection` is closed, and every request resolved."""
        self._draining.discard(connection)
        if connection in self._ready:
            self._ready.remove(connection)
            self.stats.lost += self._open
            if not connection.proved:
                alert = alert_of(connection.lost_by)
                self._reconnect.failed(self._clock(), self._rng, alert or "closed", told=bool(alert))
        self._consider()

    # -- connections

    def _leave(self, connection: Connection) -> None:
        self._ready.remove(connection)
        if not connection.ended.done():
            self._draining.add(connection)
        connection.drain()

    def _retire(self, connection: Connection) -> None:
        self.stats.retired += 1
        self._leave(connection)

    def _consider(self) -> None:
        """Open a connection if one is wanted and may be tried now; else let go of requests that nothing will carry."""
        if not self._open or self._connecting is not None:
            return
        now = self._clock()
        if now < self._reconnect.until:
            if not self._reconnect.soon(now):
                self._fail_waiting(self._reconnect.reason)
            return
        ready = [connection for connection in self._ready if not ageing(connection, now)]
        if wants_connection(
            ready=len(self._ready),
            ageing=len(self._ready) - len(ready),
            limit=self._settings.connections,
            waiting=self.waiting,
            crowded=all(len(connection.codec.streams) > connection.half for connection in self._ready),
            warm=now - self._used_at < self._settings.warm,
            on_trial=any(connection.alone for connection in self._ready),
            stale=self._room.stale(self._ready, now),
        ):
            self._connecting = self._loop.create_task(self._connect())
            self._connecting.add_done_callback(self._connected)

    def _doubt(self) -> bool:
        """The machine slept since the last tick: every idle connection is to be proven before it is used. Whether there
        is one."""
        self._ticked_at = self._clock()
        for connection in self._ready:
            connection.doubt()
        return any(connection.suspect for connection in self._ready)

    def _drop_useless(self, now: float) -> None:
        for connection, why in useless(self._ready, now, self._settings.request_timeout):
            self.stats.last_trouble = why
            self._retire(connection)

    def _make(self) -> Connection:
        self._numbered += 1
        name = f"connection {self._numbered} to {self._origin.authority}"
        return Connection(self, self._settings, self.stats, self._rng, self._clock, name=name)

    async def _connect(self) -> None:
        """Open one connection and put it to use. The only task that does, so connects come one at a time."""
        try:
            proxy = self._egress(self._origin.host, self._origin.port)
            way = Way(self._context, self._resolver, proxy, judged=self._resolver is not resolve)
            connection = await dial(self._origin, self._make, way=way, timeout=self._settings.connect_timeout)
        except DialFailed as failure:
            self.stats.connect_failures += 1
            self.stats.last_trouble = str(failure)
            self._reconnect.refused(self._clock(), self._rng, failure.reason)
            self._fail_waiting(failure.reason)
            return
        self.stats.opened += 1
        now = self._names.looked_at = self._clock()
        if self._settings.max_age is not None:
            connection.retire_at = now + self._settings.max_age * self._rng.uniform(0.9, 1.1)
        for old in [old for old in self._ready if ageing(old, now)][:1]:
            self._retire(old)
        self._ready.append(connection)
        if len(self._ready) > self._settings.connections:
            self._retire(min(self._ready, key=lambda each: each.served_at))
        self.connection_moved(connection)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting = None
        if not task.cancelled() and (error := task.exception()) is not None:
            # A resolver that raises another error than OSError is its author's bug; requests must not wait for it for
            # ever.
            self.stats.last_trouble = f"connecting failed with {type(error).__name__}"
            self._reconnect.refused(self._clock(), self._rng, "connect")
            self._fail_waiting("connect")
        self._consider()

    # -- time

    def _tick(self) -> None:
        now = self._clock()
        stalled = self._timer is not None and self._loop.time() - self._timer.when() > STALL
        self._timer = self._loop.call_later(AT_ONCE if stalled else self._settings.tick, self._tick)
        if now - self._ticked_at > GAP:
            self._doubt()
        self._ticked_at = now
        if stalled:
            # The process was stopped or its loop blocked. uvloop runs timers before it reads: the answers that came
            # meanwhile go first, or every one of them would count as late.
            return
        self._room.drop_late(now, self._ready)
        used = [connection.tick(now) for connection in (*self._ready, *self._draining)]
        if self.waiting or any(used):
            self._used_at = now
        self._drop_useless(now)
        if self._room:
            self._pump()
        for connection in idle(self._ready, now, self._settings.idle_close):
            self._retire(connection)
        if self._egress is direct:
            self._names.look(now, self._ready)
        self._consider()
