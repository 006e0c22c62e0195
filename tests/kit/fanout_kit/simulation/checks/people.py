"""That the right endpoints get it and no others: audiences, endpoints that changed hands or left, endpoints called
gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fanout.plugin import Endpoint, EndpointGone, EndpointRow, Gone, Status, Submission, Target
from fanout_kit.simulation.checks.evidence import Evidence, Violation
from fanout_kit.simulation.disk import Call
from fanout_kit.simulation.history import Attempt, Directory

__all__ = ["CHECKS"]


def everyone_named(evidence: Evidence) -> Iterator[Violation]:
    """The deliveries of a notification are those that its target named when it was accepted, or when it was due.

    Users of a topic or broadcast may have come or gone while it was expanded. A user who was meant throughout must be
    there. A user who never was meant, or came later, must not. Where something was paused, a schedule may have
    been begun at any time after.
    """
    for id, (submission, commit) in evidence.submissions.items():
        found = evidence.history.rest.get(id)
        if found is None or found.status is None:
            continue
        got = {endpoint for endpoint, _, _ in found.deliveries}
        begun = _begun(evidence, submission, commit)
        if begun is None:
            if got:
                yield Violation("audience", f"{id} has {len(got)} deliveries, and was never begun")
            continue
        then = evidence.history.directory_after(begun)
        named = {endpoint.id for endpoint in then.values() if _meant(submission.target, endpoint)}
        moved = submission.due_at > submission.accepted_at and bool(evidence.pauses)
        short = _cut_short(found.status, submission)
        if submission.target.kind not in ("topic", "all") and not moved:
            if got != named and not (short and got < named):
                yield Violation("audience", f"{id} to {submission.target} went to {sorted(got ^ named)} wrongly or not")
            continue
        later = [directory for number, directory in evidence.history.directories if number > begun]
        always = {each for each in named if all(_meant(submission.target, now.get(each)) for now in later)}
        ever = {each for now in (then, *later) for each, one in now.items() if _meant(submission.target, one)}
        if not moved:
            ever &= then.keys()
        if got - ever:
            yield Violation("audience", f"{id} to {submission.target} went to {sorted(got - ever)}, never meant")
        if always - got and not short:
            yield Violation("audience", f"{id} to {submission.target} never went to {sorted(always - got)}")


def _begun(evidence: Evidence, submission: Submission, commit: int) -> int | None:
    """The commit by which its audience was looked up; None if that never came."""
    if submission.due_at <= submission.accepted_at:
        return commit
    for number, call in enumerate(evidence.history.calls[commit:], commit):
        done = call.name == "expand" and not call.skipped and call.error is None
        if done and call.argument(2, "now") >= submission.due_at:
            return number
    return None


def _cut_short(status: Status, submission: Submission) -> bool:
    """Whether it was stopped, or its time ran out, before all of it was looked up."""
    stopped = any(status.counts.get(state, 0) for state in ("cancelled", "superseded", "expired"))
    late = status.finished_at is not None and status.finished_at >= submission.expires_at
    return stopped or late or status.state == "cancelled"


def _meant(target: Target, endpoint: Endpoint | None) -> bool:
    if endpoint is None or endpoint.state != "active":
        return False
    match target.kind:
        case "user" | "users":
            return endpoint.user in target.names
        case "topic":
            return bool(endpoint.user) and target.names[0] in endpoint.tags
        case "all":
            return bool(endpoint.user)
        case _:
            return endpoint.id in target.ids


def a_later_one_wins(evidence: Evidence) -> Iterator[Violation]:
    """Once a later notification of the same collapse key is accepted for an endpoint, no earlier one is begun for it:
    not later than its worker must have noticed.
    """
    plan, history = evidence.history.plan, evidence.history
    slack = 0.15 + 8 * (plan.disk[1] if plan.disk is not None else 0.0) + 10 * max(plan.lags)
    for id, (submission, commit) in evidence.submissions.items():
        found = history.rest.get(id)
        if submission.collapse_key is None or found is None or found.status is None:
            continue
        if found.status.counts.get("superseded") or found.status.state == "cancelled":
            continue  # it does not count, or not all the time
        at, then = history.calls[commit].at, history.directory_after(commit)
        for attempt in history.attempts:
            earlier = evidence.submissions.get(attempt.notification)
            if earlier is None or earlier[1] >= commit or earlier[0].collapse_key != submission.collapse_key:
                continue
            late = attempt.begun - at - history.lives[attempt.node].stood_still(at, attempt.begun)
            full = any(begin <= attempt.begun and end >= at for begin, end in history.full)
            if late > slack and not full and _meant_throughout(evidence, submission.target, attempt, then, commit):
                text = f"{attempt.node} sent {attempt.notification} to endpoint {attempt.endpoint}"
                yield Violation("collapse", f"{text} {late:.3f} s after {id} had taken its place", attempt.begun)


def _meant_throughout(evidence: Evidence, target: Target, attempt: Attempt, then: Directory, commit: int) -> bool:
    """Whether the target named the attempt's endpoint from that commit to the attempt."""
    between = [now for number, now in evidence.history.directories if commit < number <= attempt.commits]
    return all(_meant(target, now.get(attempt.endpoint)) for now in (then, *between))


def nobody_elses(evidence: Evidence) -> Iterator[Violation]:
    """A push goes to an endpoint that was active when its chunk was read, at the address and for the owner of that
    moment."""
    for attempt in evidence.history.attempts:
        read = _read(evidence, attempt)
        if read is None:
            continue
        commit, row = read
        known = evidence.history.directory_after(commit).get(attempt.endpoint)
        what = f"{attempt.node} sent {attempt.notification} to endpoint {attempt.endpoint}"
        if known is None or known.state != "active":
            state = "unknown" if known is None else known.state.value
            yield Violation("owner", f"{what}, which was {state} when it was leased", attempt.begun)
        elif attempt.address != row.address:
            yield Violation("owner", f"{what} at another address than was read", attempt.begun)


def _read(evidence: Evidence, attempt: Attempt) -> tuple[int, EndpointRow] | None:
    """The commit at which the attempt's worker read its endpoint, and the value that it read."""
    lease = evidence.lease_of(attempt)
    if lease is None:
        return None
    calls = evidence.history.calls
    for number in range(lease.commit, min(attempt.commits, len(calls))):
        row = next((row for row in _rows(calls[number], attempt) if row.id == attempt.endpoint), None)
        if row is not None:
            return number, row
    return None


def _rows(call: Call, attempt: Attempt) -> Iterable[EndpointRow]:
    """The endpoints that this call gave the attempt's worker: a lease of few deliveries brings them along."""
    if call.node != attempt.node or call.error is not None or call.skipped:
        return
    if call.name == "resolve" and attempt.endpoint in call.argument(0, "ids"):
        yield from call.result
    elif call.name == "lease":
        for chunk in call.result:
            if chunk.notification == attempt.notification:
                yield from chunk.rows or ()


def gone_is_founded(evidence: Evidence) -> Iterator[Violation]:
    """An endpoint is gone because a gateway said so of the registration that it has: a later one is not touched."""
    told: dict[tuple[int, int], int] = {}
    for stored in evidence.settlements:
        if stored.settled.stale:
            continue
        for change in stored.settlement.changes:
            if isinstance(change, EndpointGone):
                told.setdefault((change.endpoint, change.generation), stored.commit)
                if not _said(evidence, stored.call.node, change, stored.call.at):
                    text = f"{stored.call.node} reported endpoint {change.endpoint} as gone, and no gateway had said so"
                    yield Violation("gone", text, stored.call.at)
    seen: set[tuple[int, int]] = set()
    for commit, directory in evidence.history.directories:
        for endpoint in directory.values():
            which = (endpoint.id, endpoint.generation)
            if endpoint.state == "gone" and which not in seen:
                seen.add(which)
                if told.get(which, commit + 1) > commit:
                    text = (
                        f"endpoint {endpoint.id} is gone in generation {endpoint.generation}, of which nobody said so"
                    )
                    yield Violation("gone", text)


def _said(evidence: Evidence, node: str, change: EndpointGone, by: float) -> bool:
    for attempt in evidence.history.attempts:
        if attempt.node != node or attempt.endpoint != change.endpoint or not isinstance(attempt.outcome, Gone):
            continue
        read = _read(evidence, attempt)
        if attempt.ended is not None and attempt.ended <= by and read is not None:
            said = any(a.verdict in ("gone", "bad") for a in evidence.arrivals.get(attempt.delivery, ()))
            if said and read[1].generation == change.generation:
                return True
    return False


CHECKS = (everyone_named, a_later_one_wins, nobody_elses, gone_is_founded)
