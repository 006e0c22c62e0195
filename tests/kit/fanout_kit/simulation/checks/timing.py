"""That nothing is sent too late or too early: time to live, cancelling, pauses, retries; and that every send ends in
time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from fanout.plugin import Waiting
from fanout_kit.simulation.checks.evidence import SLACK, Evidence, Violation
from fanout_kit.simulation.history import Request

__all__ = ["CHECKS"]


def never_after_the_ttl(evidence: Evidence) -> Iterator[Violation]:
    """No attempt begins at or after the notification's end, and none reaches a gateway later than its request deadline
    after it."""
    policy = evidence.history.plan.policy
    for attempt in evidence.history.attempts:
        stored = evidence.submissions.get(attempt.notification)
        if stored is not None and attempt.wall >= stored[0].expires_at:
            late = attempt.wall - stored[0].expires_at
            text = f"endpoint {attempt.endpoint} of {attempt.notification} was sent to {late:.3f} s after its end"
            yield Violation("ttl", text, attempt.begun)
    if evidence.history.jumps:
        return
    for arrival in evidence.history.arrivals:
        stored = evidence.submissions.get(arrival.notification)
        lives = [life for life in evidence.history.lives.values() if life.freezes]
        if stored is not None and not lives:
            # A request sent in time may wait on its way, in the pool and in the network, and is not sent again.
            late = arrival.wall - stored[0].expires_at - policy.request_timeout
            if late > 5.0:
                yield Violation("ttl", f"a push of {arrival.notification} arrived {late:.3f} s late", arrival.at)


def never_after_a_cancel(evidence: Evidence) -> Iterator[Violation]:
    """Once `cancel` has returned, no attempt begins; attempts under way by then go on.

    The exception: the machine's clock was set forward just before. Then leases look run out, and it waits for no
    worker.
    """
    for request in evidence.requests("cancel"):
        id = request.data["id"]
        for attempt in evidence.history.attempts:
            after = attempt.line > request.line and not evidence.set_forward(request.asked, request.returned)
            if attempt.notification == id and after:
                text = f"{attempt.node} sent {id} to endpoint {attempt.endpoint} after {request.node} had cancelled it"
                yield Violation("cancel", text, attempt.begun)


def a_cancel_is_noticed(evidence: Evidence) -> Iterator[Violation]:
    """A worker notices within 100 ms that another has stored a cancellation, and begins nothing more of it."""
    plan, history = evidence.history.plan, evidence.history
    slack = 0.15 + 8 * (plan.disk[1] if plan.disk is not None else 0.0) + 10 * max(plan.lags)
    stored: dict[str, float] = {}
    for call in history.calls:
        if call.name == "cancel" and call.error is None:
            stored.setdefault(call.argument(1, "id"), call.at)
    for attempt in history.attempts:
        at = stored.get(attempt.notification)
        if at is None or attempt.begun <= at:
            continue
        late = attempt.begun - at - history.lives[attempt.node].stood_still(at, attempt.begun)
        if late > slack and not any(begin <= attempt.begun and end >= at for begin, end in history.full):
            text = f"{attempt.node} sent {attempt.notification} to endpoint {attempt.endpoint}"
            yield Violation("cancel", f"{text} {late:.3f} s after its cancellation was stored", attempt.begun)


def a_pause_holds(evidence: Evidence) -> Iterator[Violation]:
    """Once `pause` or `pause_binding` has returned, no attempt begins until an operator asks to resume. As with
    `cancel`."""
    for request in evidence.history.requests:
        if request.what not in ("pause", "pause_binding") or request.error is not None or request.returned is None:
            continue
        if evidence.set_forward(request.asked, request.returned):
            continue
        binding, id = request.data.get("binding"), request.data.get("id")
        resumed = min(
            (other.asked for other in evidence.history.requests if _resumes(other, request.asked, binding, id)),
            default=float("inf"),
        )
        for attempt in evidence.history.attempts:
            meant = attempt.binding == binding or attempt.notification == id
            if meant and attempt.line > request.line and attempt.begun < resumed:
                text = f"{attempt.node} sent {attempt.notification} to endpoint {attempt.endpoint}"
                yield Violation("pause", f"{text} after {request.node} had paused it", attempt.begun)


def _resumes(other: Request, since: float, binding: str | None, id: str | None) -> bool:
    if binding is not None:
        return other.what == "resume_binding" and other.data["binding"] == binding and other.asked >= since
    return other.what == "resume" and other.data["id"] == id and other.asked >= since


def never_before_it_is_due(evidence: Evidence) -> Iterator[Violation]:
    """A retry is leased no earlier than its time; a schedule is begun no earlier than its own.

    A delivery that waits for something else than back-off is due when an operator says that it is mended.
    """
    mended = any(request.what == "resume_binding" for request in evidence.history.requests)
    due: dict[tuple[str, int, int], list[tuple[int, float]]] = defaultdict(list)
    for stored in evidence.settlements:
        lease = stored.lease
        if stored.settled.stale or lease is None:
            continue
        for row in stored.settlement.retries:
            if row.waiting != Waiting.BACKOFF and mended:
                continue
            due[lease.notification, lease.ids[row.position], row.attempt].append((stored.commit, row.due_at))
    for lease in evidence.leases:
        submission = evidence.submissions.get(lease.notification)
        wall = evidence.latest_wall(lease.at)
        if submission is not None and wall < submission[0].due_at - SLACK:
            yield Violation("early", f"{lease.notification} was leased before it was due", lease.at)
        for endpoint in lease.first_open:
            before = [at for commit, at in due[lease.notification, endpoint, lease.attempt] if commit < lease.commit]
            if before and wall < before[-1] - SLACK:
                text = f"attempt {lease.attempt} of {lease.notification} to endpoint {endpoint}"
                yield Violation("early", f"{text} was {before[-1] - wall:.3f} s early", lease.at)


def every_send_ends(evidence: Evidence) -> Iterator[Violation]:
    """A transport answers within its request deadline, give or take the ticks at which deadlines are looked at."""
    plan = evidence.history.plan
    for attempt in evidence.history.attempts:
        life = evidence.history.lives[attempt.node]
        end = (
            attempt.ended
            if attempt.ended is not None
            else life.died
            if life.died is not None
            else evidence.history.ended
        )
        took = end - attempt.begun - life.stood_still(attempt.begun, end)
        if took > plan.policy.request_timeout + 1.0:
            text = f"a send of {attempt.notification} to endpoint {attempt.endpoint} took {took:.3f} s"
            yield Violation("deadline", text, attempt.begun)


CHECKS = (
    never_after_the_ttl,
    never_after_a_cancel,
    a_cancel_is_noticed,
    a_pause_holds,
    never_before_it_is_due,
    every_send_ends,
)
