"""Running operations on the connection: reads without the lock, writes together in one commit."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import apsw

from fanout.core.records import Submission
from fanout.errors import StorageError, StorageFull, StorageRefused, StorageUnavailable
from fanout.plugin import StorageContext
from fanout.storage.acceptance import MOST
from fanout.storage.kinds import Kind
from fanout.storage.sql.hot import Hot
from fanout.storage.sql.intake import put_gathered
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.failure import kind_of, translate, worn
from fanout.storage.sqlite.files import Files
from fanout.storage.sqlite.lock_yield import LockYield
from fanout.storage.sqlite.logsize import LogSize
from fanout.storage.sqlite.opening import CannotOpen, busy_limit, busy_wait, connect, held_too_long
from fanout.storage.sqlite.sealing import begin
from fanout.storage.sqlite.session import shared

__all__ = ["Database", "Operation"]

_log = logging.getLogger("fanout.sqlite")
_PATIENCE = 1.0
"""Seconds after which a lock that another process holds is looked at less often."""


@dataclass(slots=True)
class Operation:
    """Something to be done in a transaction. A write with a `probe` that says there is nothing to do answers `idle`
    instead.

    An operation that is not `durable` may be undone by a loss of power (never by the death of the process), as whole
    transactions and the latest first: its commit need not wait for the disk. A later durable one makes it so. A `large`
    operation may take milliseconds, and waits for small ones, so that one app's flood does not hold others back. An
    operation with `puts` only puts these submissions, at that time; the puts of other operations may join them
    (`acceptance.gathered`).
    """

    run: Callable[[Db], Any]
    write: bool
    probe: Callable[[Db], bool] | None = None
    idle: Any = None
    durable: bool = True
    large: bool = False
    puts: tuple[Sequence[Submission], float] | None = None
    result: Any = None
    error: BaseException | None = None


class _Locked(Exception):
    """Another process holds the lock, and the caller has other work meanwhile."""


class Database:
    """The connection and its transactions. Belongs to one thread."""

    def __init__(self, location: str, context: StorageContext, hot: Hot) -> None:
        self._location = location
        self._context = context
        self._hot = hot
        self._broken: BaseException | None = None
        self._lock_yield = LockYield()
        self._log_size = LogSize()
        self._commits = self._opened = 0
        self._worn = False
        self._locked_since: float | None = None
        self.free_until = 0.0
        """When the next write may begin, on the monotonic clock: until then the lock is left to others, or held by
        them."""
        self.patient = True
        """Whether `write` waits for a lock that another process holds."""
        self._open()

    def _open(self) -> None:
        try:
            self._connection = connect(self._location, create=self._context.create)
        except apsw.Error as error:
            raise translate(error, self._location) from error
        try:
            self._db = Db(self._connection, self._context, self._hot)
            begin(self._db)
            self._connection.pragma("data_version")  # it reads: so the log is there, too
            self._seen = self._connection.data_version()
        except BaseException as error:
            self._connection.close()
            raise translate(error, self._location) from error
        self._files = Files(self._location, self._connection.filename)
        self._opened += 1
        self._synced = True
        self._worn = False

    def close(self) -> None:
        """End the connection; SQLite moves the log into the file if no other process has it open."""
        self._connection.close()

    def changes(self, *, others: bool = False) -> int:
        """A number that differs after any commit, of ours or of another process; with `others`, after theirs alone."""
        version = int(self._db.value("PRAGMA data_version"))  # of this connection alone: another begins anew
        return (self._opened << 72) + (version << 40) + (0 if others else self._commits)

    def _renew(self) -> None:
        """A connection that can no longer be trusted is replaced, once the disk lets it. Raises `StorageError`."""
        if not self._worn:
            return
        main = self._files.main
        try:
            self._connection.close()
            self._open()
        except CannotOpen as error:
            raise StorageUnavailable(str(error)) from error
        except StorageUnavailable as error:
            if isinstance(error, StorageRefused):
                self._broken = error
                raise StorageError(str(error)) from error
            raise
        if self._files.main != main:
            self._lost(self._location)

    def _look_at_files(self) -> None:
        """Raises `StorageError` once a file of the database is no longer the opened file."""
        path = self._files.missing()
        if path:
            self._lost(path)

    def _lost(self, path: str) -> None:
        # SQLite would go on writing to a file that cannot be opened any more.
        self._broken = StorageError(  # later callers read its text too: the first may be any of them
            f"The file {path} was moved, deleted or emptied while the database was open: recently accepted notifications "
            "may be gone with it. Put the file back, and open the database again."
        )
        raise self._refusal()

    # -- reads

    def read(self, operations: Sequence[Operation]) -> None:
        """Run reads, each in a transaction of its own."""
        for operation in operations:
            self._settle(operation, operation.run)

    def _settle(self, operation: Operation, run: Callable[[Db], Any]) -> None:
        try:
            self._renew()
            operation.result = busy_wait(partial(run, self._db), self._location)
            if self._connection.data_version() != self._seen and self._moved_on():
                operation.result = busy_wait(partial(run, self._db), self._location)
        except Exception as error:
            operation.error = self._judge(error)

    def _moved_on(self) -> bool:
        """Whether others have committed since the last transaction. They may have put another database's content into
        the file (a restored backup): then all that was learned of it is forgotten. The number is that of the latest
        transaction. So it is read after a transaction began.
        """
        seen = self._connection.data_version()
        if seen == self._seen:
            return False
        self._seen = seen
        self._db.forget()
        return True

    def idle(self, operation: Operation) -> bool:
        """Whether a write's probe says that there is nothing to do; if so, or if the probe fails, it is settled."""
        probe = operation.probe
        if probe is None:
            return False
        self._settle(operation, probe)
        if operation.error is None and operation.result:
            operation.result = None
            return False
        operation.result = None if operation.error is not None else operation.idle
        return True

    # -- writes

    def write(self, operations: Sequence[Operation]) -> bool:
        """Run writes in one transaction. A failed write leaves nothing behind and spoils no other.

        False where nothing was done because another process holds the lock, and `patient` is False: ask again from
        `free_until` on.
        """
        if self._broken is not None:
            for operation in operations:
                operation.error = self._refusal()
            return True
        try:
            # Savepoints cost two statements each, and nearly every batch is free of faults: so they come second.
            if not self._transaction(operations, guarded=False) and len(operations) > 1:
                self._transaction(operations, guarded=True)
        except _Locked:
            return False
        return True

    def _transaction(self, operations: Sequence[Operation], *, guarded: bool) -> bool:
        """One commit of all of them. False if it is worth trying again with each guarded from the others."""
        try:
            self._renew()
            self._sync(any(operation.durable for operation in operations))
            self._begin(patient=self.patient or guarded)
        except _Locked:
            raise
        except Exception as error:
            self._tell(operations, error)
            return True
        connection = self._connection
        began = time.monotonic()
        before = connection.total_changes()
        try:
            for following in [[each] for each in operations] if guarded else _gathered(operations):
                if guarded:
                    self._guarded(following[0])
                elif len(following) > 1:
                    self._put(following)
                else:
                    following[0].result = following[0].run(self._db)
            connection.execute("COMMIT")
            self._seen = connection.data_version()
            self._look_at_files()
        except Exception as error:
            self._roll_back()
            self._tell(operations, error)
            return self._broken is not None or self._worn or isinstance(operations[0].error, StorageFull)
        if connection.total_changes() != before:
            self._commits += 1
        self._after_commit(began)
        return True

    def _put(self, operations: Sequence[Operation]) -> None:
        """Store the submissions of all of them, in as many statements as those of one."""
        puts = [each.puts for each in operations if each.puts is not None]
        submissions = [submission for several, _ in puts for submission in several]
        answers = iter(shared(self._db, put_gathered, submissions, max(now for _, now in puts)))
        for operation, (several, _) in zip(operations, puts, strict=True):
            operation.result = list(islice(answers, len(several)))

    def _after_commit(self, began: float) -> None:
        """Leave the lock to others for a while, and look at the size of the log."""
        now = time.monotonic()
        self.free_until = now + self._lock_yield.pause(now, now - began)
        if self._log_size.due(now) and self._log_size.grown(size := self._files.log_size):
            _log.error(
                "The write-ahead log of %s has grown to %d MB: some program has been reading in the database all the while, "
                "so that SQLite cannot start the log over. Find it (fuser %s) and end it.",
                *(self._location, size >> 20, self._location),
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

    def _begin(self, *, patient: bool) -> None:
        start = partial(self._connection.execute, "BEGIN IMMEDIATE")
        try:
            start()
        except (apsw.BusyError, apsw.LockedError):
            now = time.monotonic()
            self._lock_yield.met(now)
            if patient:
                busy_wait(start, self._location)
            else:
                self._locked(now)
        self._locked_since = None
        if self._connection.data_version() != self._seen and self._moved_on():
            self._lock_yield.met(time.monotonic())

    def _locked(self, now: float) -> None:
        """Look again in a moment, and less often as time goes on. Raises `_Locked`, and `StorageUnavailable` after as
        long as one may wait."""
        since = self._locked_since = now if self._locked_since is None else self._locked_since
        if now - since > busy_limit():
            self._locked_since = None
            raise held_too_long(self._location)
        self.free_until = now + random.uniform(0.0005, 0.003 if now - since < _PATIENCE else 0.03)
        raise _Locked

    def _guarded(self, operation: Operation) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT operation")
        operation.error = None
        try:
            operation.result = operation.run(self._db)
        except Exception as error:
            if kind_of(error) is Kind.FATAL or worn(error) or not connection.in_transaction:
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
        if kind_of(error) is Kind.FATAL and self._broken is None:
            self._broken = error
        self._worn = self._worn or worn(error)
        return translate(error, self._location)

    def _refusal(self) -> StorageError:
        said = f"The database {self._location} failed earlier ({type(self._broken).__name__}) and takes no more writes: open it again."
        return StorageError(str(self._broken) if isinstance(self._broken, StorageError) else said)


def _gathered(operations: Sequence[Operation]) -> list[list[Operation]]:
    """The same in their order, where puts that follow one another and may share their statements are together."""
    groups: list[list[Operation]] = []
    room = 0
    for operation in operations:
        size = 0 if operation.puts is None else len(operation.puts[0])
        if 0 < size <= room:
            groups[-1].append(operation)
            room -= size
        else:
            groups.append([operation])
            room = MOST - size if size else 0
    return groups
