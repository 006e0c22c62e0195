"""The notices between processes: that something was committed, by NOTIFY, so that none needs to ask many times a
second.

A notice is a hint. A process that hears none looks all the same, once in a while (`store.PostgresStorage.changes`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fanout.storage.postgres.pool import Pool

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["Listener"]

_APART = 0.05
"""Seconds between two notices of one process, but for those that a caller waits for: each takes a lock that all
databases of the server share (PostgreSQL, async.c), so that one with each commit would make the commits wait for one
another."""
_LIMIT = 2.0
"""Seconds that a notice may take."""
_AGAIN = (0.5, 30.0)
"""Seconds until the next try to listen after the first failure, and at most. Doubles."""


class Listener:
    """The listening of one process: `committed` after its own commits, `heard` after others'. A connection of its own,
    beside the pool's, listens."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._channel = f"fanout_{pool.options.schema}"[:63]
        self._token = secrets.token_hex(6)
        self._heard: Callable[[], None] = lambda: None
        self._connection: Connection | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._dirty, self._urgent, self._proof = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._last = float("-inf")
        self.listening = False
        """Whether notices arrive: a notice of its own has, since the connection was made."""

    def begin(self, heard: Callable[[], None]) -> None:
        """Listen from now on, where that is possible: a pooler hands on no notices."""
        self._heard = heard
        if self._pool.options.prepared:
            self._tasks.append(asyncio.create_task(self._listen()))

    def committed(self) -> None:
        """Something was committed here that others may wait for."""
        if not self._dirty.is_set():
            self._dirty.set()
            if not any(task.get_name() == "tell" for task in self._tasks):
                self._tasks.append(asyncio.create_task(self._tell(), name="tell"))

    def hurry(self) -> None:
        """A caller waits for the result of that commit: it is told without delay."""
        self._urgent.set()

    async def close(self) -> None:
        """Pass on the changes not passed on yet, and listen no more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._dirty.is_set():
            await self._say()
        if self._connection is not None:
            self._connection.terminate()

    async def _tell(self) -> None:
        while True:
            await self._dirty.wait()
            pause = self._last + _APART - time.monotonic()
            if pause > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._urgent.wait()
            self._urgent.clear()
            try:
                await self._say()
            except asyncio.CancelledError:
                self._dirty.set()  # `close` says it
                raise

    async def _say(self) -> None:
        self._dirty.clear()
        self._last = time.monotonic()
        # Also while the pool is lost: others look by themselves after a while.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_LIMIT):
                if self.listening and self._connection is not None:
                    await self._notify(self._connection)
                    return
                connection = await self._pool.take()
                sound = False
                try:
                    await self._notify(connection)
                    sound = True
                finally:
                    self._pool.give(connection, sound=sound)

    async def _notify(self, connection: Connection) -> None:
        # No arguments: a pooler may run a prepared statement on another server.
        await connection.execute(f"NOTIFY \"{self._channel}\", '{self._token}'")

    async def _listen(self) -> None:
        pause, most = _AGAIN
        while self._pool.options.prepared:
            with contextlib.suppress(Exception):
                await self._listen_once()
                pause = _AGAIN[0]
            await asyncio.sleep(pause * (0.5 + secrets.randbelow(500) / 1000))
            pause = min(most, 2 * pause)

    async def _listen_once(self) -> None:
        """Until the connection is lost."""
        ended = asyncio.Event()
        connection = self._connection = await self._pool.connect()
        self._pool.beside.add(connection)
        try:
            connection.add_termination_listener(lambda _: ended.set())
            self._proof.clear()
            await connection.add_listener(self._channel, self._hear)
            await self._notify(connection)
            async with asyncio.timeout(_LIMIT):
                await self._proof.wait()
            self.listening = True
            self._heard()  # commits from before were not reported here
            await ended.wait()
        finally:
            self.listening = False
            self._connection = None
            self._pool.beside.discard(connection)
            connection.terminate()

    def _hear(self, connection: Any, process: int, channel: str, payload: object) -> None:
        if payload == self._token:
            self._proof.set()
        else:
            self._heard()
