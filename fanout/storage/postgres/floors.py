"""From where on due chunks are looked for, while an old transaction keeps the server from clearing away what was leased before.

Each lease leaves an entry behind in the index by which due chunks are found, and as long as somebody's transaction might still want to see
it (a report, a backup, a forgotten console) vacuum may not remove it: every look from the beginning steps over all of them. Where looks have
become slow, most of them begin a minute before now. What is older than that and still to be leased is found by the looks from the
beginning that there are in between, which take two hundredths of the time.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BEGINNING", "Floors"]

BEGINNING = float("-inf")

_BEHIND = 60.0
"""Seconds before now from which even a hasty look begins."""
_SLOW = 0.02
"""Seconds from which a look from the beginning counts as slow."""
_IN_A_ROW = 3
"""Slow looks until the next ones are hasty: a single one may have many reasons."""
_REST = 50.0
"""So many times what it took is the pause until the next look from the beginning."""


@dataclass(slots=True)
class _Place:
    slow: int = 0
    whole_at: float = BEGINNING


class Floors:
    """By binding and lane: since when (callers' time) due chunks are looked for. `clock` is monotonic seconds."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], _Place] = {}

    def floor(self, binding: int, lane: int, now: float, clock: float) -> float:
        """From when on to look; `BEGINNING` for all of it."""
        place = self._places.get((binding, lane))
        if place is None or place.slow < _IN_A_ROW or clock >= place.whole_at:
            return BEGINNING
        return now - _BEHIND

    def looked(self, binding: int, lane: int, clock: float, took: float) -> None:
        """A look from the beginning took so many seconds, until `clock`."""
        place = self._places.setdefault((binding, lane), _Place())
        place.slow = place.slow + 1 if took >= _SLOW else 0
        place.whole_at = clock + _REST * took
