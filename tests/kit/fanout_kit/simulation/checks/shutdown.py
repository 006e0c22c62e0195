"""That a run comes to an end: in bounded time after the last fault, without an error, with nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator

from fanout_kit.simulation.checks.evidence import Evidence, Violation

__all__ = ["CHECKS"]


def no_errors(evidence: Evidence) -> Iterator[Violation]:
    """Nothing escaped from a task or a callback, no engine failed, and no request raised an exception that its contract
    does not name."""
    history = evidence.history
    for text in history.errors:
        yield Violation("error", text)
    for request in history.requests:
        expected = {"StorageFull", "EngineClosed", "Conflict"}
        if history.lives[request.node].end == "stop":
            expected.add("StorageError")  # the engine was closed while it was asked
        if request.error is not None and type(request.error).__name__ not in expected:
            text = f"{request.what} {dict(request.data)} raised {type(request.error).__name__}: {request.error}"
            yield Violation("error", text, request.returned)


def keeps_to_http2(evidence: Evidence) -> Iterator[Violation]:
    """The strict connections found nothing against RFC 9113."""
    for text in evidence.history.violations:
        yield Violation("http2", text)


def drains(evidence: Evidence) -> Iterator[Violation]:
    """Once the faults are over, everything ends, and every request is answered."""
    history = evidence.history
    if history.drained is None:
        left = ", ".join(f"{count} {reason}" for reason, count in history.outstanding.items()) or "requests unanswered"
        yield Violation("drain", f"not drained at {history.ended:.1f}: {left}")


def leaves_nothing(evidence: Evidence) -> Iterator[Violation]:
    """An engine that was closed leaves no task, timer or socket."""
    for life in evidence.history.lives.values():
        for what in life.left:
            yield Violation("leak", f"{life.node} left a {what}")


def blames_no_plugin(evidence: Evidence) -> Iterator[Violation]:
    """No send hangs, and nothing escapes from one: the transports here keep their contract.

    But after a pause of two request deadlines the watchdog cannot tell a send that hangs from one that stood still with
    it.
    """
    deadline = 2 * evidence.history.plan.policy.request_timeout
    for _, node, event, _ in evidence.history.live:
        if event.kind != "fault":
            continue
        life = evidence.history.lives[node]
        if "outlived" in event.data["text"] and any(end - begin >= deadline / 2 for begin, end in life.freezes):
            continue
        yield Violation("fault", f"{node}: {event.data['text']}")


CHECKS = (no_errors, keeps_to_http2, drains, leaves_nothing, blames_no_plugin)
