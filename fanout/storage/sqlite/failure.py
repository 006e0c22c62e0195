"""What SQLite's errors mean to a caller."""

from __future__ import annotations

import apsw

from fanout.errors import FanoutError, StorageError, StorageFull

__all__ = ["fatal", "translate"]

_FULL_CODES = (apsw.SQLITE_IOERR_SHMSIZE,)
"""Growing the shared-memory file needs room too, and says so in its own way."""


def _full(error: BaseException) -> bool:
    return isinstance(error, apsw.FullError) or (
        isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) in _FULL_CODES
    )


def fatal(error: BaseException) -> bool:
    """Whether the connection must not be used for another write: what is on the disk is no longer what memory says.

    After a failed write or fsync, the kernel may have dropped the dirty pages and call the next fsync a success (Rebello and
    others, USENIX ATC 2020). So a commit is never tried again: the database is closed and recovered from what the disk holds.
    """
    if _full(error):
        return False
    return isinstance(
        error, (apsw.IOError, apsw.CorruptError, apsw.NotADBError, apsw.ReadOnlyError, apsw.CantOpenError)
    )


def translate(error: BaseException, location: str) -> BaseException:
    """The error that a caller of the storage sees. SQLite's own texts name columns and never values."""
    if isinstance(error, FanoutError) or not isinstance(error, apsw.Error):
        return error
    if _full(error):
        made: StorageError = StorageFull(
            f"The disk of {location} is full: nothing of this call was stored. Make room and repeat it."
        )
    elif fatal(error):
        made = StorageError(
            f"The database {location} failed: {type(error).__name__}: {error}. It takes no more writes until it is opened again."
        )
    else:
        made = StorageError(f"The database {location} refused: {type(error).__name__}: {error}.")
    made.__cause__ = error
    return made
