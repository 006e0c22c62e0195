"""The decisions about deliveries that no other table remembers, an entry list for each notification that a transaction
decided about.

It is kept as JSON, a list of entries, each led by its kind; deliveries are named by their position in the chunk:

    ["settled", chunk, retries, parked]       a settlement that made retry rows or gave the chunk back
      retries: [[attempt, waiting, reason, positions, due times], ...]
      parked: null, or [due time, waiting, reason, *lease]
    ["lost", chunk, suspected positions, doubtful positions, *lease]
      lease, of the one that ended with that: worker, leased at, leased after, ranges of the deliveries still open
    ["paused"] and ["resumed"], of the notification; of a binding, where its number below zero stands in place of one
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fanout.core.records import RetryRow, Settlement
from fanout.core.statemap import UNSETTLED

__all__ = ["Entries", "Row", "ranges"]

Row = list[Any]
"""[its number, when it was stored (UNIX seconds), the entries]."""

_UNSETTLED = re.compile(b"[" + re.escape(bytes(sorted(UNSETTLED))) + b"]+")


def ranges(states: bytes) -> list[tuple[int, int]]:
    """The runs of positions, first and last, that have not ended."""
    return [(found.start(), found.end() - 1) for found in _UNSETTLED.finditer(states)]


class Entries:
    """Collects a transaction's decisions. `by_notification` are the entries to store."""

    __slots__ = ("by_notification",)

    def __init__(self) -> None:
        self.by_notification: dict[int, list[list[Any]]] = {}

    def add(self, notification: int, *entry: Any) -> None:
        """One entry, as the head of this module describes it."""
        self.by_notification.setdefault(notification, []).append(list(entry))

    def settled(
        self, notification: int, settlement: Settlement, retries: Sequence[RetryRow], parked: list[Any] | None
    ) -> None:
        """The decisions of a settlement that the chunk's map does not tell: none, where all that was settled has
        ended."""
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
