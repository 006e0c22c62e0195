"""The time until which this worker may assume that the other workers count it as alive."""

from __future__ import annotations

import math

__all__ = ["Pulse"]


class Pulse:
    """In monotonic seconds; for ever where no other process can share the work.

    Nothing is sent under a lease beyond it, for the others may have taken the lease over. Kept apart from `Membership`,
    which moves it, because dispatchers and upkeep need no more of that than this.
    """

    __slots__ = ("heartbeat_deadline",)

    def __init__(self) -> None:
        self.heartbeat_deadline = math.inf
