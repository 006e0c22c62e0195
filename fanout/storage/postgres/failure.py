"""What PostgreSQL's errors mean: to be tried again, the connection is lost, or told to the caller."""

from __future__ import annotations

import asyncpg

from fanout.errors import FanoutError, StorageError, StorageFull, StorageRefused, StorageUnavailable
from fanout.storage.packing import unfit

__all__ = ["Again", "Unknown", "lost", "refusal", "repeatable", "translate", "unknown"]

_REPEATABLE = ("40001", "40P01", "23505", "55P03")
"""Serialization failure, deadlock; a unique key that another transaction entered between our look and our write; lock_timeout."""
_FULL = ("53100",)
"""Disk full."""
_REFUSED = ("28000", "28P01", "3D000", "42501", "3F000")
"""Wrong user, wrong password, no such database, no right, no such schema."""


class Again(Exception):
    """Raised by an operation whose look was overtaken by another transaction: it is rolled back and run once more."""


class Unknown(StorageUnavailable):
    """Whether a transaction was committed is not known, and could not be found out."""


def lost(error: BaseException) -> bool:
    """Whether the connection is gone, or of no use any more: the server went away, ends, starts, or became a standby."""
    if isinstance(error, (OSError, asyncpg.PostgresConnectionError, asyncpg.InternalClientError)):
        return True
    code = getattr(error, "sqlstate", None) or ""
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, asyncpg.PostgresError):
        return not isinstance(error, asyncpg.DataError)
    return code.startswith("57P") or code == "25006"


def repeatable(error: BaseException) -> bool:
    """Whether the operation, run again, may well succeed."""
    return isinstance(error, Again) or getattr(error, "sqlstate", None) in _REPEATABLE


def refusal(error: BaseException, shown: str) -> StorageRefused | None:
    """Why a connection was not to be had, where waiting will not help. The server's own texts name users and databases only."""
    code = getattr(error, "sqlstate", None)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return StorageRefused(f"The URL of the database {shown} holds a setting that cannot be used: correct it.")
    if code == "3D000":
        return StorageRefused(f"There is no such database as {shown}: create it (createdb), or correct the URL.")
    if code in ("28000", "28P01"):
        return StorageRefused(
            f"The database {shown} does not let this user in: correct user and password (in the URL, PGPASSWORD or ~/.pgpass)."
        )
    if code in _REFUSED:
        return StorageRefused(
            f"The database {shown} does not permit this: {_said(error)}. Grant it, or use another user."
        )
    return None


def unknown(shown: str) -> Unknown:
    """For a caller who cannot be told what became of the call."""
    return Unknown(
        f"The connection to {shown} was lost while a transaction was being committed, and the database did not come back in time to "
        "ask it: the call may have been stored. Repeat it, a notification with its idempotency key."
    )


def translate(error: BaseException, shown: str) -> BaseException:
    """The error that a caller of the storage sees. Values that stand in the driver's and server's texts are left out."""
    if isinstance(error, FanoutError):
        return error
    if isinstance(error, (UnicodeEncodeError, OverflowError)):
        return unfit()
    if isinstance(error, asyncpg.DataError) or getattr(error, "sqlstate", None) in ("22021", "22P05", "22003"):
        return unfit()
    code = getattr(error, "sqlstate", None)
    if code == "53200":
        made: StorageError = StorageError(
            f"The server of {shown} has no room for locks or memory ({_said(error)}): raise max_locks_per_transaction to 256."
        )
    elif code in _FULL:
        made = StorageFull(
            f"The database {shown} has no room ({_said(error)}): nothing of this call was stored. Make room and repeat it."
        )
    elif isinstance(error, Again) or code in _REPEATABLE:
        made = StorageUnavailable(
            f"The database {shown} is too busy: other transactions came in between each time. Repeat the call."
        )
    elif code == "57014":
        made = StorageUnavailable(
            f"The database {shown} did not finish a statement in time: see what holds it up (pg_stat_activity)."
        )
    elif code == "53300":
        made = StorageUnavailable(
            f"The database {shown} has no connection left: raise max_connections, or lower ?pool= in the URL."
        )
    elif lost(error):
        made = StorageUnavailable(
            f"The database {shown} cannot be reached ({type(error).__name__}): see that it runs and accepts connections."
        )
    elif isinstance(error, asyncpg.PostgresError):
        made = StorageError(f"The database {shown} refused: {type(error).__name__}: {_said(error)}.")
    else:
        return error
    # The driver's own error may hold values in its text and detail: it is not the cause that tracebacks print.
    made.__suppress_context__ = True
    return made


def _said(error: BaseException) -> str:
    """The server's message, which names tables and columns; its detail, which names values, is left out."""
    return str(getattr(error, "message", None) or type(error).__name__).rstrip(".")
