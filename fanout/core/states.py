"""The states in which a delivery, a notification and a waiting delivery can be. There is no other way out."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["DOUBT", "FINAL_STATES", "RETRY", "UNEXPANDED", "DeliveryState", "NotificationState", "Waiting"]


class DeliveryState(StrEnum):
    """How a delivery ends: exactly one of these."""

    ACCEPTED = "accepted"
    GONE = "gone"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"
    DEAD = "dead"


FINAL_STATES: tuple[str, ...] = tuple(state.value for state in DeliveryState)

RETRY = "retry"
"""Not final: the delivery has left its chunk for a retry row of its own."""

DOUBT = "doubt"
"""Not final: an `at_most_once` delivery marked before its only attempt. A crash turns it into dead, reason unknown."""

UNEXPANDED = "before it was expanded"
"""The reason of `expired` for an audience that was never counted: its number is 0."""


class Waiting(StrEnum):
    """Why a delivery waits: exactly one of these, or nothing at all when it is ready."""

    READY = "ready"
    SCHEDULED = "scheduled"
    BACKOFF = "backoff"
    GATE = "gate"
    BREAKER = "breaker"
    BUDGET = "budget"
    QUOTA = "quota"
    LIMITER = "limiter"
    PAUSED = "paused"
    LANE = "lane"


MENDED = (Waiting.GATE, Waiting.BREAKER, Waiting.QUOTA, Waiting.BUDGET)
"""The reasons for which a delivery no longer waits once its binding can send again."""


class NotificationState(StrEnum):
    """Where a notification stands as a whole."""

    SCHEDULED = "scheduled"
    EXPANDING = "expanding"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CANCELLED = "cancelled"
