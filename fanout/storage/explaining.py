"""Explain: every decision about one delivery, put together from its chunks and from the rows of `decisions`."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from fanout.core.records import Step
from fanout.core.statemap import DOUBTFUL, MARKED, OPEN, RETRIED
from fanout.core.states import Waiting
from fanout.storage.decisions import Row
from fanout.storage.packing import unpack

__all__ = ["Place", "explained"]

_NOT_ENDED = (OPEN, MARKED, DOUBTFUL, RETRIED)

_Placed = tuple[tuple[float, int, int], Step]
"""A step, and where it stands among the others: its time, the last decision before it (its own, if it is one), and
whether it stands there as a decision (0), a new chunk (1) or a lease (2)."""


@dataclass(slots=True)
class Place:
    """One chunk that the delivery is or was in, at `position`; `code` is its byte of the map. `created_after` and
    `leased_after` are numbers of the decisions before that, or of the same sequence."""

    position: int
    code: int
    chunk: int
    binding: int
    attempt: int
    held: int
    created_at: float | None
    created_after: int | None
    settled_at: float | None
    worker: str | None
    leased_at: float | None
    leased_after: int | None

    @classmethod
    def find(cls, endpoint: int, states: bytes, packed: bytes, *about: Any) -> Self | None:
        """The place in a chunk of this map and these packed ids, or None where the endpoint is not among them."""
        ids = unpack(packed)
        position = bisect_left(ids, endpoint)
        if position < len(ids) and ids[position] == endpoint:
            return cls(position, states[position], *about)
        return None


def explained(
    accepted_at: float,
    due_at: float,
    places: Sequence[Place],
    log: Sequence[Row],
    pauses: Sequence[Row],
    pair: Callable[[int], tuple[str, str]],
) -> list[Step]:
    """The decisions about the delivery that is or was in these `places`, oldest first.

    `log` are the decisions about its notification, `pauses` those about its binding since `accepted_at`; `pair` tells
    (state, reason) of a code.
    """
    placed = _queued(places[0])
    last: list[Step] = []
    for where in places:
        steps, ended_by = _in_chunk(where, log)
        placed += steps
        if where.code not in _NOT_ENDED:
            state, reason = pair(where.code)
            times = [at for at in (ended_by, where.settled_at) if at is not None]
            last.append(Step(min(times, default=accepted_at), "ended", reason, where.attempt, state=state))
    for number, at, entries in (*log, *pauses):
        whats = (what for what, *rest in entries if not rest)
        placed += [((at, number, 0), Step(at, what)) for what in whats if not last or at <= last[0].at]
    first = Step(accepted_at, "accepted")
    if due_at > accepted_at:
        first = Step(accepted_at, "accepted", until=due_at, waiting=Waiting.SCHEDULED.value)
    return [first, *(step for _, step in sorted(placed, key=lambda each: each[0])), *last]


def _queued(place: Place) -> list[_Placed]:
    """That its first chunk was made. A chunk of the first schema does not know when."""
    if place.created_at is None:
        return []
    waiting = Waiting.LANE.value if place.held else ""
    at = (place.created_at, place.created_after or 0, 1)
    return [(at, Step(place.created_at, "queued", attempt=place.attempt, waiting=waiting))]


def _in_chunk(place: Place, log: Sequence[Row]) -> tuple[list[_Placed], float | None]:
    """The history of the delivery in this chunk, and by when it had ended, as far as the log says."""
    steps: list[_Placed] = []
    attempt = place.attempt

    seen: set[tuple[float, int | None]] = set()

    def leased(worker: str | None, at: float | None, after: int | None) -> None:
        if at is not None and (at, after) not in seen:
            seen.add((at, after))
            steps.append(((at, after or 0, 2), Step(at, "leased", attempt=attempt, worker=worker or "")))

    for number, at, entry in _entries(place.chunk, log):
        here = (at, number, 0)
        lease: list[Any] | None = None
        if entry[0] == "settled":
            retries, parked = entry[2:]
            steps += [(here, step) for step in _retry(at, retries, place)]
            if parked is None:
                continue
            due_at, waiting, reason, *lease = parked
            steps_if_open = [Step(at, "released", reason, attempt, due_at, waiting=waiting)]
            over = False
        else:
            suspected, doubtful, *lease = entry[2:]
            steps_if_open = [Step(at, "taken over", attempt=attempt, worker=lease[0])]
            if place.position in suspected:
                steps_if_open.append(Step(at, "suspected", attempt=attempt))
            over = place.position in suspected or place.position in doubtful
        worker, leased_at, leased_after, still_open = lease
        leased(worker, leased_at, leased_after)
        if not any(first <= place.position <= last for first, last in still_open):
            return steps, at
        steps += [(here, step) for step in steps_if_open]
        if over:
            return steps, at
    leased(place.worker, place.leased_at, place.leased_after)
    return steps, None


def _entries(chunk: int, log: Sequence[Row]) -> Iterator[tuple[int, float, list[Any]]]:
    for number, at, entries in log:
        for entry in entries:
            if len(entry) > 1 and entry[1] == chunk:
                yield number, at, entry


def _retry(at: float, groups: Sequence[Any], place: Place) -> Iterator[Step]:
    """That it left for a retry row of its own, if it did: for another attempt, or behind one that holds its
    endpoint."""
    for attempt, waiting, reason, positions, times in groups:
        if place.position in positions:
            what = "retry" if attempt > place.attempt else "held"
            yield Step(at, what, reason, attempt, times[positions.index(place.position)], waiting=waiting)
