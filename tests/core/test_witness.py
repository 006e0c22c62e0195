"""Witnesses over the whole space of witnesses_drawn: who vouches for whom, and what closes a gate."""

from __future__ import annotations

import random
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.core.gate import Gate, GateState
from fanout.core.outcome import Scope
from fanout.core.policy import Policy
from fanout.core.settlement import Attempted, Final, Park, Retry, by_itself
from fanout.core.standing import LATELY, Standing
from fanout.core.states import DeliveryState, Waiting
from fanout.core.witness import FAULT, Loners, Witness, Witnesses, independent
from fanout_kit.examples import examples

NOW = 1_800_000_000.0
POLICY = Policy()
witnesses_drawn = st.builds(
    Witness,
    endpoint=st.integers(1, 5),
    notification=st.sampled_from("NM"),
    cause=st.sampled_from(["", "", "connection 1", "connection 2", FAULT]),
)


@given(witnesses_drawn, witnesses_drawn, st.booleans())
def test_two_are_independent_if_they_have_nothing_in_common(one: Witness, two: Witness, others: bool) -> None:
    agree = independent(one, two, others=others)

    assert agree == independent(two, one, others=others)
    if agree:
        assert one.endpoint != two.endpoint
        assert not one.cause or one.cause != two.cause
        assert FAULT not in (one.cause, two.cause)
        assert not others or one.notification != two.notification
        assert independent(one, two, others=False)
    elif one.endpoint != two.endpoint and not (one.cause or two.cause):
        assert others
        assert one.notification == two.notification


@given(st.lists(st.tuples(witnesses_drawn, st.booleans()), max_size=12))
def test_witnesses_agree_as_soon_as_two_of_them_are_independent(said: list[tuple[Witness, bool]]) -> None:
    witnesses = Witnesses()
    latest: dict[int, Witness] = {}
    agreed = False
    for witness, others in said:
        agreed = agreed or any(independent(witness, each, others=others) for each in latest.values())
        if witness.cause != FAULT:
            latest[witness.endpoint] = witness
        assert witnesses.hear(witness, others=others) == agreed
    about = {witness.notification for witness, _ in said if witness.cause != FAULT}
    assert witnesses.sole == (about.pop() if len(about) == 1 else "")
    witnesses.clear()
    assert (witnesses.agreed, witnesses.sole, witnesses.names) == (False, "", [])


@settings(max_examples=examples(500))
@given(st.lists(st.one_of(st.just("accepted"), st.tuples(st.booleans(), witnesses_drawn, st.booleans())), max_size=60))
def test_an_open_gate_closes_only_on_the_word_of_two(events: list[str | tuple[bool, Witness, bool]]) -> None:
    """Whether a scope is accused or deliveries fail one by one; an acceptance lets all that was said before be
    forgotten."""
    gate, rng = Gate(POLICY), random.Random(1)
    accused: list[tuple[Witness, bool]] = []
    failed: list[tuple[Witness, bool]] = []
    for event in events:
        if isinstance(event, str):
            gate.streak = 0  # as the senders do
            accused, failed = [], []
            continue
        wide, witness, others = event
        (accused if wide else failed).append((witness, others))
        held = (
            gate.accused(NOW, witness, others=others) if wide else gate.failed(NOW, rng, "503", witness, others=others)
        )
        if held:
            said = accused if wide else failed
            assert any(independent(a, b, others=o) for (a, _), (b, o) in combinations(said, 2))
            assert wide or _weight(said) + len(accused) >= 16
            return
    assert gate.is_open


def _weight(said: list[tuple[Witness, bool]]) -> int:
    causes = {witness.cause for witness, _ in said} - {"", FAULT}
    return sum(not witness.cause for witness, _ in said) + 8 * len(causes)


def test_a_lost_connection_with_two_hundred_under_way_closes_nothing() -> None:
    gate, rng = Gate(POLICY), random.Random(1)
    for n in range(200):
        assert not gate.failed(NOW, rng, "closed", Witness(n, f"N{n % 7}", "connection 1"))
    assert gate.failed(NOW, rng, "closed", Witness(500, "M", "connection 2")), (
        "a second one lost, without an answer between"
    )


def test_one_notification_that_fails_everywhere_closes_nothing_while_there_are_others() -> None:
    gate, rng = Gate(POLICY), random.Random(1)
    for n in range(300):
        assert not gate.failed(NOW, rng, "500", Witness(n, "N"), others=True)
    assert gate.failed(NOW, rng, "500", Witness(1000, "M"), others=True)


def test_while_it_is_probed_another_endpoint_confirms_and_the_same_one_does_not() -> None:
    gate, rng = Gate(POLICY), random.Random(1)
    assert not gate.accused(NOW, Witness(1, "N"), others=False)
    assert gate.accused(NOW, Witness(2, "M"), others=False)
    gate.close(NOW, rng, reason="x", after=10.0)
    assert gate.admits(NOW + 10)
    assert gate.state is GateState.PROBING

    assert not gate.accused(NOW + 10, Witness(2, "K"), others=True), "it has said so before"
    assert gate.accused(NOW + 10, Witness(3, "K"), others=True)


parks = st.builds(
    Park,
    st.sampled_from(list(Scope)),
    st.none() | st.floats(0, 1e5),
    st.just("BadJwtToken"),
    st.sampled_from([Waiting.BREAKER, Waiting.QUOTA, Waiting.GATE]),
    st.booleans(),
)


@settings(max_examples=examples(1000))
@given(parks, st.integers(1, 60), st.floats(0, 1e6), st.integers(1, 9), st.integers(0, 99))
def test_a_lone_accuser_waits_by_itself(park: Park, times: int, left: float, attempt: int, seed: int) -> None:
    """It spends no attempt, waits in the name of its own reason, never past its end nor before the time that it was
    told."""
    tried = Attempted(attempt, 0, NOW + left, NOW)

    decision = by_itself(park, times, tried, POLICY, NOW, random.Random(seed))

    told = 0.0 if park.alarm else park.after or 0.0
    if isinstance(decision, Final):
        assert decision.state is DeliveryState.EXPIRED
        assert told >= left or left < 2.0
    else:
        assert isinstance(decision, Retry)
        assert (decision.attempt, decision.reason, decision.waiting) == (attempt, "BadJwtToken", park.waiting)
        assert NOW + max(told, 0.4) <= decision.due_at <= NOW + left
        assert decision.alone == (park.scope is not Scope.TOPIC)


def test_a_lone_accuser_waits_longer_each_time_until_it_is_accepted() -> None:
    loners = Loners()
    assert [loners.again(1, NOW + n) for n in range(3)] == [1, 2, 3]
    loners.accepted(1)
    assert loners.again(1, NOW + 4) == 1
    assert loners.again(1, NOW + 4 + 86_400) == 1, "what was long ago does not count"


def test_standing_remembers_the_last_ten_thousand_endpoints() -> None:
    standing = Standing()
    for first in range(0, 25_000, 10):
        standing.know(range(first, first + 10))
        assert standing.knows(first + 9)
        assert standing.knows(max(0, first - 9_000))
    assert not standing.knows(0)
    assert sum(map(standing.knows, range(25_000))) <= 20_000


def test_standing_knows_who_else_was_accepted_lately() -> None:
    standing = Standing()
    assert not standing.vouched("gateway")
    standing.accepted(["g"], ["gateway"], "N", NOW)

    assert standing.vouched("gateway")
    assert not standing.vouched("other")
    assert standing.lately("g", NOW + 1)
    assert not standing.lately("g", NOW + 1, but="N")
    assert standing.lately(None, NOW + 1, but="M")
    assert not standing.lately("g", NOW + LATELY)
    for n in range(1000):
        standing.accepted(["g"], ["gateway"], f"M{n}", NOW + n)
    assert standing.lately("g", NOW + 1000, but="N")
    standing.forget()
    assert not standing.vouched("gateway")
    assert not standing.lately(None, NOW + 1)
