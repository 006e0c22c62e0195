"""Another machine's wall clock, carried on by a monotonic clock of our own. Pure."""

from __future__ import annotations

__all__ = ["carried"]


def carried(offset: float | None, told: float, before: float, after: float) -> float:
    """The difference between our monotonic seconds and that clock's UNIX seconds, now that it was read once more.

    It said `told` at some moment between `before` and `after` (our monotonic seconds: when it was asked, and when the
    answer was here), so the true offset lies between ``told - after`` and ``told - before``. The former value stays
    where it lies within those bounds, so that a slow answer moves nothing; else the nearest end takes its place, and at
    first the middle.
    """
    least, most = told - after, told - before
    if offset is None:
        return (least + most) / 2
    return min(max(offset, least), most)
