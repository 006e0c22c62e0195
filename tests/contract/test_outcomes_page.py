"""The page of outcomes names the reason under which a delivery waits after each, as `decide` sets it."""

from __future__ import annotations

import random
import re

import pytest

from fanout.core.address import Address
from fanout.core.outcome import (
    ACCEPTED,
    Deferred,
    Gone,
    Misconfigured,
    Moved,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.core.policy import Policy
from fanout.core.settlement import Again, Attempted, Final, Park, Relocate, Retry, Wait, by_itself, decide
from fanout.core.states import Waiting
from tests.contract.pages import PAGES

ROWS = {
    row[0].replace("\\", ""): row[3]
    for line in PAGES["docs/outcomes.md"].splitlines()
    if len(row := [cell.strip() for cell in line.strip("|").split("|")]) == 5 and row[0].startswith("`")
}
NEW = Attempted(1, 0, 2_000.0, 0.0)
USED = Attempted(1, 9, 2_000.0, 0.0)
"""A delivery whose immediate retries are used up."""
ENDED, AT_ONCE = "it has ended", "it is sent at once"
CASES: list[tuple[str, Outcome, Attempted]] = [
    ("`Accepted(id)`", ACCEPTED, NEW),
    ("`Rejected(reason)`", Rejected("x"), NEW),
    ("`Gone(reason, since, certain)`", Gone("x"), NEW),
    ("`Moved(address)`", Moved(Address("a")), NEW),
    ("`Throttled(after, scope)`", Throttled(5, Scope.ENDPOINT), NEW),
    ("`Throttled(after, scope)`", Throttled(5, Scope.BINDING), NEW),
    ('`Unavailable(sent="no")`', Unavailable("no"), NEW),
    ('`Unavailable(sent="no")`', Unavailable("no"), USED),
    ('`Unavailable(sent="unknown")`', Unavailable("unknown"), NEW),
    ("`Misconfigured(reason, scope)`", Misconfigured("x"), NEW),
    ("`Deferred(reason)`", Deferred("x"), NEW),
    ("`Deferred(reason)`", Deferred("x", sent="unknown"), NEW),
]


def test_every_row_has_a_case() -> None:
    assert set(ROWS) == {row for row, *_ in CASES}
    named = {word for cell in ROWS.values() for word in re.findall(r"`(\w+)`", cell)}
    assert named <= {each.value for each in Waiting} | {"endpoint"}


@pytest.mark.parametrize(("row", "outcome", "tried"), CASES, ids=lambda value: str(value)[:40])
def test_the_row_names_the_reason(row: str, outcome: Outcome, tried: Attempted) -> None:
    rng, cell = random.Random(1), ROWS[row]
    match decide(outcome, tried, Policy(), 1_000.0, rng):
        case Final():
            assert cell == ENDED
        case Relocate() | Again():
            assert AT_ONCE in cell
        case Park() as park:
            assert f"`{park.waiting}`" in cell
            alone = by_itself(park, 1, tried, Policy(), 1_000.0, rng)
            assert isinstance(alone, Retry)
            assert alone.waiting is park.waiting, "an endpoint that accuses alone waits under the same reason"
        case Retry() | Wait() as waits:
            assert f"`{waits.waiting}`" in cell
