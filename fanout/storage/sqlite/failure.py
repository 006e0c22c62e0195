"""The meaning of SQLite's errors for a caller."""

from __future__ import annotations

import apsw

from fanout.errors import ContentRefused, FanoutError, StorageError, StorageFull, StorageUnavailable
from fanout.storage.kinds import Kind

__all__ = ["kind_of", "translate", "worn"]

_BY_CLASS: tuple[tuple[type[apsw.Error], Kind], ...] = (
    (apsw.FullError, Kind.FULL),
    (apsw.CorruptError, Kind.FATAL),
    (apsw.NotADBError, Kind.FATAL),
    (apsw.IOError, Kind.FATAL),
    (apsw.ConstraintError, Kind.CONTENT),
    (apsw.TooBigError, Kind.CONTENT),
    (apsw.MismatchError, Kind.CONTENT),
)
"""Of errors that no extended code tells apart (https://sqlite.org/rescode.html). All others are unavailable.

After a failed write or fsync, the kernel may have dropped the dirty pages and call the next fsync a success (Rebello
and others, USENIX ATC 2020). So an input/output error is fatal unless its code says that no write to the disk was in
question, or which one.
"""
_BY_CODE: dict[int, Kind] = {
    apsw.SQLITE_IOERR_SHMSIZE: Kind.FULL,  # growing the shared-memory file needs room too, and says so in its own way
    apsw.SQLITE_READONLY_DBMOVED: Kind.FATAL,
    **dict.fromkeys(
        (
            # The transaction is rolled back, and its log frames lack the end that makes them valid.
            apsw.SQLITE_IOERR_WRITE,
            apsw.SQLITE_IOERR_READ,
            apsw.SQLITE_IOERR_FSTAT,
            apsw.SQLITE_IOERR_ACCESS,
            apsw.SQLITE_IOERR_AUTH,
            apsw.SQLITE_IOERR_BLOCKED,
            apsw.SQLITE_IOERR_CHECKRESERVEDLOCK,
            apsw.SQLITE_IOERR_CONVPATH,
            apsw.SQLITE_IOERR_DELETE,
            apsw.SQLITE_IOERR_GETTEMPPATH,
            apsw.SQLITE_IOERR_LOCK,
            apsw.SQLITE_IOERR_MMAP,
            apsw.SQLITE_IOERR_NOMEM,
            apsw.SQLITE_IOERR_RDLOCK,
            apsw.SQLITE_IOERR_SHMLOCK,
            apsw.SQLITE_IOERR_SHMMAP,
            apsw.SQLITE_IOERR_SHMOPEN,
            apsw.SQLITE_IOERR_UNLOCK,
        ),
        Kind.UNAVAILABLE,
    ),
}
"""By extended code, before the class is asked."""


def kind_of(error: BaseException) -> Kind | None:
    """The class of one of SQLite's errors; None for any other error."""
    if not isinstance(error, apsw.Error):
        return None
    found = _BY_CODE.get(getattr(error, "extendedresult", 0))
    if found is not None:
        return found
    return next((kind for cls, kind in _BY_CLASS if isinstance(error, cls)), Kind.UNAVAILABLE)


def worn(error: BaseException) -> bool:
    """Whether the connection is to be made anew before it is used again: its files may be others, or other than it
    believes."""
    return kind_of(error) is Kind.UNAVAILABLE and isinstance(
        error, (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError)
    )


def translate(error: BaseException, location: str) -> BaseException:
    """The error that a caller of the storage sees. SQLite's own texts name columns and never values."""
    kind = kind_of(error)
    if isinstance(error, FanoutError) or kind is None:
        return error
    said = f"{type(error).__name__}: {error}"
    made: StorageError
    match kind:
        case Kind.FULL:
            made = StorageFull(
                f"The disk of {location} is full: nothing of this call was stored. Make room and repeat it."
            )
        case Kind.FATAL:
            made = StorageError(
                f"The database {location} failed: {said}. It takes no more writes until it is opened again."
            )
        case Kind.CONTENT:
            made = ContentRefused(f"The database {location} refused what it was to store: {said}.")
        case _:
            remedy = "See that its disk can be written and that no other program keeps it locked"
            if isinstance(error, apsw.NoMemError):
                remedy = "Raise this process's limit of memory (ulimit -v, MemoryMax= of systemd, the container's)"
            made = StorageUnavailable(
                f"The database {location} does not work at present: {said}. {remedy}; it is tried again."
            )
    made.__cause__ = error
    return made
