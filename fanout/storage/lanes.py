"""In which lane a row stands: its notification's own, the one of the paused, or the one of chunks that wait for their
turn.

Workers look in the lanes of notifications, 0 to 2. A row elsewhere keeps its times and costs no worker a look, were
there a million of it. A paused row stands at the bitwise complement of its lane, below zero. A chunk that waits for its
turn (`fanout.storage.chunks`) stands `WAITS` above its lane; both together are the complement of that. Texts are of
SQL, for tables with a column `lane`.
"""

from __future__ import annotations

from fanout.core.model import LANES

__all__ = ["FLIP", "IN_TURN", "LET_GO", "NOT_PAUSED", "OF_WORKERS", "OF_WORKERS_OR_PAUSED", "PAUSED", "WAITS", "waits"]

WAITS = 4
"""The number that is added to the lane of a chunk that waits for its turn."""

_OWN = range(len(LANES))
OF_WORKERS = f"lane IN ({', '.join(map(str, _OWN))})"
OF_WORKERS_OR_PAUSED = f"lane IN ({', '.join(map(str, range(~_OWN[-1], len(LANES))))})"
"""Not of chunks that wait for their turn: these have never been leased."""
PAUSED = "lane < 0"
NOT_PAUSED = "lane >= 0"
FLIP = "lane = ~lane"
"""An assignment: from a lane to that of the paused, and back."""
IN_TURN = f"lane >= {WAITS}"
"""That the chunk waits for its turn."""
LET_GO = f"lane = lane - {WAITS}"
"""An assignment: the turn has come."""


def waits(lane: int) -> bool:
    """Whether a chunk in this lane, which is not paused, waits for its turn."""
    return lane >= WAITS
