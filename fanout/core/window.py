"""The number of deliveries that a worker leases ahead: few enough that idle workers find the rest, and enough that its
connections never wait. Pure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["LEAST", "MOST", "excess", "next_window", "room"]

LEAST = 64
"""Deliveries of a lane that may wait in a worker, however few its connections take at once."""
MOST = 4000
"""And at most, however fast it is; twice the capacity of the connections where that is more."""
_EACH = 32
"""For each gateway that has deliveries, where they are more than two: else a lease would be of a few deliveries."""
_SLOW = 0.5
"""Seconds for which a window may last before it is too large."""


def least(limit: int, gateways: int) -> int:
    """The smallest window of connections that take `limit` deliveries at once, to so many gateways."""
    return max(LEAST, 2 * limit, _EACH * gateways)


def next_window(size: int, limit: int, gateways: int, *, emptied: bool, lasted: float) -> int:
    """The window of a lane for its next round. It doubles where the last round was used up before the next one came
    (`emptied`), and halves where it lasted for long: `lasted` is in seconds, infinite where storage had no more for
    it."""
    if lasted > _SLOW:
        size //= 2
    elif emptied:
        size *= 2
    return max(least(limit, gateways), min(size, MOST))


def room(window: int, waiting: Sequence[int], stuck: int) -> int:
    """How many deliveries to lease. `waiting` are those of each gateway that answers, `stuck` those of gateways that do
    not.

    No gateway counts for more than its part of the window, so that a slow one does not use up the part of the others;
    stuck deliveries count for nothing, up to `MOST`. Less than half a gateway's part is not worth a lease.
    """
    share = window // max(1, len(waiting))
    free = min(window - sum(min(each, share) for each in waiting), max(MOST, window) - sum(waiting) - stuck)
    return free if free >= max(1, share // 2) else 0


def excess(queued: int, limit: int, sent: float) -> int:
    """How many of `queued` deliveries idle workers could begin sooner. `sent` is the number that this worker sends in a
    second."""
    return max(0, queued - max(LEAST // 2, limit, int(sent)))
