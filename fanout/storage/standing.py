"""How a notification stands, from a database's counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fanout.core.records import Settled, Status
from fanout.core.states import FINAL_STATES, UNEXPANDED, DeliveryState, NotificationState, Waiting

__all__ = ["Sums", "finals", "status_of", "waiting_for"]

_READY = Waiting.READY.value
_PAUSED = Waiting.PAUSED.value
_LANE = Waiting.LANE.value
_CANCELLED = NotificationState.CANCELLED.value
_DONE = NotificationState.DONE.value
_NONE = {"pending": 0} | dict.fromkeys(FINAL_STATES, 0)


@dataclass(slots=True)
class Sums:
    """A notification's row, whether it is `scheduled`, and how many `ended` in (state, reason). `unexpanded`: it
    expired before all of its audience was counted."""

    app: str
    total: int = 0
    settled: int = 0
    expansions: int = 0
    attempts: int = 0
    stopped: str = ""
    paused: bool = False
    accepted_at: float = 0.0
    due_at: float = 0.0
    expires_at: float = 0.0
    finished_at: float | None = None
    scheduled: bool = False
    unexpanded: bool = False
    ended: Sequence[tuple[str, str, int]] = ()


def waiting_for(
    paused: bool,
    chunks: Iterable[tuple[int, bool, bool, str, int]],
    retries: Iterable[tuple[int, str, int]],
    due_retries: Iterable[tuple[int, str, int]],
    paused_bindings: Iterable[int],
    gates: Iterable[tuple[float, int, str]],
) -> dict[str, int]:
    """How many deliveries wait, by waiting reason.

    `chunks` are (binding, under a running lease, due, waiting, how many), `retries` (binding, waiting, how many) of all
    and of those that are due, `gates` (until, binding, waiting) of those that cover all of a binding.
    """
    # Of a binding's gates, the one that is closed until latest has the word.
    before = {binding: waiting for _, binding, waiting in sorted(gates)} | dict.fromkeys(paused_bindings, _PAUSED)
    pending: Counter[str] = Counter()

    def count(binding: int, due: bool, waiting: str, n: int) -> None:
        """Count deliveries without a lease, by their waiting reason."""
        own = _LANE if due else waiting
        pending[_PAUSED if paused else before.get(binding, own)] += n

    for binding, worker, due, waiting, n in chunks:
        if worker:
            pending[_READY] += n
        else:
            count(binding, due, waiting, n)
    due_of = {(binding, waiting): n for binding, waiting, n in due_retries}
    for binding, waiting, n in retries:
        ripe = due_of.get((binding, waiting), 0)
        count(binding, True, waiting, ripe)
        count(binding, False, waiting, n - ripe)
    return dict(+pending)


def status_of(uuid: str, sums: Sums, pending: dict[str, int]) -> Status:
    """The status, with the words of `status --json`."""
    counts, reasons = _tallied(sums.total - sums.settled, sums.ended, sums.unexpanded)
    total, state = None if sums.expansions else sums.total, _state(sums)
    times = (sums.accepted_at, sums.due_at, sums.expires_at, sums.finished_at)
    oldest = sums.due_at if sums.finished_at is None else None
    return Status(uuid, sums.app, state, total, counts, pending, reasons, sums.attempts, *times, oldest)


def _tallied(
    pending: int, ended: Iterable[tuple[str, str, int]], unexpanded: bool
) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    counts = {**_NONE, "pending": pending}
    reasons: dict[str, dict[str, int]] = {}
    for state, reason, n in ended:
        counts[state] += n
        reasons.setdefault(state, {})[reason] = n
    if unexpanded:
        reasons.setdefault(DeliveryState.EXPIRED.value, {})[UNEXPANDED] = 0
    return counts, reasons


def finals(rows: Iterable[Sequence[Any]], now: float) -> dict[int, Settled]:
    """The answers to the settlements that have finished notifications at `now`, by number.

    A row is (number, app's number, id, total, stopped, [(state, reason, how many)], app, attempts, whether it expired
    unexpanded, accepted at, due at, expires at).
    """
    found = {}
    for number, _, uuid, total, stopped, ended, app, attempts, unexpanded, accepted_at, due_at, expires_at in rows:
        counts, reasons = _tallied(0, ended, unexpanded)
        state, times = _CANCELLED if stopped else _DONE, (accepted_at, due_at, expires_at, now, None)
        found[number] = Settled(False, uuid, Status(uuid, app, state, total, counts, {}, reasons, attempts, *times))
    return found


def _state(sums: Sums) -> str:
    if sums.stopped:
        return _CANCELLED
    if sums.finished_at is not None:
        return _DONE
    if sums.paused:
        return NotificationState.PAUSED.value
    if sums.scheduled:
        return NotificationState.SCHEDULED.value
    return NotificationState.EXPANDING.value if sums.expansions else NotificationState.RUNNING.value
