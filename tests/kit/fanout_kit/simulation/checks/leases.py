"""That one worker at a time leases a delivery, and that no worker sends a delivery without its lease."""

from __future__ import annotations

from collections.abc import Iterator

from fanout_kit.simulation.checks.evidence import SLACK, Evidence, Violation

__all__ = ["CHECKS"]


def one_holder(evidence: Evidence) -> Iterator[Violation]:
    """Epochs grow; nothing is leased while it is held; a worker settles and extends only chunks that it holds."""
    yield from evidence.oddities


def sends_under_a_lease(evidence: Evidence) -> Iterator[Violation]:
    """Every attempt begins within a lease of its worker, before its deadline, and before another worker took the chunk
    over."""
    lasts = evidence.history.plan.policy.lease
    for attempt in evidence.history.attempts:
        lease = evidence.lease_of(attempt)
        what = f"{attempt.node} sent {attempt.notification} to endpoint {attempt.endpoint}"
        if lease is None:
            yield Violation("fence", f"{what} without a lease", attempt.begun)
            continue
        asked = [at for at in lease.asked if at <= attempt.begun]
        if attempt.begun > max(asked) + lasts + SLACK:
            yield Violation("fence", f"{what} after its lease of chunk {lease.chunk} had run out", attempt.begun)
        if evidence.out_of_step(attempt):
            continue
        if lease.taken_over is not None and lease.taken_over < attempt.commits:
            yield Violation("fence", f"{what} after chunk {lease.chunk} had been taken over", attempt.begun)
        if lease.ended is not None and lease.ended < attempt.commits:
            yield Violation("fence", f"{what} after its lease of chunk {lease.chunk} had ended", attempt.begun)


CHECKS = (one_holder, sends_under_a_lease)
