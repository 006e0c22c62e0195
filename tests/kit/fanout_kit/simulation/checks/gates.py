"""That a closed gate stays closed, for as long as it was said: gates of groups and bindings, and endpoints in
back-off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from fanout.plugin import Scope, Throttled
from fanout_kit.simulation.checks.evidence import SLACK, Evidence, Violation
from fanout_kit.simulation.history import Attempt

__all__ = ["CHECKS"]

_FEW = 6
"""Deliveries that may be under way at once to a gate that is being probed: three are meant, and an answer that says
nothing of the gate may make room for a few more.
"""


def accused_scopes_wait(evidence: Evidence) -> Iterator[Violation]:
    """After an answer that speaks of a whole group or binding and names a time, nothing more goes to that endpoint
    before it. Where an endpoint and a notification that had no part in the first answer say so too, and nothing was
    accepted there between, nothing more goes to the group or binding, but for deliveries under way. An urgent one may
    go to an endpoint that waits alone.
    """
    longest = evidence.history.plan.policy.retry_after_cap
    alone: dict[tuple[str, str, int], tuple[float, float]] = {}
    closed: dict[tuple[str, str, str | None], tuple[float, float]] = {}
    said: dict[tuple[str, str, str | None], list[Attempt]] = defaultdict(list)
    moments: list[tuple[int, bool, Attempt]] = []
    for attempt in evidence.history.attempts:
        moments.append((attempt.line, True, attempt))
        if attempt.ended is not None:
            moments.append((attempt.last_line, False, attempt))
    for _, begins, attempt in sorted(moments, key=lambda moment: moment[:2]):
        node, binding, outcome = attempt.node, attempt.binding, attempt.outcome
        if begins:
            lease, stored = evidence.lease_of(attempt), evidence.submissions.get(attempt.notification)
            urgent = lease is None or stored is None or stored[0].lane == 0
            holds = [closed.get((node, binding, group), (0.0, 0.0)) for group in (attempt.group, None)]
            holds += [] if urgent else [alone.get((node, binding, attempt.endpoint), (0.0, 0.0))]
            wall = evidence.latest_wall(attempt.begun)
            for until, since in holds:
                if wall < until - SLACK and not evidence.nudged(binding, since, attempt.begun):
                    text = f"{node} sent to {attempt.group or binding} {until - wall:.3f} s too early"
                    yield Violation("gate", text, attempt.begun)
        elif evidence.accepted(attempt):
            for group in (attempt.group, None):
                said.pop((node, binding, group), None)
        elif isinstance(outcome, Throttled) and outcome.scope is not Scope.ENDPOINT and outcome.after:
            assert attempt.ended is not None
            until = attempt.ended_wall + min(outcome.after, longest)
            alone[node, binding, attempt.endpoint] = until, attempt.ended
            place = (node, binding, attempt.group if outcome.scope is Scope.GROUP else None)
            if any(
                each.endpoint != attempt.endpoint and each.notification != attempt.notification for each in said[place]
            ):
                closed[place] = max(closed.get(place, (0.0, 0.0)), (until, attempt.ended))
            said[place].append(attempt)


def told_gates_hold(evidence: Evidence) -> Iterator[Violation]:
    """An engine's report of its gates is true: after `gate.closed` nothing goes there before the time that it names,
    unless it is said to have opened. Where it closed on the word of one notification, another may try at once.
    """
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in evidence.history.attempts:
        attempts[attempt.node].append(attempt)
    for line, node, event, at in evidence.history.live:
        if event.kind != "gate.closed":
            continue
        until, data = event.data["until"], event.data
        for attempt in attempts[node]:
            there = attempt.binding == data["binding"] and data["scope"] in ("binding", "group")
            there = there and (data["scope"] == "binding" or data["group"] == attempt.group)
            wall = evidence.latest_wall(attempt.begun)
            # The rest is never more than it was when the gate closed, wherever the wall clock has been set since.
            early = attempt.line > line and wall < until - SLACK and attempt.begun - at < until - event.at - SLACK
            early = early and data.get("sole") in ("", attempt.notification)
            early = early and not any(
                line < opened < attempt.line
                and (where, what.data["scope"], what.data["group"]) == (node, data["scope"], data["group"])
                for opened, where, what, _ in evidence.history.live
                if what.kind == "gate.opened"
            )
            if there and early and not evidence.nudged(attempt.binding, 0.0, attempt.begun):
                text = f"{node} sent to {attempt.group or attempt.binding} {until - wall:.3f} s before its gate's time"
                yield Violation("gate", text, attempt.begun)


def probes_are_few(evidence: Evidence) -> Iterator[Violation]:
    """From a gate's time until it is open again, a few deliveries at a time try whether the gateway answers. Each
    request from before that is answered meanwhile makes room for one more.
    """
    closed: dict[tuple[str, str, str, str], int] = {}
    spans: list[tuple[int, int, tuple[str, str, str, str]]] = []
    for line, node, event, _ in evidence.history.live:
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
    """While an endpoint is in back-off because of one delivery, its others wait too: but for urgent ones, and those in
    hand."""
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
    """Whether the back-off ended before its time: the gateway took something, or the waiting delivery was stopped."""
    taken = any(
        other.endpoint == attempt.endpoint and evidence.accepted(other) and other.last_line < attempt.line
        for other in evidence.history.attempts
        if other.commits > commit
    )
    status = evidence.history.rest[notification].status
    stopped = status is not None and any(status.counts.get(state) for state in ("cancelled", "superseded", "expired"))
    return taken or stopped


CHECKS = (accused_scopes_wait, told_gates_hold, probes_are_few, held_endpoints_wait)
