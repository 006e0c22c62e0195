"""What was decided about deliveries and no other table remembers, a row for each notification that a transaction decided about.

A row is JSON, a list of entries, each led by its kind; deliveries are named by their position in the chunk:

    ["settled", chunk, retries, parked]       a settlement that made retry rows or gave the chunk back
      retries: [[attempt, waiting, reason, positions, due times], ...]
      parked: null, or [due time, waiting, reason, *lease]
    ["lost", chunk, suspected positions, doubtful positions, *lease]
      lease, of the one that ended with that: worker, leased at, leased after, ranges of what was still open
    ["paused"] and ["resumed"], of the notification; of a binding, where its number below zero stands in place of one
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fanout.core.records import RetryRow, Settlement
from fanout.storage.sqlite.db import Db

__all__ = ["LAST_DECISION", "Decisions", "Row", "ranges", "rows_of"]

Row = list[Any]
"""[its number, when it was stored (UNIX seconds), the entries]."""

LAST_DECISION = "(SELECT coalesce(max(id), 0) FROM decision)"
"""Its number, so that something can be said to come after it."""
_UNSETTLED = re.compile(rb"[\x00\xfd\xfe]+")
"""Runs of what is open, marked or in doubt (see `core.statemap`)."""


def ranges(states: bytes) -> list[tuple[int, int]]:
    """The runs of positions, first and last, that have not ended."""
    return [(found.start(), found.end() - 1) for found in _UNSETTLED.finditer(states)]


class Decisions:
    """Collects what a transaction decides, and writes it in one statement."""

    __slots__ = ("_db", "_entries")

    def __init__(self, db: Db) -> None:
        self._db = db
        self._entries: dict[int, list[list[Any]]] = {}

    def add(self, notification: int, *entry: Any) -> None:
        """One entry, as the head of this module describes it."""
        self._entries.setdefault(notification, []).append(list(entry))

    def settled(
        self, notification: int, settlement: Settlement, retries: Sequence[RetryRow], parked: list[Any] | None
    ) -> None:
        """What a settlement decided that the chunk's map does not tell: nothing, where all that was settled has ended."""
        if not (retries or parked):
            return
        alike: dict[tuple[Any, ...], tuple[list[int], list[float]]] = {}
        for row in retries:
            key = (row.attempt, row.waiting, row.reason)
            positions, due = alike.setdefault(key, ([], []))
            positions.append(row.position)
            due.append(row.due_at)
        kept = [[*key, positions, due] for key, (positions, due) in alike.items()]
        self.add(notification, "settled", settlement.chunk, kept, parked)

    def write(self, now: float) -> None:
        """Store it all."""
        self._db.many(
            "INSERT INTO decision (notification, at, data) SELECT value->>0, ?2, value->1 FROM jsonb_each(?1)",
            self._entries.items(),
            now,
        )


def rows_of(db: Db, number: int, since: float = 0.0) -> list[Row]:
    """What was decided about a notification (or, below zero, a binding) from `since` on, oldest first."""
    # The texts are put together as they are: with json_group_array, which parses and writes them anew, it took twice as long.
    found: list[Row] = db.json(
        "SELECT '[' || coalesce(group_concat('[' || id || ',' || json_quote(at) || ',' || data || ']', ','), '') || ']' "
        "FROM (SELECT id, at, data FROM decision WHERE notification = ? AND at >= ? ORDER BY id)",
        number,
        since,
    )
    return found
