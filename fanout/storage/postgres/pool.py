"""Connections: few, made when needed, replaced when lost, and never waited for longer than a call may take."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import asyncpg

from fanout.errors import StorageError, StorageRefused, StorageUnavailable
from fanout.storage.postgres.dialing import race
from fanout.storage.postgres.failure import refusal, translate
from fanout.storage.postgres.greeting import SETTINGS, Greeting, greet, judge, pooled
from fanout.storage.postgres.url import Options

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["Pool"]

_CONNECT_TIMEOUT = 5
_CLOSE_TIMEOUT = 2.0
_CLOSE_LIMIT = 20.0
"""Seconds for which the closing of a pool waits for calls that are under way: as long as one may take."""
_ENDED = 16.0
"""Seconds after which the server has ended a statement by itself (`statement_timeout`), and one more."""
_log = logging.getLogger("fanout.postgres")
_CLOSED = "The storage is closed: use it inside its `async with`."
_SILENCE = 4_000
"""Milliseconds for which the network may confirm nothing before a connection counts as dead."""
_BACKOFF = (0.05, 2.0)
"""Seconds until the next try after the first failure to connect, and at most. Doubles, with jitter."""


class Pool:
    """Up to `options.pool` connections. `take` one, use it in one task, and `give` it back."""

    def __init__(self, options: Options, rng: random.Random | None = None) -> None:
        self.options = options
        self._rng = random.Random() if rng is None else rng
        self._room = asyncio.Semaphore(options.pool)
        self._connecting = asyncio.Lock()
        self._free: list[Connection] = []
        self._used: set[Connection] = set()
        self.beside: set[Connection] = set()
        """Connections that are not the pool's, and are dropped with its own."""
        self._failures = self._failed = 0
        self.met: Callable[[Connection, Greeting, float], Awaitable[None]] | None = None
        """Told of each new connection before it is used, with its greeting, and when that was asked for (monotonic
        seconds)."""
        self._good = ""
        self.warned: WeakSet[Connection] = WeakSet()
        """Connections on which the server has warned of something."""
        self._lingering: set[Connection] = set()
        self._given_up: dict[Connection, asyncio.Task[None]] = {}
        self.last: Greeting | None = None
        """The greeting of the latest connection."""
        self._failure: Exception | None = None
        self._not_before = 0.0
        self._closed = True

    def open(self) -> None:
        """Let connections be taken."""
        self._closed = False

    async def close(self) -> None:
        """Wait for calls under way, and end all connections; cut short, it drops them. Idempotent."""
        if self._closed:
            return
        self._closed = True
        busy = 0
        try:
            if self._given_up:  # the requests to end their statements are on their way
                await asyncio.wait(self._given_up.values(), timeout=_CLOSE_TIMEOUT)
            for connection in self._given_up:
                connection.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_LIMIT):
                    while busy < self.options.pool:
                        await self._room.acquire()
                        busy += 1
            while self._free:
                await _end(self._free.pop())
        finally:
            for _ in range(busy):
                self._room.release()
            for connection in [*self._free, *self._used]:
                connection.terminate()
            self._free.clear()

    @property
    def full(self) -> bool:
        """Whether all connections are in use."""
        return self._room.locked()

    async def take(self) -> Connection:
        """A connection that no other caller has. Raises `StorageError` when none is to be had, `StorageRefused` when
        none ever will."""
        if self._closed:
            raise StorageError(_CLOSED)
        await self._room.acquire()
        try:
            connection = await self._any()
            self._used.add(connection)
            return connection
        except BaseException:
            self._room.release()
            raise

    async def _any(self) -> Connection:
        if self._closed:
            raise StorageError(_CLOSED)
        while self._free:
            connection = self._free.pop()
            if not connection.is_closed():
                return connection
        return await self._connect()

    def linger(self, connection: Connection, answer: asyncio.Future[Any]) -> None:
        """Keep it, counted as in use, until `answer` is there: dropped, the server would go on waiting, and another be
        made beside it."""
        self._lingering.add(connection)

        def answered(answer: asyncio.Future[Any]) -> None:
            self._lingering.discard(connection)
            self.give(connection, sound=not answer.cancelled() and answer.exception() is None)

        answer.add_done_callback(answered)

    def give(self, connection: Connection, *, sound: bool) -> None:
        """Return a connection. A connection that is not sound is thrown away.

        One whose caller is being cancelled counts as in use until the server has ended its statement, as the driver has
        asked it to: dropped at once, the session would keep its place there, waiting for a lock perhaps, while others
        are made beside it.
        """
        if connection in self._lingering:
            return
        task = asyncio.current_task()
        if task and task.cancelling() and not (sound or self._closed or connection.is_closed()):
            self._given_up[connection] = asyncio.create_task(self._wind_up(connection))
            return
        self._room.release()
        self._used.discard(connection)
        if sound and not connection.is_closed() and not connection.is_in_transaction():
            # Also of a pool that is being closed: that one waits for it.
            self._free.append(connection)
        else:
            connection.terminate()

    async def _wind_up(self, connection: Connection) -> None:
        with contextlib.suppress(Exception):
            await connection.execute("ROLLBACK", timeout=_ENDED)
        connection.terminate()  # the request to end the statement may still be on its way, and would end another one
        del self._given_up[connection]
        self.give(connection, sound=False)

    def drop_free(self) -> None:
        """A connection was lost: a free connection was probably lost too, and may not know it."""
        while self._free:
            self._free.pop().terminate()

    async def _connect(self) -> Connection:
        """One try at a time. A caller that waited for it while it failed fails with it, so that a dead server is not
        waited for in turns."""
        failures = self._failures
        async with self._connecting:
            if self._failures > failures and self._failure is not None:
                raise type(self._failure)(*self._failure.args)
            pause = self._not_before - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
            try:
                connection, greeting, before = await self._greeted()
                if self.met is not None:
                    try:
                        await self.met(connection, greeting, before)
                    except BaseException as error:
                        connection.terminate()
                        if isinstance(error, Exception):
                            raise self._unreachable(error) from None
                        raise
            except Exception as error:
                first, most = _BACKOFF
                pause = min(most, first * 2.0 ** min(self._failed, 10)) * self._rng.uniform(0.5, 1.0)
                self._not_before = time.monotonic() + pause
                self._failures += 1
                self._failed += 1
                self._failure = error
                raise
            self._failed = 0
            self._failure = None
            self._not_before = 0.0
            return connection

    async def connect(self) -> Connection:
        """A new connection, outside of the pool. Raises as `take` does."""
        return (await self._greeted())[0]

    async def _greeted(self) -> tuple[Connection, Greeting, float]:
        """A new connection to a database that can be used, its greeting, and when that was asked for (monotonic
        seconds)."""
        try:
            connection, greeting, before = await self._open()
        except Exception as error:
            if not self.options.prepared or not pooled(error):
                raise self._unreachable(error) from None
            self.options = replace(self.options, prepared=False)
            _log.warning(
                "%s is reached through a pooler (PgBouncer): nothing is prepared there, as with ?prepared=off. Write that into the URL, "
                "or reach the server directly, which is faster.",
                self.options.shown,
            )
            try:
                connection, greeting, before = await self._open()
            except Exception as again:
                raise self._unreachable(again) from None
        self.last = greeting
        _watch(connection)
        return connection, greeting, before

    async def _open(self) -> tuple[Connection, Greeting, float]:
        """To the first of the hosts that can be used; the one that could be the last time is tried first."""
        hosts = sorted(self.options.hosts, key=lambda host: host != self._good)
        host, made = await race(hosts, self._dial, lambda made: made[0].terminate(), limit=_CONNECT_TIMEOUT)
        if self._good not in ("", host):
            # Another server: calls under way on the one before may wait for an answer for as long as the network is
            # silent.
            self.abort()
        self._good = host
        return made

    async def _dial(self, dsn: str) -> tuple[Connection, Greeting, float]:
        options = self.options
        settings = {**SETTINGS, "search_path": options.schema} if options.prepared else None
        connection = await asyncpg.connect(
            dsn,
            timeout=_CONNECT_TIMEOUT,
            server_settings=settings,
            statement_cache_size=512 if options.prepared else 0,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=65_536,
            target_session_attrs="any",  # asked in `greet`, which tells a standby from a read-only server
        )
        connection.add_log_listener(self._hear)
        try:
            before = time.monotonic()
            greeting = await greet(connection, options)
            problem = judge(greeting, options.shown)
            if problem is not None:
                raise problem
        except BaseException:
            connection.terminate()
            raise
        return connection, greeting, before

    def _hear(self, connection: Any, message: Any) -> None:
        if message.severity_en in ("WARNING", "ERROR"):
            self.warned.add(connection)

    def abort(self) -> None:
        """All connections so far lead to a database that is not ours any more: connections in use are dropped too."""
        for connection in [*self._free, *self._used, *self.beside]:
            connection.terminate()
        self._free.clear()

    def _unreachable(self, error: Exception) -> BaseException:
        if isinstance(error, StorageError):
            return error
        refused = refusal(error, self.options.shown)
        if refused is not None:
            return refused
        if pooled(error):
            return StorageRefused(
                f"The database {self.options.shown} is reached through a pooler (PgBouncer): write ?prepared=off into its URL."
            )
        if isinstance(error, (TimeoutError, OSError)) or not isinstance(error, asyncpg.PostgresError):
            return StorageUnavailable(
                f"The database {self.options.shown} cannot be reached ({type(error).__name__}): see that it runs and accepts connections."
            )
        return translate(error, self.options.shown)


def _watch(connection: Connection) -> None:
    """Let the kernel notice a peer that went silent, where it can."""
    transport = getattr(connection, "_transport", None)
    found = transport.get_extra_info("socket") if transport is not None else None
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", 5),
            ("TCP_KEEPINTVL", 2),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", _SILENCE),
        ):
            if hasattr(socket, name):
                found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _end(connection: Connection) -> None:
    try:
        await connection.close(timeout=_CLOSE_TIMEOUT)
    except Exception:
        connection.terminate()
