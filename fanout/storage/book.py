"""The results of a transaction, collected before they are written: chunks' maps, sums and tallies, and the end of a
notification."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fanout.core.statemap import Applied, Codes
from fanout.core.states import FINAL_STATES, NotificationState
from fanout.storage.packing import dumps

__all__ = ["Book", "Change", "end_texts", "ending"]


@dataclass(slots=True)
class Change:
    """The increments of the sums of one notification; `ended` by code."""

    settled: int = 0
    total: int = 0
    attempts: int = 0
    expansions: int = 0
    ended: dict[int, int] = field(default_factory=dict)


class Book:
    """`codes` are the notifications' lists; a notification that is not among them may get sums but no ends.

    `maps` are the chunks that changed: the map, how many are open, and whether some ended.
    """

    def __init__(self, codes: dict[int, Codes] | None = None) -> None:
        self.codes = codes if codes is not None else {}
        self.changes: dict[int, Change] = {}
        self.maps: dict[int, tuple[bytes, int, bool]] = {}
        self.releases: list[tuple[int, float, str]] = []
        """(chunk, due at, waiting) of those that are given back."""
        self.parts: list[tuple[int, int, int]] = []
        """(chunk, crashes, part) of those whose worker was lost."""

    def of(self, notification: int) -> Change:
        """The sums of one notification, to be added to."""
        return self.changes.setdefault(notification, Change())

    def conclude(self, notification: int, chunk: int, applied: Applied) -> None:
        """A chunk has a new map. Without an open delivery it is done, and has no lease."""
        ended = bool(applied.ended) or (chunk in self.maps and self.maps[chunk][2])
        self.maps[chunk] = (applied.states, applied.open, ended)
        self.count(notification, applied)

    def count(self, notification: int, applied: Applied) -> None:
        """These deliveries have ended."""
        change = self.of(notification)
        for code, n in applied.ended.items():
            change.ended[code] = change.ended.get(code, 0) + n
            change.settled += n

    def tallies(self) -> list[tuple[int, int, str, str, int]]:
        """(notification, code, state, reason, how many more) of ended deliveries."""
        return [
            (id, code, *self.codes[id].pair(code), n)
            for id, change in self.changes.items()
            for code, n in change.ended.items()
        ]

    def sums(self) -> list[tuple[int, int, int, int, int]]:
        """(notification, settled, total, attempts, expansions) to be added, where that is not nothing."""
        return [
            (id, change.settled, change.total, change.attempts, change.expansions)
            for id, change in self.changes.items()
            if change.settled or change.total or change.attempts or change.expansions
        ]


def ending(uuid: str, total: int, stopped: str, ended: Iterable[tuple[str, str, int]]) -> dict[str, Any]:
    """The data of the event `notification.finished`; `ended` is how many ended in which (state, reason)."""
    counts = {"pending": 0} | dict.fromkeys(FINAL_STATES, 0)
    for state, _, n in ended:
        counts[state] += n
    state = NotificationState.CANCELLED if stopped else NotificationState.DONE
    return {"notification": uuid, "state": state.value, "total": total, "counts": counts}


@lru_cache(maxsize=1024)
def end_texts(state: str, reason: str, count: int) -> tuple[bytes, str]:
    """The map of a chunk of which so many ended alike, and the event of it without the beginning, which has the
    notification's id."""
    return b"\x01" * count, dumps(ending("", count, "", [(state, reason, count)])).removeprefix('{"notification":""')
