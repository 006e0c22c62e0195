"""That nothing is taken twice without a reason that the promise allows: a crash, a pause, an answer that was lost."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from fanout_kit.simulation.checks.evidence import SLACK, Evidence, Violation
from fanout_kit.simulation.history import Attempt

__all__ = ["CHECKS"]

_COMMIT = 0.5
"""Seconds beyond the checkpoint in which a result must be stored: several times the slowest disk's two turns."""


def no_attempt_after_the_end(evidence: Evidence) -> Iterator[Violation]:
    """Once an end is stored, no worker tries again."""
    for key, attempts in evidence.attempts.items():
        ends = evidence.ends.get(key)
        for attempt in attempts:
            if ends and ends[0].commit < attempt.commits and not evidence.out_of_step(attempt):
                text = f"{attempt.node} sent {key[0]} to endpoint {key[1]} after it had ended as {ends[0].state}"
                yield Violation("repeat", text, attempt.begun)


def accepted_is_remembered(evidence: Evidence) -> Iterator[Violation]:
    """An acceptance is stored within a checkpoint, unless its process died or lost its lease before."""
    for attempt in evidence.history.attempts:
        if evidence.accepted(attempt) and not evidence.recorded(attempt):
            trouble = _forgotten(evidence, attempt)
            if trouble:
                text = f"{attempt.node} forgot that {attempt.notification} was accepted for endpoint {attempt.endpoint}"
                yield Violation("repeat", f"{text}: {trouble}", attempt.ended)


def _forgotten(evidence: Evidence, attempt: Attempt) -> str:
    """The facts against an excuse for not having stored it."""
    history = evidence.history
    life, lease = history.lives[attempt.node], evidence.lease_of(attempt)
    assert attempt.ended is not None
    end = life.died if life.died is not None else history.ended
    if lease is not None and (lease.lost or lease.taken_over is not None):
        slow = life.stood_still(lease.at, end) > 0 or life.end == "crash" or lease.by_an_old_clock
        ahead = any(lease.at <= when <= end and seconds > 0 for when, seconds in history.jumps)
        stuck = any(begin <= end and to >= lease.at for begin, to in history.full)
        return "" if slow or ahead or stuck else "its lease was taken over although it was never late"
    if life.end == "crash":
        late = end - attempt.ended - life.stood_still(attempt.ended, end)
        full = sum(max(0.0, min(end, to) - max(attempt.ended, begin)) for begin, to in history.full)
        if late <= history.plan.policy.checkpoint + full + (1.0 if full else 0.0) + _COMMIT:
            return ""
        return f"it had {late:.3f} s before it was killed"
    if life.end == "stop" and any(begin < end and to > attempt.ended for begin, to in history.full):
        return ""  # it was told to end while the disk was full, and does not wait for ever
    return "nothing kept it from storing it"


def nothing_taken_unawares(evidence: Evidence) -> Iterator[Violation]:
    """An attempt that is held to be not sent was not taken: unless its gateway disowned it by a GOAWAY."""
    for attempts in evidence.attempts.values():
        arrivals = evidence.arrivals.get(attempts[0].delivery, [])
        taken = sum(arrival.accepted and not arrival.disowned for arrival in arrivals)
        known = sum(evidence.accepted(attempt) or evidence.doubtful(attempt) for attempt in attempts)
        if taken > known:
            text = f"{attempts[0].notification} was taken {taken} times for endpoint {attempts[0].endpoint}"
            yield Violation("repeat", f"{text}, and its workers know of {known}", arrivals[-1].at)


def doubt_is_respected(evidence: Evidence) -> Iterator[Violation]:
    """`at_most_once`: after an attempt that may have been taken there is no other. `prefer_once`: none by the same
    worker."""
    for key, attempts in evidence.attempts.items():
        stored = evidence.submissions.get(key[0])
        repeat = stored[0].repeat if stored is not None else "prefer_delivery"
        if repeat == "prefer_delivery":
            continue
        for earlier, later in pairwise(attempts):
            open_ended = evidence.accepted(earlier) or evidence.doubtful(earlier)
            learned = earlier.ended is not None and earlier.ended <= later.begun + SLACK and earlier.node == later.node
            if open_ended and (repeat == "at_most_once" or (learned and not _lost(evidence, earlier))):
                text = f"{key[0]} ({repeat}) was sent again to endpoint {key[1]} after an attempt in doubt"
                yield Violation("repeat", text, later.begun)


def _lost(evidence: Evidence, attempt: Attempt) -> bool:
    lease = evidence.lease_of(attempt)
    return lease is not None and (lease.lost or lease.taken_over is not None)


def one_key_one_notification(evidence: Evidence) -> Iterator[Violation]:
    """The same idempotency key gives the same notification, however often and wherever it is sent."""
    ids: dict[str, str] = {}
    for request in evidence.requests("send"):
        key = request.data.get("key")
        if key is not None and ids.setdefault(key, request.result.id) != request.result.id:
            text = f"the key {key} gave {ids[key]} and then {request.result.id}"
            yield Violation("repeat", text, request.returned)


CHECKS = (
    no_attempt_after_the_end,
    accepted_is_remembered,
    nothing_taken_unawares,
    doubt_is_respected,
    one_key_one_notification,
)
