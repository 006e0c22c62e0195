"""Opening a database file: refusals with their reasons, and the steps that bring an older file up to date."""

from __future__ import annotations

import contextlib
import os
import random
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import apsw

from fanout.errors import StorageAbsent, StorageRefused, StorageUnavailable
from fanout.storage.sqlite.schema import APPLICATION_ID, STEPS, VERSION

__all__ = ["CannotOpen", "busy_wait", "connect", "held_too_long"]

_BUSY_LIMIT = 30.0
"""Seconds for which another process may hold the lock before a caller is told."""
_HEADER = 100
"""Bytes (SQLite file format, section 1.3). SQLite itself sees that the file is as long as its header says."""
_CHECKED = 8 * 2**20
"""Files up to this many bytes are checked page by page when they are opened; that takes some 20 ms."""
_TABLES = {
    **dict.fromkeys(
        ("app", "binding", "endpoint", "notification", "chunk", "audience", "event", "expansion", "decision", "load"),
        "rowid",
    ),
    **dict.fromkeys(("feed", "feed_item", "subscription"), "rowid"),
    **dict.fromkeys(("retry", "tally", "backlog"), "notification"),
    **dict.fromkeys(("control", "gate"), "binding"),
    "seal": "id",
    "worker": "id",
    "share": "name",
    "token": "name",
}
"""Every table that is always there, with the first column of its key."""

T = TypeVar("T")


class CannotOpen(StorageRefused):
    """The file cannot be opened for writing: its rights, its folder's or its disk's forbid it."""


def held_too_long(location: str) -> StorageUnavailable:
    """The error of a caller that has waited for the lock as long as it may."""
    return StorageUnavailable(
        f"Another process has held the lock of {location} for {_BUSY_LIMIT:.0f} s: see which one hangs, and end it."
    )


def busy_limit() -> float:
    """Seconds for which another process may hold the lock before a caller is told."""
    return _BUSY_LIMIT


def busy_wait(action: Callable[[], T], location: str) -> T:
    """Do it, and again while another process holds the lock, after 0.5 to 3 ms each time. Raises `StorageUnavailable`
    after 30 s."""
    began = time.monotonic()
    while True:
        try:
            return action()
        except (apsw.BusyError, apsw.LockedError):
            if time.monotonic() - began > _BUSY_LIMIT:
                raise held_too_long(location) from None
            time.sleep(random.uniform(0.0005, 0.003))


def connect(location: str, *, steps: tuple[str, ...] = STEPS, create: bool = True) -> apsw.Connection:
    """A connection to the database of that path, ready for use. Raises `StorageRefused`, `StorageError` and
    `StorageFull`.

    Without `create` a missing database is not made: raises `StorageAbsent`.
    """
    path = _examine(location, create)
    try:
        connection = apsw.Connection(
            str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, statementcachesize=200
        )
    except (apsw.CantOpenError, apsw.PermissionsError) as error:
        raise _cannot_open(location) from error
    try:
        _prepare(connection, location, steps, create)
    except BaseException:
        connection.close()
        raise
    return connection


def _cannot_open(location: str) -> CannotOpen:
    return CannotOpen(
        f"The database {location} cannot be opened for writing: give this user write permission for the file and its folder."
    )


def _absent(location: str) -> StorageAbsent:
    return StorageAbsent(
        f"There is no database {location} yet: correct the path in `storage`, or begin with `fanout work` or `fanout send`, which make it."
    )


def _examine(location: str, create: bool) -> Path:
    """Refuse a file that can be seen to be no database of ours before SQLite touches it."""
    if not location or location.startswith((":", "file:")):
        raise StorageRefused('A SQLite storage needs a file, such as "sqlite:fanout.db"; without one use "memory:".')
    path = Path(location)
    try:
        if path.is_dir():
            raise StorageRefused(f"{location} is a folder: name a file in it, such as {path / 'fanout.db'}.")
        if not path.parent.is_dir():
            raise StorageRefused(
                f"The folder {path.parent} does not exist: create it, or correct the path of the database."
            )
        if not path.exists():
            if not create:
                raise _absent(location)
            _make(path)
        if 0 < path.stat().st_size < _HEADER:
            # SQLite takes a file of one byte for an empty one.
            raise _damaged(location, "its header is cut off")
    except PermissionError as error:
        raise _cannot_open(location) from error
    except OSError as error:
        raise StorageRefused(f"The database {location} cannot be read or made: {error.strerror}.") from error
    return path


def _make(path: Path) -> None:
    """An empty file that only this user may read, for it will hold device addresses. SQLite gives the log beside it the
    same rights.

    It is made without being opened, and never opened by anything but SQLite: when a process closes a file, all its
    locks on that file go, those of other connections of the process too (https://sqlite.org/howtocorrupt.html, section
    2.2).
    """
    try:
        os.mknod(path, stat.S_IFREG | 0o600)
    except FileExistsError:
        return
    except (AttributeError, PermissionError):
        # Where only the system may make a file so (macOS), or none can be (Windows): under a name that no connection
        # has open.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        os.close(descriptor)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(name, path)
        finally:
            os.unlink(name)


def _damaged(location: str, how: str) -> StorageRefused:
    return StorageRefused(
        f"The database {location} is damaged ({how}): restore it from a backup, or move it away to start anew."
    )


def _prepare(connection: apsw.Connection, location: str, steps: tuple[str, ...], create: bool) -> None:
    connection.set_busy_timeout(0)
    # Else SQLite looks at the values bound to a statement while it plans, and so compiles it anew for each call with
    # others: most of the cost of a short operation
    # (https://sqlite.org/c3ref/c_dbconfig_defensive.html#sqlitedbconfigenableqpsg).
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    try:
        empty = busy_wait(lambda: _identify(connection, location, steps), location)
        if empty and not create:
            raise _absent(location)
        if connection.readonly("main"):
            raise _cannot_open(location)
        mode = busy_wait(lambda: connection.pragma("journal_mode", "wal"), location)
        if mode != "wal":
            raise StorageRefused(
                f"The database {location} cannot have a write-ahead log (it stays in mode {mode}): use a local disk."
            )
        for name, value in (
            ("synchronous", "FULL"),
            # macOS: fsync leaves its writes in the disk's own cache (fcntl(2), F_FULLFSYNC). Other systems ignore both.
            ("fullfsync", "ON"),
            ("checkpoint_fullfsync", "ON"),
            ("mmap_size", 0),
            ("cache_size", -32768),
            ("temp_store", "MEMORY"),
            ("wal_autocheckpoint", 1000),  # the commit that fills the log moves it, and its caller waits for that
            ("journal_size_limit", 64 * 2**20),
            # Deleted bytes are overwritten, so that an erased user is gone (`wiping`). No cost was measured: the pages
            # are written anyway.
            ("secure_delete", "ON"),
            ("trusted_schema", "OFF"),
            ("cell_size_check", "ON"),
        ):
            connection.pragma(name, value)
        busy_wait(lambda: _migrate(connection, location, steps), location)
        _check(connection, location)
    except apsw.NotADBError as error:
        raise StorageRefused(
            f"{location} is not a database, or its beginning is damaged: it is left alone. Name another file, or restore it from a backup."
        ) from error
    except apsw.CorruptError as error:
        raise _damaged(location, str(error)) from error
    except apsw.IOError as error:
        if getattr(error, "extendedresult", 0) != apsw.SQLITE_IOERR_SHORT_READ:
            raise
        # The index of the log, which another process keeps, speaks of frames that the log has not.
        raise StorageRefused(
            f"The log {connection.filename}-wal was deleted or emptied while another process has the database open: end every process "
            "that has it open, and start again. Entries that only the log held are lost; a backup may have them."
        ) from error
    except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError) as error:
        raise _cannot_open(location) from error


def _identify(connection: apsw.Connection, location: str, steps: tuple[str, ...]) -> bool:
    """Refuse another program's database, and one of a newer fanout. Reads only; whether there is nothing in it yet."""
    # One statement is one moment's answer: between two of them another process may make the schema.
    application, version, tables = connection.execute(
        "SELECT a.application_id, v.user_version, (SELECT count(*) FROM sqlite_schema)"
        " FROM pragma_application_id AS a, pragma_user_version AS v"
    ).get
    if application == 0 and version == 0 and tables == 0:
        return True
    if application & 0xFFFFFFFF != APPLICATION_ID:
        raise StorageRefused(
            f"The database {location} belongs to another program: it is left alone. Name another file."
        )
    if version > len(steps):
        raise StorageRefused(
            f"The database {location} is of schema version {version}, and this fanout knows {len(steps)}: "
            "install the newer fanout again, or name another file."
        )
    return False


def _migrate(connection: apsw.Connection, location: str, steps: tuple[str, ...]) -> None:
    """All missing steps are one transaction, with the number of the last: a process that dies on the way leaves the
    file as it was."""
    if connection.pragma("user_version") == len(steps):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        _identify(connection, location, steps)
        for step in steps[connection.pragma("user_version") :]:
            connection.execute(step)
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", len(steps))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check(connection: apsw.Connection, location: str) -> None:
    """Look at both ends of every table, and in a small file at every page."""
    for table, column in _TABLES.items():
        for end in ("min", "max"):
            connection.execute(f"SELECT {end}({column}) FROM {table}").fetchall()
    if os.path.getsize(connection.filename) <= _CHECKED:
        verdict = connection.pragma("quick_check", 1)
        if verdict != "ok":
            raise _damaged(location, str(verdict).splitlines()[0])


assert len(STEPS) == VERSION
