"""The meaning of PostgreSQL's errors: to be tried again, the connection is lost, or told to the caller."""

from __future__ import annotations

import asyncpg

from fanout.errors import (
    ContentRefused,
    FanoutError,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
)
from fanout.storage.kinds import Kind
from fanout.storage.packing import unfit
from fanout.storage.sql.db import Again

__all__ = ["Unknown", "kind_of", "lost", "refusal", "repeatable", "translate", "unknown"]

_KINDS: tuple[tuple[str, Kind], ...] = (
    ("XX001", Kind.FATAL),  # data_corrupted
    ("XX002", Kind.FATAL),  # index_corrupted
    ("53100", Kind.FULL),  # disk_full
    ("22", Kind.CONTENT),  # data exception
    ("23", Kind.CONTENT),  # integrity constraint violation
    ("54", Kind.CONTENT),  # program limit exceeded: a text longer than an index holds
)
"""By the beginning of an SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html). All others are
unavailable: rights, passwords, missing or renamed objects, and other causes that an operator or time ends."""
_REPEATABLE = ("40001", "40P01", "23505", "55P03")
"""Serialization failure, deadlock; a unique key that another transaction entered between our look and our write;
lock_timeout."""
_REFUSED = ("28000", "28P01", "3D000", "42501", "3F000")
"""Wrong user, wrong password, no such database, no right, no such schema."""
_HINTS = {
    "53200": "raise max_locks_per_transaction to 256",
    "53300": "raise max_connections, or lower ?pool= in the URL",
    "57014": "see what holds it up (pg_stat_activity)",
    "42P01": "put back the tables and the right to use their schema",
    "42501": "grant it to this user (BYPASSRLS where row-level security is in the way)",
    "55000": "see that the database accepts connections (ALTER DATABASE … ALLOW_CONNECTIONS true)",
}
"""The remedy for an operator, where it is known."""


class Unknown(StorageUnavailable):
    """Whether a transaction was committed is not known, and could not be found out."""


def lost(error: BaseException) -> bool:
    """Whether the connection is gone, or of no use any more: the server went away, ends, starts, or became a
    standby."""
    if isinstance(error, (OSError, asyncpg.PostgresConnectionError, asyncpg.InternalClientError)):
        return True
    code = getattr(error, "sqlstate", None) or ""
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, asyncpg.PostgresError):
        return not isinstance(error, asyncpg.DataError)
    return code.startswith("57P") or code == "25006"


def repeatable(error: BaseException, repeats: int = 0) -> bool:
    """Whether the operation, run again, may well succeed.

    `repeats` is how often it was run again already. A key that is still taken after twelve runs, about half a second,
    is not entered by another transaction each time.
    """
    code = getattr(error, "sqlstate", None)
    return isinstance(error, Again) or (code in _REPEATABLE and (code != "23505" or repeats < 12))


def kind_of(error: BaseException) -> Kind | None:
    """The class of a driver's or server's error; None for an error that is neither."""
    if isinstance(error, (UnicodeEncodeError, OverflowError)) or (
        isinstance(error, asyncpg.DataError) and not isinstance(error, asyncpg.PostgresError)
    ):
        return Kind.CONTENT
    if isinstance(error, Again) or lost(error):
        return Kind.UNAVAILABLE
    if not isinstance(error, asyncpg.PostgresError):
        return None
    code: str = getattr(error, "sqlstate", None) or ""
    return next((kind for prefix, kind in _KINDS if code.startswith(prefix)), Kind.UNAVAILABLE)


def refusal(error: BaseException, shown: str) -> StorageRefused | None:
    """Why a connection was not to be had, where waiting will not help. The server's own texts name users and databases
    only."""
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
    """For a caller that cannot be told the outcome of the call."""
    return Unknown(
        f"The connection to {shown} was lost while a transaction was being committed, and the database did not come back in time to "
        "ask it: the call may have been stored. Repeat it, a notification with its idempotency key."
    )


def translate(error: BaseException, shown: str) -> BaseException:
    """The error that a caller of the storage sees. Values that stand in the driver's and server's texts are left
    out."""
    if isinstance(error, FanoutError):
        return error
    kind = kind_of(error)
    code = getattr(error, "sqlstate", None)
    made: StorageError
    match kind:
        case None:
            return error
        case Kind.CONTENT:
            made = (
                unfit()
                if code is None or code in ("22021", "22P05", "22003")
                else ContentRefused(
                    # Of a data exception the server's text names the value.
                    f"The database {shown} refused what it was to store: {type(error).__name__}"
                    f"{'' if code.startswith('22') else f': {_said(error)}'}."
                )
            )
        case Kind.FULL:
            made = StorageFull(
                f"The database {shown} has no room ({_said(error)}): nothing of this call was stored. Make room and repeat it."
            )
        case Kind.FATAL:
            made = StorageError(
                f"The database {shown} is damaged ({_said(error)}): restore it from a backup, and start again."
            )
        case _:
            made = _passing(error, code, shown)
    # The driver's own error may hold values in its text and detail: it is not the cause that tracebacks print.
    made.__suppress_context__ = True
    return made


def _passing(error: BaseException, code: str | None, shown: str) -> StorageUnavailable:
    if repeatable(error):
        return StorageUnavailable(
            f"The database {shown} is too busy: other transactions came in between each time. Repeat the call."
        )
    if code == "25006":
        return StorageUnavailable(
            f"The database {shown} takes no writes ({_said(error)}): promote a standby, or end default_transaction_read_only."
        )
    if lost(error):
        return StorageUnavailable(
            f"The database {shown} cannot be reached ({type(error).__name__}): see that it runs and accepts connections."
        )
    hint = _HINTS.get(code or "", "it is tried again; see the server's log")
    return StorageUnavailable(f"The database {shown} does not do this at present ({_said(error)}): {hint}.")


def _said(error: BaseException) -> str:
    """The server's message, which names tables and columns; its detail, which names values, is left out."""
    return str(getattr(error, "message", None) or type(error).__name__).rstrip(".")
