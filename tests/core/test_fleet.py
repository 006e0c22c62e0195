"""How a rate is divided: fair, never more than there is, and everybody comes to a fair part as others renew."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.core.fleet import Part, SharedToken, fair, forsaken, grant, outlived, strays, supersedes
from fanout_kit.examples import examples

QUICK = settings(derandomize=True, deadline=None, max_examples=examples(200))
RATES = st.floats(0.0, 1e6)
DEMANDS = st.one_of(st.just(0.0), st.just(math.inf), st.floats(0.0, 2e6))


@QUICK
@given(rate=RATES, demands=st.lists(DEMANDS, max_size=12))
def test_fair_parts(rate: float, demands: list[float]) -> None:
    parts = fair(rate, demands)
    slack = 1e-9 * (1.0 + rate)
    assert math.fsum(parts) <= rate + slack
    assert all(0.0 <= part <= demand for part, demand in zip(parts, demands, strict=True))
    # Nothing is kept back while somebody could use it.
    if math.fsum(demands) >= rate and demands:
        assert math.fsum(parts) >= rate - slack
    # Who has less than it could use has no less than anybody else.
    for part, demand in zip(parts, demands, strict=True):
        assert part == demand or part >= max(parts) - slack


def test_fair_parts_by_example() -> None:
    assert fair(600, [math.inf]) == [600]
    assert fair(600, [math.inf, math.inf, math.inf]) == [200, 200, 200]
    assert fair(600, [math.inf, 50, math.inf]) == [275, 50, 275]
    assert fair(600, [100, 50, 0]) == [100, 50, 0]
    assert fair(0, [math.inf, 1]) == [0, 0]
    assert fair(600, []) == []


class Fleet:
    """Workers that renew in any order, as storage would have it: what each uses, and what counts for it."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.parts: dict[int, Part] = {}
        self.held: dict[int, float] = {}

    def renew(self, worker: int, demand: float, *, answered: bool = True) -> None:
        held = self.held.get(worker, 0.0)
        given = grant(self.rate, demand, [part for id, part in self.parts.items() if id != worker])
        self.parts[worker] = Part(max(held, given), demand)
        if answered:
            self.held[worker] = given

    def leave(self, worker: int) -> None:
        self.parts.pop(worker, None)
        self.held.pop(worker, None)

    @property
    def out(self) -> float:
        """What may be in use at this moment: of one that has not heard its answer, the old part."""
        return math.fsum(self.held.values())


STEPS = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["renew", "renew", "renew", "deaf", "leave"]), DEMANDS), max_size=60
)


@QUICK
@given(rate=st.floats(1.0, 1e6), steps=STEPS)
def test_never_more_than_the_rate_is_out(rate: float, steps: list[tuple[int, str, float]]) -> None:
    fleet = Fleet(rate)
    for worker, what, demand in steps:
        if what == "leave":
            fleet.leave(worker)
        else:
            fleet.renew(worker, demand, answered=what == "renew")
        assert fleet.out <= rate * (1 + 1e-9)
        assert all(part.counted >= fleet.held.get(id, 0.0) for id, part in fleet.parts.items())


@QUICK
@given(rate=st.floats(1.0, 1e6), steps=STEPS, demands=st.lists(DEMANDS, min_size=1, max_size=6))
def test_four_rounds_bring_everybody_to_a_fair_part(
    rate: float, steps: list[tuple[int, str, float]], demands: list[float]
) -> None:
    fleet = Fleet(rate)
    for worker, what, demand in steps:
        fleet.leave(worker) if what == "leave" else fleet.renew(worker, demand)
    for worker in range(6):
        if worker >= len(demands):
            fleet.leave(worker)
    for _ in range(4):  # known to all, shrunk, known to have shrunk, grown
        for worker, demand in enumerate(demands):
            fleet.renew(worker, demand)
    parts = fair(rate, demands)
    assert [fleet.held[worker] for worker in range(len(demands))] == pytest.approx(parts, rel=1e-6, abs=1e-6 * rate)


def test_who_is_dead() -> None:
    assert not outlived(100.0, 110.0, 109.0)
    assert outlived(100.0, 110.0, 110.0)
    assert not outlived(100.0, 110.0, 91.0)  # a clock that is a little ahead
    assert outlived(100.0, 110.0, 90.0)  # one that was set back since
    assert outlived(100.0, 110.0, -3500.0)


def test_who_asked_long_ago_buries_nobody_for_beats_of_the_meantime() -> None:
    assert forsaken(100.0, 110.0, 115.0, 0.0)
    assert forsaken(100.0, 110.0, 115.0, 7.6)
    assert forsaken(100.0, 110.0, 80.0, 0.0)  # the clock was set back
    assert not forsaken(100.0, 110.0, 80.0, 21.0)  # asked before a standstill: it has beaten since
    assert not forsaken(100.0, 110.0, 105.0, 20.0)  # dead by now, perhaps, but nobody saw that then
    assert forsaken(100.0, 110.0, 80.0, 30.0)


def test_which_token_stands() -> None:
    standing = SharedToken("secret", 1000.0, 4600.0)
    assert supersedes(None, 1000.0, 1200.0)
    assert not supersedes(standing, 1000.0, 1200.0)
    assert not supersedes(standing, 900.0, 1200.0)
    assert not supersedes(standing, 2199.0, 1200.0)
    assert supersedes(standing, 2200.0, 1200.0)
    assert supersedes(standing, 4600.0, 9e9)
    assert supersedes(standing, 1000.0, 0.0)
    assert "secret" not in repr(standing)


class Desk:
    """One worker and its storage: calls that commit, answer and get lost at any moment, and looks that are answered
    late."""

    def __init__(self) -> None:
        self.held: set[tuple[int, int]] = set()
        """What storage says that it holds."""
        self.hand: set[tuple[int, int]] = set()
        self.calls: dict[tuple[int, int], set[tuple[int, int]]] = {}
        self.awaited: dict[tuple[int, int], set[tuple[int, int]]] = {}
        self.number = 0

    def call(self, place: int) -> None:
        if not any(each == place for each, _ in self.calls):
            self.number += 1
            self.calls[place, self.number] = set()

    def commit(self, place: int) -> None:
        for call, made in self.calls.items():
            if call[0] == place and not made:
                lease = (self.number, len(self.held) + 1)
                made.add(lease)
                self.held.add(lease)

    def answer(self, place: int, *, heard: bool) -> None:
        for call in [each for each in self.calls if each[0] == place]:
            made = self.calls.pop(call)
            if heard:
                self.hand |= made

    def look(self) -> set[tuple[int, int]]:
        before, named = set(self.hand), set(self.held)
        lost, unsure = strays(sorted(named), before | self.hand, self.awaited, frozenset(self.calls))
        self.awaited = unsure  # type: ignore[assignment]
        coming = set().union(*self.calls.values()) if self.calls else set()
        assert not set(lost) & (coming | self.hand), "nothing that is in hand, or may come into it"
        self.held -= set(lost)
        return set(lost)


DESK = st.lists(
    st.tuples(st.sampled_from(["call", "commit", "heard", "lost", "look", "settle"]), st.integers(0, 2)), max_size=60
)


@QUICK
@given(steps=DESK)
def test_what_was_lost_is_given_back_and_nothing_else(steps: list[tuple[str, int]]) -> None:
    desk = Desk()
    for what, place in steps:
        match what:
            case "call":
                desk.call(place)
            case "commit":
                desk.commit(place)
            case "look":
                desk.look()
            case "settle":
                done = set(sorted(desk.hand)[:1])
                desk.hand -= done
                desk.held -= done
            case _:
                desk.answer(place, heard=what == "heard")
    for place in range(3):
        desk.answer(place, heard=False)
    desk.look()
    assert desk.held == desk.hand, "once no call is under way, one look finds all"


def test_a_later_call_makes_nobody_wait() -> None:
    lost, awaited = strays([(7, 3)], set(), {}, frozenset({(0, 1)}))
    assert (lost, awaited) == ([], {(7, 3): {(0, 1)}})
    lost, awaited = strays([(7, 3)], set(), awaited, frozenset({(0, 2)}))
    assert (lost, awaited) == ([(7, 3)], {}), "the call that was under way when it was first seen has ended"
