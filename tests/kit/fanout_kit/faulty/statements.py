"""Failpoints inside a transaction: which statement is a named boundary, seen through SQLite's own trace."""

from __future__ import annotations

import os
import re
from typing import Any

import apsw

from fanout_kit.faulty.failpoints import NAMES, armed, kill, reached

__all__ = ["AUTOCHECKPOINT", "settle_down", "watch"]

AUTOCHECKPOINT = "FANOUT_AUTOCHECKPOINT"
"""After how many pages the log is moved into the file, instead of the storage's own number: a test has no 4 MB to write
first."""

_AFTER: dict[str, re.Pattern[str]] = {
    "put.inside": re.compile(r"INSERT INTO notification\b"),
    "expand.inside": re.compile(r"INSERT INTO audience\b"),
    "lease.inside": re.compile(r"UPDATE chunk SET owner = \?"),
    "settle.inside": re.compile(r"UPDATE chunk SET .*\bstates\b", re.DOTALL),
    "extend.inside": re.compile(r"UPDATE chunk SET ready_at = j\.value->>1 FROM"),
    "migrate.inside": re.compile(r"\s*(CREATE|ALTER|DROP|INSERT|UPDATE|DELETE)\b"),
}
"""Statements after which their failpoint is reached. `migrate.inside` counts while the version of the schema is not up
to date."""
_WITHIN = re.compile(r"INSERT INTO retry\b")
_STEPS = 60

_connections: list[apsw.Connection] = []


def watch() -> None:
    """Watch every connection that is made from now on."""
    apsw.connection_hooks.append(_hook)


def settle_down() -> None:
    """Once a storage is open: give its connections the autocheckpoint of the environment, and end the watch of
    migrations."""
    pages = os.environ.get(AUTOCHECKPOINT)
    for connection in _connections:
        if pages:
            connection.wal_autocheckpoint(int(pages))
        connection.trace_v2(0, None, id="migrate")


def _hook(connection: apsw.Connection) -> None:
    _connections.append(connection)
    migrating = armed("migrate.inside") or armed("migrate.after")
    if migrating:
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, _migration, id="migrate")
    if armed("commit.before"):
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, _before, id="commit")
    if armed("retry.inside"):
        connection.trace_v2(apsw.SQLITE_TRACE_STMT | apsw.SQLITE_TRACE_PROFILE, _Within(connection), id="retry")
    for name in _AFTER:
        if armed(name) and not migrating:
            connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, _after, id="after")


def _before(event: dict[str, Any]) -> None:
    if event["sql"] == "COMMIT":
        reached("commit.before")


def _after(event: dict[str, Any]) -> None:
    sql = event["sql"]
    for name, pattern in _AFTER.items():
        if armed(name) and pattern.search(sql):
            reached(name)


def _migration(event: dict[str, Any]) -> None:
    sql = event["sql"]
    if event.get("trigger"):
        return
    if sql == "COMMIT":
        reached("migrate.after")
    elif _AFTER["migrate.inside"].match(sql):
        reached("migrate.inside")


class _Within:
    """Ends the process some steps into the statement, with some of its rows written; at its end where it is too short
    for that."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._due = False
        connection.set_progress_handler(self._progress, _STEPS, id="retry")

    def __call__(self, event: dict[str, Any]) -> None:
        if not _WITHIN.search(event["sql"]):
            return
        if event["code"] == apsw.SQLITE_TRACE_STMT:
            self._due = True
        else:
            self._due = False
            reached("retry.inside")

    def _progress(self) -> bool:
        if self._due:
            self._due = False
            if _last():
                kill()
        return False


def _last() -> bool:
    """Whether the next time is the time."""
    from fanout_kit.faulty import failpoints

    failpoint = failpoints._state.failpoint
    return failpoint is not None and failpoints._state.count == failpoint.hit - 1


assert set(_AFTER) <= set(NAMES)
