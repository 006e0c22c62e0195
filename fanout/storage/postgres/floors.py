"""From where on due chunks are looked for, while an old transaction keeps the index entries of earlier leases from
removal.

Each lease leaves an entry behind in the index by which due chunks are found, and as long as any transaction might still
want to see it (a report, a backup, a forgotten console) vacuum may not remove it: every look from the beginning steps
over all of them, half a microsecond each. So it is counted now and then how many those were. Where they are many, looks
begin a few seconds before now, but for one from time to time, which finds older chunks that have become due again.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BEGINNING", "Floors"]

BEGINNING = float("-inf")

_BEHIND = 5.0
"""Seconds before now from which even a hasty look begins."""
_EVERY = 5.0
"""Seconds between two looks from the beginning that are counted."""
_MANY = 2000
"""Entries stepped over from which it is worth while: about a millisecond."""


@dataclass(slots=True)
class _Place:
    many: bool = False
    next_at: float = BEGINNING


class Floors:
    """By binding and lane: since when (callers' time) due chunks are looked for. `clock` is monotonic seconds."""

    def __init__(self) -> None:
        self._places: dict[tuple[int, int], _Place] = {}

    def floor(self, binding: int, lane: int, now: float, clock: float) -> float:
        """From when on to look; `BEGINNING` for all of it."""
        pair = self._places.get((binding, lane))
        return now - _BEHIND if pair is not None and pair.many and clock < pair.next_at else BEGINNING

    def counts(self, binding: int, lane: int, clock: float) -> bool:
        """Whether it is time to count the entries that a look from the beginning steps over."""
        pair = self._places.get((binding, lane))
        return pair is None or clock >= pair.next_at

    def counted(self, binding: int, lane: int, clock: float, passed: int) -> None:
        """A look stepped over so many entries."""
        self._places[binding, lane] = _Place(passed >= _MANY, clock + _EVERY)
