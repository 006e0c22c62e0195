"""A status as the plain JSON object that the command line and the service print."""

from __future__ import annotations

from typing import Any

from fanout.core.records import Status
from fanout.core.states import FINAL_STATES

__all__ = ["eta", "status_report"]


def status_report(status: Status, now: float) -> dict[str, Any]:
    """The status in the one shape that every interface shows. `now` and all times in it are UNIX seconds, `eta_s`
    seconds."""
    return {
        "id": status.id,
        "state": str(status.state),
        "total": status.total,
        "counts": {state: status.counts.get(state, 0) for state in ("pending", *FINAL_STATES)},
        "pending_by_reason": dict(status.pending_by_reason),
        "attempts": status.attempts,
        "accepted_at": status.accepted_at,
        "finished_at": status.finished_at,
        "oldest_pending_at": status.oldest_pending_at,
        "eta_s": eta(status, now),
    }


def eta(status: Status, now: float) -> float | None:
    """Seconds until the last delivery ends if they go on ending as fast as since the start; 0 when finished, None when
    unknown.

    It is unknown while the total is, before the first delivery has ended, and never beyond the notification's own end.
    """
    if status.finished_at is not None:
        return 0.0
    ended = sum(status.counts.get(state, 0) for state in FINAL_STATES)
    elapsed = now - max(status.accepted_at, status.due_at)
    if status.total is None or ended <= 0 or elapsed <= 0:
        return None
    left = max(0, status.total - ended)
    return round(min(left * elapsed / ended, max(0.0, status.expires_at - now)), 1)
