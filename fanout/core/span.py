"""Instants of our own making, kept as two times, of writing and of the end: the rest of one is never longer than its
first duration.

The clock may be set back in between. Then an instant that was written by the clock as it was would lie hours ahead; but
it was meant as a duration, and a duration is known: `until - since`. Pure; all times are UNIX seconds.
"""

from __future__ import annotations

__all__ = ["ends_at", "outlived"]


def outlived(since: float, until: float, now: float) -> bool:
    """Whether an entry that was written at `since`, and good until `until`, is over.

    Also where it was written later than `now` by more than it was good for: the clock was set back since.
    """
    return until <= now or since - now >= until - since


def ends_at(since: float, until: float, now: float) -> float:
    """When it is over, as far as is known at `now`: at `until`, and never further off than it was when it was
    written."""
    return now if outlived(since, until, now) else min(until, now + (until - since))
