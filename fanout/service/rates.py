"""How often each caller may make a request that costs something: token buckets by name, in bounded memory. Pure but for
the buckets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from fanout.core.rate import Rate

__all__ = ["Rates"]

_KEPT = 100_000
_MINUTE = 60.0


class Rates:
    """One bucket for each key, which holds a minute's allowance.

    A bucket that rested for a minute is full again, so it is forgotten. At most 100,000 are kept; beyond that the one
    that rested longest goes, full or not.
    """

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: OrderedDict[Hashable, tuple[Rate, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, key: Hashable, now: float) -> float:
        """After how many seconds an event of `key` may happen, as `take` last counted it; 0.0 where one may now.
        Nothing is counted."""
        found = self._buckets.get(key)
        return 0.0 if found is None else found[0].wait(now)

    def take(self, key: Hashable, per_minute: int, now: float) -> float:
        """Count one event of `key` at `now` (seconds of a clock that does not go back).

        Returns 0.0 if it may happen, else after how many seconds it may. A changed `per_minute` holds from the next
        call on.
        """
        found = self._buckets.pop(key, None)
        rate = (
            found[0] if found is not None and found[0].burst == per_minute else Rate(per_minute / _MINUTE, per_minute)
        )
        self._buckets[key] = rate, now
        while len(self._buckets) > 1:
            first, (_, used) = next(iter(self._buckets.items()))
            if now - used < _MINUTE and len(self._buckets) <= _KEPT:
                break
            del self._buckets[first]
        return rate.take(now)
