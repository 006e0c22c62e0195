"""That every accepted delivery ends, in one state, for a reason that happened; and that the sums are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fanout.core.ids import delivery_id
from fanout.core.states import FINAL_STATES
from fanout_kit.simulation.checks.evidence import Evidence, Violation

__all__ = ["CHECKS"]


def nothing_lost(evidence: Evidence) -> Iterator[Violation]:
    """A caller with a receipt finds a finished notification, in which nothing waits."""
    rest = evidence.history.rest
    for id in sorted(evidence.receipts):
        found = rest[id]
        if found.status is None:
            yield Violation("lost", f"notification {id} was accepted and is not known")
        elif found.status.finished_at is None:
            yield Violation("lost", f"notification {id} has not finished: {found.status.state}")
        for endpoint, state, reason in found.deliveries:
            if state == "pending":
                yield Violation("lost", f"delivery of {id} to endpoint {endpoint} waits for ever ({reason})")


def one_state(evidence: Evidence) -> Iterator[Violation]:
    """No delivery is listed twice, ends twice, or ends otherwise than was stored."""
    for (id, endpoint), ends in evidence.ends.items():
        if len(ends) > 1:
            told = ", ".join(f"{end.state} by {end.node}" for end in ends)
            yield Violation(
                "two states", f"delivery of {id} to endpoint {endpoint} ended more than once: {told}", ends[1].at
            )
    for id, found in evidence.history.rest.items():
        seen: dict[int, str] = {}
        for endpoint, state, reason in found.deliveries:
            if endpoint in seen:
                yield Violation("two states", f"endpoint {endpoint} is listed twice in {id}: {seen[endpoint]}, {state}")
            seen[endpoint] = state
            end = evidence.ends.get((id, endpoint))
            if end and (end[0].state, end[0].reason) != (state, reason):
                text = f"delivery of {id} to endpoint {endpoint} was stored as {end[0].state} and is now {state}"
                yield Violation("two states", text)


def accepted_is_true(evidence: Evidence) -> Iterator[Violation]:
    """The gateway took each delivery that is reported as accepted, and said so before it was stored."""
    for id, found in evidence.history.rest.items():
        for endpoint, state, _ in found.deliveries:
            if state != "accepted":
                continue
            ends = evidence.ends.get((id, endpoint))
            by = ends[0].at if ends else evidence.history.ended
            taken = evidence.arrivals.get(delivery_id(id, endpoint), ())
            if not any(a.accepted and a.answered is not None and a.answered <= by for a in taken):
                yield Violation("falsely accepted", f"endpoint {endpoint} of {id}: no gateway took it", by)


def ends_have_reasons(evidence: Evidence) -> Iterator[Violation]:
    """Each other state was brought about by the event that it names."""
    history = evidence.history
    cancelled = {request.data["id"] for request in history.requests if request.what == "cancel"}
    for id, found in history.rest.items():
        if found.status is None or id not in evidence.submissions:
            continue
        for endpoint, state, reason in found.deliveries:
            trouble = _unfounded(evidence, id, endpoint, state, reason, id in cancelled)
            if trouble:
                yield Violation("reason", f"endpoint {endpoint} of {id} is {state} ({reason}): {trouble}")


def _unfounded(evidence: Evidence, id: str, endpoint: int, state: str, reason: str, cancelled: bool) -> str:
    submission, _ = evidence.submissions[id]
    verdicts = [arrival.verdict for arrival in evidence.arrivals.get(delivery_id(id, endpoint), ())]
    attempts = evidence.attempts.get((id, endpoint), [])
    ends = evidence.ends.get((id, endpoint), [])
    if state == "gone":
        if reason == "endpoint gone before":
            return "" if _was(evidence, endpoint, "gone") else "it never was"
        return "" if {"gone", "bad"} & set(verdicts) else "no gateway said so"
    if state == "rejected":
        # A death that is not believed ends its delivery so, and leaves the endpoint.
        said = {"rejected", "gone", "bad"} if reason.endswith("(not believed)") else {"rejected", "gone"}
        return "" if said & set(verdicts) else "no gateway said so"
    if state == "cancelled":
        if reason.startswith("endpoint "):
            return "" if _was(evidence, endpoint, reason.removeprefix("endpoint ")) else "it never was"
        return "" if cancelled else "no caller asked for it"
    if state == "superseded":
        later = [
            other
            for other, _ in evidence.submissions.values()
            if other.collapse_key == submission.collapse_key and other.id != id
        ]
        return "" if submission.collapse_key and later else "nothing came after it"
    if state == "expired" and reason == "ttl":
        late = ends[0].at if ends else evidence.history.ended
        wall = evidence.latest_wall(late)
        return "" if wall >= submission.expires_at - 1e-3 else "its time had not come"
    if state == "dead":
        doubt = [attempt for attempt in attempts if evidence.doubtful(attempt)]
        if reason == "unknown" and submission.repeat == "at_most_once":
            return "" if _disturbed(evidence) else "it was marked, and no worker was lost"
        if reason.startswith("unknown"):
            return "" if doubt and submission.repeat != "prefer_delivery" else "nothing was in doubt"
        if reason.startswith("poison"):
            return "" if len(doubt) >= 3 else "it was not under way at three crashes"
        most = evidence.history.plan.policy.attempts
        return "" if len(attempts) >= most else f"it was tried {len(attempts)} times of {most}"
    return ""


def _disturbed(evidence: Evidence) -> bool:
    """Whether anything happened by which a worker may lose its leases."""
    history = evidence.history
    lost = any(life.freezes or life.end == "crash" for life in history.lives.values())
    return lost or bool(history.jumps) or bool(history.full)


def _was(evidence: Evidence, endpoint: int, state: str) -> bool:
    return any(
        endpoint in directory and directory[endpoint].state == state for _, directory in evidence.history.directories
    )


def sums_are_right(evidence: Evidence) -> Iterator[Violation]:
    """A status adds up, agrees with the list of deliveries, and its end was announced once."""
    announced = Counter(
        event.data["notification"] for event in evidence.history.events if event.kind == "notification.finished"
    )
    for id, found in evidence.history.rest.items():
        status = found.status
        if status is None:
            continue
        listed = Counter(state for _, state, _ in found.deliveries)
        for state in ("pending", *FINAL_STATES):
            if status.counts.get(state, 0) != listed[state]:
                text = f"status of {id} counts {status.counts.get(state, 0)} {state}, and {listed[state]} are listed"
                yield Violation("counts", text)
        if status.total is not None and sum(status.counts.values()) != status.total:
            yield Violation("counts", f"status of {id} counts {dict(status.counts)} of {status.total}")
        if (status.finished_at is not None) != (announced[id] == 1):
            yield Violation("counts", f"the end of {id} was announced {announced[id]} times")
    for request in evidence.requests("status"):
        status = request.result
        if status.total is not None and sum(status.counts.values()) != status.total:
            text = f"status of {status.id} counted {dict(status.counts)} of {status.total}"
            yield Violation("counts", text, request.returned)


def ends_are_explained(evidence: Evidence) -> Iterator[Violation]:
    """`explain` tells of a delivery from its acceptance to its end, with the state that is listed."""
    for id, found in evidence.history.rest.items():
        listed = {endpoint: (state, reason) for endpoint, state, reason in found.deliveries}
        for endpoint, steps in found.explained.items():
            what = [step.what for step in steps]
            if listed[endpoint][0] == "pending":
                continue
            if not steps or what[0] != "accepted" or what[-1] != "ended" or what.count("ended") != 1:
                yield Violation("explain", f"endpoint {endpoint} of {id} is explained as {', '.join(what)}")
            elif (steps[-1].state, steps[-1].reason) != listed[endpoint]:
                text = (
                    f"endpoint {endpoint} of {id} is listed as {listed[endpoint][0]} and explained as {steps[-1].state}"
                )
                yield Violation("explain", text)


CHECKS = (nothing_lost, one_state, accepted_is_true, ends_have_reasons, sums_are_right, ends_are_explained)
