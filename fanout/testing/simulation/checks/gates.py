"""That what is closed stays closed, for as long as it was said: gates of groups and bindings, and endpoints in back-off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from fanout.plugin import Misconfigured, Scope, Throttled
from fanout.testing.simulation.checks.evidence import SLACK, Evidence, Violation
from fanout.testing.simulation.history import Attempt

__all__ = ["CHECKS"]

_FEW = 6
"""Deliveries that may be under way at once to a gate that is being probed: three are meant, and what says nothing of the gate may
make room for a few more.
"""


def closed_gates_hold(evidence: Evidence) -> Iterator[Violation]:
    """After an answer that speaks of a whole group or binding, nothing more goes there for the time that it named (or that a
    probe takes), but for what was under way.
    """
    probe = evidence.history.plan.policy.probe
    longest = evidence.history.plan.policy.retry_after_cap
    closed: dict[tuple[str, str, str | None], tuple[float, float]] = {}
    moments: list[tuple[int, bool, Attempt]] = []
    for attempt in evidence.history.attempts:
        moments.append((attempt.line, True, attempt))
        if attempt.ended is not None:
            moments.append((attempt.last_line, False, attempt))
    for _, begins, attempt in sorted(moments, key=lambda moment: moment[:2]):
        outcome = attempt.outcome
        if not begins:
            told = 0.0
            if isinstance(outcome, Throttled) and outcome.scope is not Scope.ENDPOINT:
                told = min(outcome.after or 0.0, longest)
            elif isinstance(outcome, Misconfigured):
                told = probe
            if told:
                group = attempt.group if getattr(outcome, "scope", None) is Scope.GROUP else None
                place = (attempt.node, attempt.binding, group)
                assert attempt.ended is not None
                closed[place] = max(closed.get(place, (0.0, 0.0)), (attempt.ended_wall + told, attempt.ended))
            continue
        for group in (attempt.group, None):
            until, since = closed.get((attempt.node, attempt.binding, group), (0.0, 0.0))
            wall = evidence.latest_wall(attempt.begun)
            if wall < until - SLACK and not evidence.nudged(attempt.binding, since, attempt.begun):
                text = f"{attempt.node} sent to {attempt.group or attempt.binding} {until - wall:.3f} s too early"
                yield Violation("gate", text, attempt.begun)


def told_gates_hold(evidence: Evidence) -> Iterator[Violation]:
    """What an engine says of its gates is so: after `gate.closed` nothing goes there before the time that it names."""
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in evidence.history.attempts:
        attempts[attempt.node].append(attempt)
    for line, node, event in evidence.history.live:
        if event.kind != "gate.closed":
            continue
        until, data = event.data["until"], event.data
        for attempt in attempts[node]:
            there = attempt.binding == data["binding"] and data["scope"] in ("binding", "group")
            there = there and (data["scope"] == "binding" or data["group"] == attempt.group)
            wall = evidence.latest_wall(attempt.begun)
            early = attempt.line > line and wall < until - SLACK
            if there and early and not evidence.nudged(attempt.binding, 0.0, attempt.begun):
                text = f"{node} sent to {attempt.group or attempt.binding} {until - wall:.3f} s before its gate's time"
                yield Violation("gate", text, attempt.begun)


def probes_are_few(evidence: Evidence) -> Iterator[Violation]:
    """From a gate's time until it is open again, a few deliveries at a time try whether anybody is there. What was under way before
    and is answered meanwhile makes room for as many.
    """
    closed: dict[tuple[str, str, str, str], int] = {}
    spans: list[tuple[int, int, tuple[str, str, str, str]]] = []
    for line, node, event in evidence.history.live:
        if event.kind in ("gate.closed", "gate.opened") and event.data["scope"] in ("group", "binding"):
            place = (node, event.data["binding"], event.data["scope"], event.data["group"])
            since = closed.pop(place, None)
            if since is not None:
                spans.append((since, line, place))
            if event.kind == "gate.closed":
                closed[place] = line
    for since, until, (node, binding, scope, group) in spans:
        mine = [
            attempt
            for attempt in evidence.history.attempts
            if (attempt.node, attempt.binding) == (node, binding) and (scope == "binding" or attempt.group == group)
        ]
        there = [attempt for attempt in mine if since < attempt.line < until]
        for attempt in there:
            out = sum(other.line <= attempt.line and not 0 < other.last_line <= attempt.line for other in there)
            answered = sum(other.line < since < other.last_line <= attempt.line for other in mine)
            if out > _FEW + answered:
                text = f"{node} had {out} deliveries under way to {group or binding}, whose gate was not open"
                yield Violation("gate", text, attempt.begun)


def held_endpoints_wait(evidence: Evidence) -> Iterator[Violation]:
    """While an endpoint is in back-off because of one delivery, its others wait too: but for urgent ones, and those in hand."""
    holds: dict[int, list[tuple[int, float, str]]] = defaultdict(list)
    for stored in evidence.settlements:
        if stored.settled.stale or stored.lease is None:
            continue
        for row in stored.settlement.retries:
            if row.holds:
                endpoint = stored.lease.ids[row.position]
                holds[endpoint].append((stored.commit, row.due_at, stored.lease.notification))
    for attempt in evidence.history.attempts:
        lease, stored_as = evidence.lease_of(attempt), evidence.submissions.get(attempt.notification)
        if lease is None or stored_as is None or stored_as[0].lane == 0:
            continue
        for commit, due_at, notification in holds[attempt.endpoint]:
            if notification == attempt.notification or commit >= lease.commit:
                continue
            wall = evidence.latest_wall(attempt.begun)
            if wall < due_at - SLACK and not _freed(evidence, attempt, commit, notification):
                text = f"{attempt.node} sent {attempt.notification} to endpoint {attempt.endpoint}"
                yield Violation("held", f"{text}, which was in back-off for {due_at - wall:.3f} s more", attempt.begun)


def _freed(evidence: Evidence, attempt: Attempt, commit: int, notification: str) -> bool:
    """Whether the back-off ended before its time: the gateway took something, or what waited was stopped."""
    taken = any(
        other.endpoint == attempt.endpoint and evidence.accepted(other) and other.last_line < attempt.line
        for other in evidence.history.attempts
        if other.commits > commit
    )
    status = evidence.history.rest[notification].status
    stopped = status is not None and any(status.counts.get(state) for state in ("cancelled", "superseded", "expired"))
    return taken or stopped


CHECKS = (closed_gates_hold, told_gates_hold, probes_are_few, held_endpoints_wait)
