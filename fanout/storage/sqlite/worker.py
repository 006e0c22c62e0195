"""Where operations run: on one thread per open storage, or inline for a simulation."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import anyio

from fanout.errors import StorageError
from fanout.storage.sqlite.operations import Database, Operation

__all__ = ["Inline", "Offload", "Thread"]

_LOOK_AROUND = 2.0
"""Seconds after which an idle thread looks whether the program has ended without closing the storage."""


_Asked = tuple[Operation, "asyncio.Future[None]"]


class Offload(Protocol):
    """Runs operations on the database that `start` opened."""

    async def start(self, open_database: Callable[[], Database]) -> None:
        """Open the database. Raises the errors of opening."""
        ...

    def run(self, *operations: Operation) -> Awaitable[None]:
        """Do them, and fill in their results or errors."""
        ...

    async def stop(self) -> None:
        """Finish operations under way, and close the database. Idempotent."""
        ...


class Inline:
    """Runs every operation where it is called: no thread, no waiting, the same order every time."""

    def __init__(self) -> None:
        self._database: Database | None = None

    async def start(self, open_database: Callable[[], Database]) -> None:
        """See `Offload`."""
        self._database = open_database()

    async def run(self, *operations: Operation) -> None:
        """See `Offload`."""
        for operation in operations:
            database = self._database
            if database is None:
                raise _closed()
            if not operation.write:
                database.read([operation])
            elif not database.idle(operation):
                database.write([operation])

    async def stop(self) -> None:
        """See `Offload`."""
        if self._database is not None:
            self._database.close()
            self._database = None


class Thread:
    """One thread that owns the connection.

    Callers append to a list, which is handed over once in each turn of the loop: so the calls of a turn, and the leases
    that follow their puts at once, are one batch, and the thread is woken once. The thread takes all that wait, answers
    the reads, runs the writes in one transaction with one fsync, and wakes all their callers with one call into the
    loop. After each such turn it does one large operation. The thread is no daemon: it ends when the storage is closed,
    or when the main thread has ended without closing it.
    """

    def __init__(self) -> None:
        self._asked: list[_Asked] = []
        """Not handed over yet."""
        self._queue: list[_Asked] = []
        self._owed: dict[asyncio.Future[None], Operation] = {}
        self._lock = threading.RLock()
        self._ready = threading.Condition(self._lock)
        self._closing = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    async def start(self, open_database: Callable[[], Database]) -> None:
        """See `Offload`."""
        self._loop = asyncio.get_running_loop()
        self._closing = False
        opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, args=(open_database, opened), name="fanout-sqlite")
        self._thread.start()
        try:
            await opened
        except BaseException:
            await self.stop()
            raise

    def run(self, *operations: Operation) -> Awaitable[None]:
        """See `Offload`. A caller that is cancelled while it waits does not learn whether its operations were
        committed."""
        with self._lock:  # of C: a condition's own `with` is three calls of Python
            if self._loop is None or self._closing:
                raise _closed()
            asked: list[_Asked] = [(operation, self._loop.create_future()) for operation in operations]
            if not self._asked:
                self._loop.call_soon(self._hand_over)
            self._asked += asked
        return asked[0][1] if len(asked) == 1 else _all_of(asked)

    def _hand_over(self) -> None:
        with self._ready:
            self._queue += self._asked
            self._asked = []
            self._ready.notify()

    async def stop(self) -> None:
        """See `Offload`."""
        thread, ended = self._thread, self._ended
        if thread is None or ended is None:
            return
        with self._ready:
            self._closing = True
            self._hand_over()
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not ended.done():
                try:
                    await asyncio.wait([ended])
                except asyncio.CancelledError as error:
                    # asyncio's own cancellation passes anyio's shield. Closing goes on, and the cancellation after it.
                    cancelled = error
        thread.join()
        self._thread = None
        if cancelled is not None:
            raise cancelled
        ended.result()

    # -- on the thread

    def _main(self, open_database: Callable[[], Database], opened: asyncio.Future[None]) -> None:
        try:
            database = open_database()
        except BaseException as error:
            self._call(_resolve, opened, error)
            self._call(_resolve, self._ended, None)
            return
        self._call(_resolve, opened, None)
        fault: BaseException | None = None
        try:
            try:
                self._serve(database)
            finally:
                database.close()
        except BaseException as error:
            fault = error
        self._end(fault)

    def _serve(self, database: Database) -> None:
        """Until the storage is closed and the queue is empty."""
        writes: list[_Asked] = []
        large: deque[_Asked] = deque()
        while True:
            with self._ready:
                while not self._queue:
                    if any(not operation.write or not writes for operation, _ in large):
                        break
                    if writes:
                        pause = database.free_until - time.monotonic()
                        if pause <= 0 or self._closing:
                            break
                    elif self._closing or not threading.main_thread().is_alive():
                        return
                    else:
                        pause = _LOOK_AROUND
                    self._ready.wait(pause)
                taken, self._queue = self._queue, []
            self._owed.update((future, operation) for operation, future in taken)
            large.extend(each for each in taken if each[0].large)
            self._turn(database, [each for each in taken if not each[0].large], writes)
            # While the lock is another process's, operations that only read go on.
            following = next((each for each in large if not each[0].write or not writes), None)
            if following is not None:
                large.remove(following)
                self._turn(database, [following], writes)

    def _turn(self, database: Database, taken: Sequence[_Asked], writes: list[_Asked]) -> None:
        """Do these, and the writes that wait unless the lock is left to others."""
        reads = [each for each in taken if not each[0].write]
        database.read([operation for operation, _ in reads])
        for each in taken:
            if each[0].write:
                # Behind another write it is unknown yet whether there is nothing to do: that write may make work.
                (reads if not writes and database.idle(each[0]) else writes).append(each)
        self._answer(reads)
        if writes and (self._closing or time.monotonic() >= database.free_until):
            if self._closing:
                # No caller waits any more for a call that was given up, so a lock that another process holds need not
                # be waited for either.
                given_up = [each for each in writes if each[1].cancelled()]
                self._answer(given_up)
                writes[:] = [each for each in writes if not each[1].cancelled()]
                if not writes:
                    return
            database.patient = self._closing
            if database.write([operation for operation, _ in writes]):
                self._answer(writes)
                writes.clear()

    def _answer(self, batch: Sequence[_Asked]) -> None:
        if batch:
            futures = [future for _, future in batch]
            for future in futures:
                del self._owed[future]
            self._call(_resolve_all, futures)

    def _end(self, error: BaseException | None) -> None:
        """No caller may wait for an answer that will not come."""
        with self._ready:
            self._closing = True
            self._owed.update((future, operation) for operation, future in self._queue + self._asked)
            self._queue, self._asked = [], []
        for operation in self._owed.values():
            operation.error = StorageError("The storage's thread ended before this was done: open the storage again.")
        self._call(_resolve_all, list(self._owed))
        self._owed = {}
        fault = None
        if error is not None:
            fault = StorageError(f"The storage's thread ended with {type(error).__name__}: open the storage again.")
            fault.__cause__ = error
        self._call(_resolve, self._ended, fault)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        """Into the loop; where there is none any more, no caller waits."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return


async def _all_of(asked: Sequence[_Asked]) -> None:
    for _, future in asked:
        await future


def _resolve(future: asyncio.Future[None], error: BaseException | None) -> None:
    if not future.done():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _resolve_all(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _closed() -> StorageError:
    return StorageError("The storage is not open: use it inside `async with`.")
