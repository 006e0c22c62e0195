"""The mutual knowledge of the workers of one database, and the division of a rate among them. Pure.

A worker says about once a second that it lives. Its leases of chunks and its parts of a rate are good while the
others count it as alive. When its heartbeat has run out, they are free for the others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from fanout.core.span import outlived

__all__ = ["Part", "SharedToken", "WorkerNote", "fair", "forsaken", "grant", "outlived", "strays", "supersedes"]

Call = tuple[int, int]
"""A lease call under way: which dispatcher's, and the how manieth of its calls."""
_AHEAD = 1.0
"""Seconds by which another process may be ahead of this one: both go by one clock, as each has read it last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerNote:
    """A worker, as it says of itself with each beat. Times are UNIX seconds.

    Attributes:
        id, host, pid, version: The worker's id, its machine and process, and the version of the distribution.
        started_at: The time of its start.
        bindings: The bindings that it serves, written app/binding.
        seen_at, until: The time at which it was last heard of, and the end of the time for which it counts as alive;
            set by storage.
        leases: The number of chunks that it holds; set by storage.
    """

    id: str
    host: str
    pid: int
    version: str
    started_at: float
    bindings: tuple[str, ...] = ()
    seen_at: float = 0.0
    until: float = 0.0
    leases: int = 0


@dataclass(frozen=True, slots=True)
class SharedToken:
    """A bearer token that all workers present.

    Attributes:
        text: The token.
        made_at: The time at which it was made, in UNIX seconds.
        expires_at: The time from which on it is worthless, in UNIX seconds.
    """

    text: str
    made_at: float
    expires_at: float

    def from_the_future(self, now: float) -> bool:
        """Whether a clock that was ahead made it, and was put right since: such a token is adopted by no worker.

        Args:
            now: The present time, in UNIX seconds by the storage's clock.

        Returns:
            Whether the token was made more than a second after `now`.
        """
        return self.made_at > now + _AHEAD

    def __repr__(self) -> str:
        return f"SharedToken(<hidden>, made_at={self.made_at:g}, expires_at={self.expires_at:g})"


@dataclass(frozen=True, slots=True)
class Part:
    """One worker's part of a rate: `counted` may be in use by it at this moment, `demand` is the amount that it could
    use."""

    counted: float
    demand: float


def fair(rate: float, demands: Sequence[float]) -> list[float]:
    """The parts of `rate` for these demands, max-min fair: no worker gets more than it could use, and its remainder
    goes to the others in equal parts (Bertsekas and Gallager, Data Networks, section 6.5.2). A demand may be
    infinite."""
    parts = [0.0] * len(demands)
    left = rate
    for done, index in enumerate(sorted(range(len(demands)), key=demands.__getitem__)):
        parts[index] = min(max(0.0, demands[index]), left / (len(demands) - done))
        left = max(0.0, left - parts[index])
    return parts


def grant(rate: float, demand: float, others: Iterable[Part]) -> float:
    """A worker's part of `rate`: its fair part, and no more than the others leave of it at this moment.

    So a newcomer begins with the remaining part; as the others renew, they come down to their fair parts, and it comes
    up to its own.
    """
    others = list(others)
    mine = fair(rate, [demand, *(each.demand for each in others)])[0]
    return max(0.0, min(mine, rate - math.fsum(each.counted for each in others)))


def forsaken(seen_at: float, until: float, now: float, late: float) -> bool:
    """Whether to bury such a worker, for a worker that asked at `now`, `late` seconds ago: it had outlived its
    heartbeat then, and has still.

    A worker that stood still after asking would take the beats that came meanwhile for those of a clock ahead of its
    own.
    """
    return outlived(seen_at, until, now) and outlived(seen_at, until, now + max(0.0, late))


def strays(
    named: Iterable[tuple[int, int]],
    in_hand: Collection[tuple[int, int]],
    awaited: Mapping[tuple[int, int], Set[Call]],
    calls: Set[Call],
) -> tuple[list[tuple[int, int]], dict[tuple[int, int], Set[Call]]]:
    """Of the leases (chunk, epoch) that storage has `named` as a worker's, those that it does not have and will not
    get; and, of the others that are not `in_hand`, which of its lease calls may still answer with each: the `awaited`
    of the next look.

    `calls` are under way now. Only one that was under way when a lease was first seen can have made it, for a lease is
    seen once it is committed. A call that has ended has put the leases of its answer into the hand, and one whose
    answer was lost never will.
    """
    lost: list[tuple[int, int]] = []
    unsure: dict[tuple[int, int], Set[Call]] = {}
    for lease in named:
        if lease in in_hand:
            continue
        if asked := awaited.get(lease, calls) & calls:
            unsure[lease] = asked
        else:
            lost.append(lease)
    return lost, unsure


def supersedes(standing: SharedToken | None, now: float, spacing: float) -> bool:
    """Whether a token offered at `now` takes the place of the standing one: not where that was made less than `spacing`
    seconds ago.

    Nor where it was made a little later than `now`: another machine's clock is ahead, and it is the gateway's that
    counts.
    """
    return standing is None or standing.expires_at <= now or abs(now - standing.made_at) >= spacing
