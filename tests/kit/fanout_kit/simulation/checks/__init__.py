"""The oracle: the promises that a run must not have broken, a module for each. Each check reads the history and names
the broken promises, if any.

endings     nothing lost, nothing falsely reported, one state each, counts that add up
leases      one holder at a time, epochs that grow, nothing sent outside of a lease
timing      time to live, cancelling, retries, gates, the request deadline
repeats     nothing taken twice without a reason that the promise allows
people      the right endpoints and no others: audiences, changes of owner, endpoints called gone
shutdown    drained in bounded time, and nothing left behind
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fanout_kit.simulation.checks import endings, gates, leases, people, repeats, shutdown, timing
from fanout_kit.simulation.checks.evidence import Evidence, Violation
from fanout_kit.simulation.history import History

__all__ = ["CHECKS", "Violation", "judge"]

CHECKS: tuple[Callable[[Evidence], Iterator[Violation]], ...] = (
    *shutdown.CHECKS,
    *endings.CHECKS,
    *leases.CHECKS,
    *timing.CHECKS,
    *gates.CHECKS,
    *repeats.CHECKS,
    *people.CHECKS,
)


def judge(history: History) -> list[Violation]:
    """Everything that broke a promise; empty if nothing did."""
    evidence = Evidence(history)
    return [violation for check in CHECKS for violation in check(evidence)]
