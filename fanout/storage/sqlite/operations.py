"""Running operations on the connection: reads without the lock, writes together in one commit."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apsw

from fanout.errors import StorageError, StorageFull
from fanout.plugin import StorageContext
from fanout.storage.sqlite.courtesy import Courtesy
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.failure import fatal, translate
from fanout.storage.sqlite.logsize import LogSize
from fanout.storage.sqlite.opening import busy_wait, connect
from fanout.storage.sqlite.sealing import begin

__all__ = ["Database", "Operation"]

_log = logging.getLogger("fanout.sqlite")


@dataclass(slots=True)
class Operation:
    """Something to be done in a transaction. A write with a `probe` that says there is nothing to do answers `idle` instead.

    One that is not `durable` may be undone by a loss of power (never by the death of the process), as whole transactions and the latest
    first: its commit need not wait for the disk. A later durable one makes it so.
    One that is `large` may take milliseconds, and waits for what is small, so that one app's flood does not hold others back.
    """

    run: Callable[[Db], Any]
    write: bool
    probe: Callable[[Db], bool] | None = None
    idle: Any = None
    durable: bool = True
    large: bool = False
    result: Any = None
    error: BaseException | None = None


class Database:
    """The connection and its transactions. Belongs to one thread."""

    def __init__(self, location: str, context: StorageContext) -> None:
        self._location = location
        try:
            self._connection = connect(location)
        except apsw.Error as error:
            raise translate(error, location) from error
        self._path = os.path.abspath(location)
        self._file = _identity(self._path)
        self._db = Db(self._connection, context)
        try:
            begin(self._db)
        except BaseException as error:
            self._connection.close()
            raise translate(error, location) from error
        self._broken: BaseException | None = None
        self._courtesy = Courtesy()
        self._log_size = LogSize()
        self._commits = 0
        self._seen = self._data_version()
        self._synced = True
        self.free_until = 0.0
        """When the next write may begin, on the monotonic clock: until then the lock is left to others."""

    def close(self) -> None:
        """End the connection; SQLite moves the log into the file if nobody else has it open."""
        self._connection.close()

    def changes(self, *, others: bool = False) -> int:
        """A number that differs after any commit, of ours or of another process; with `others`, after theirs alone."""
        return (self._data_version() << 40) + (0 if others else self._commits)

    def _data_version(self) -> int:
        return int(self._db.value("PRAGMA data_version"))

    # -- reads

    def read(self, operations: Sequence[Operation]) -> None:
        """Run reads, each in a transaction of its own."""
        for operation in operations:
            try:
                operation.result = busy_wait(partial(operation.run, self._db), self._location)
            except Exception as error:
                operation.error = self._judge(error)

    def idle(self, operation: Operation) -> bool:
        """Whether a write's probe says that there is nothing to do; if so, or if the probe fails, it is settled."""
        probe = operation.probe
        if probe is None:
            return False
        try:
            if busy_wait(partial(probe, self._db), self._location):
                return False
            operation.result = operation.idle
        except Exception as error:
            operation.error = self._judge(error)
        return True

    # -- writes

    def write(self, operations: Sequence[Operation]) -> None:
        """Run writes in one transaction. One that fails leaves nothing behind and spoils no other."""
        if self._broken is not None:
            for operation in operations:
                operation.error = self._refusal()
            return
        # Savepoints cost two statements each, and nearly every batch is free of faults: so they come second.
        if not self._transaction(operations, guarded=False) and len(operations) > 1:
            self._transaction(operations, guarded=True)

    def _transaction(self, operations: Sequence[Operation], *, guarded: bool) -> bool:
        """One commit of all of them. False if it is worth trying again with each guarded from the others."""
        connection = self._connection
        try:
            self._sync(any(operation.durable for operation in operations))
            self._begin()
        except Exception as error:
            self._tell(operations, error)
            return True
        began = time.monotonic()
        before = connection.total_changes()
        try:
            for operation in operations:
                if guarded:
                    self._guarded(operation)
                else:
                    operation.result = operation.run(self._db)
            connection.execute("COMMIT")
        except Exception as error:
            self._roll_back()
            self._tell(operations, error)
            return self._broken is not None or isinstance(operations[0].error, StorageFull)
        if connection.total_changes() != before:
            self._commits += 1
        now = time.monotonic()
        self.free_until = now + self._courtesy.pause(now, now - began)
        if self._log_size.due(now):
            self._look_at_log()
        return True

    def _look_at_log(self) -> None:
        try:
            size = os.stat(f"{self._path}-wal").st_size
        except OSError:
            return
        if self._log_size.grown(size):
            _log.error(
                "The write-ahead log of %s has grown to %d MB: some program has been reading in the database all the while, "
                "so that SQLite cannot start the log over. Find it (fuser %s) and end it.",
                self._location,
                size >> 20,
                self._location,
            )

    def _tell(self, operations: Sequence[Operation], error: Exception) -> None:
        judged = self._judge(error)
        for operation in operations:
            operation.result, operation.error = None, judged

    def _sync(self, durable: bool) -> None:
        """Whether the next commit waits for the disk (https://sqlite.org/pragma.html#pragma_synchronous)."""
        if durable != self._synced:
            self._connection.pragma("synchronous", "FULL" if durable else "NORMAL")
            self._synced = durable

    def _begin(self) -> None:
        if _identity(self._path) != self._file:
            # SQLite would go on writing to a file that nobody can open any more.
            self._broken = FileNotFoundError()
            raise StorageError(
                f"The database {self._location} was moved or deleted while it was open: put it back and open it again."
            )
        begin = partial(self._connection.execute, "BEGIN IMMEDIATE")
        try:
            begin()
        except apsw.BusyError:
            self._courtesy.met(time.monotonic())
            busy_wait(begin, self._location)
        seen = self._data_version()
        if seen != self._seen:
            self._seen = seen
            self._courtesy.met(time.monotonic())

    def _guarded(self, operation: Operation) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT operation")
        operation.error = None
        try:
            operation.result = operation.run(self._db)
        except Exception as error:
            if fatal(error) or not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO operation")
            self._db.forget()
            operation.result, operation.error = None, self._judge(error)
        connection.execute("RELEASE operation")

    def _roll_back(self) -> None:
        self._db.forget()
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error as error:
            self._broken = self._broken or error

    def _judge(self, error: BaseException) -> BaseException:
        if fatal(error) and self._broken is None:
            self._broken = error
        return translate(error, self._location)

    def _refusal(self) -> StorageError:
        return StorageError(
            f"The database {self._location} failed earlier ({type(self._broken).__name__}) and takes no more writes: open it again."
        )


def _identity(location: str) -> tuple[int, int] | None:
    """Which file that path names, or None."""
    try:
        found = os.stat(location)
    except OSError:
        return None
    return found.st_dev, found.st_ino
