"""Which lane goes next: deficit round robin over urgent, normal and bulk, counted in deliveries."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.model import LANES

__all__ = ["WEIGHTS", "Lanes"]

WEIGHTS = (16, 4, 1)
"""Shares of `LANES` while all have work. None ever starves: even bulk gets a 21st part."""

_QUANTUM = 250
"""Deliveries per weight and round: a quarter of a chunk, so that a whole bulk chunk takes four rounds to earn."""


class Lanes:
    """The deficit counters of one binding's lanes (Shreedhar and Varghese, 1995)."""

    __slots__ = ("_deficit",)

    def __init__(self) -> None:
        self._deficit = [0.0] * len(LANES)

    def order(self) -> Sequence[int]:
        """The lanes by the deliveries that they are owed, most first; ties go to the more urgent."""
        return sorted(range(len(LANES)), key=lambda lane: (-self._deficit[lane], lane))

    def took(self, lane: int, deliveries: int, waiting: Sequence[bool]) -> None:
        """`lane` was given `deliveries`; `waiting` says which lanes (still) have work. Idle lanes save nothing up."""
        self._deficit[lane] -= deliveries
        if all(self._deficit[i] <= 0 for i in range(len(LANES)) if waiting[i]):
            for i, weight in enumerate(WEIGHTS):
                self._deficit[i] = self._deficit[i] + weight * _QUANTUM if waiting[i] else 0.0
