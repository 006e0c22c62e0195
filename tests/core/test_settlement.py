"""`decide` over the whole space: every outcome against every delivery."""

from __future__ import annotations

import math
import random
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.core.address import Address
from fanout.core.outcome import (
    Accepted,
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
from fanout.core.settlement import Again, Attempted, Final, Park, Relocate, Retry, Wait, by_connection, decide
from fanout.core.states import DeliveryState, Waiting
from fanout_kit.examples import examples

NOW = 1_800_000_000.0
POLICY = Policy()

reasons = st.sampled_from(["", "Unregistered", "503"])
scopes = st.sampled_from(list(Scope))
delays = st.none() | st.floats(min_value=-10, max_value=1e12)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Accepted, st.sampled_from(["", "gateway-id"])),
    st.builds(Rejected, reasons),
    st.builds(Gone, reasons, st.none() | st.floats(min_value=0, max_value=2 * NOW), st.booleans()),
    st.builds(Moved, st.just(Address("new"))),
    st.builds(Throttled, delays, scopes, reasons),
    st.builds(Unavailable, st.sampled_from(["no", "unknown"]), scopes, reasons, delays),
    st.builds(Misconfigured, reasons, scopes),
    st.builds(Deferred, reasons, delays, st.sampled_from(["no", "unknown"])),
)
tried = st.builds(
    Attempted,
    attempt=st.integers(1, 20),
    free=st.integers(0, 5),
    expires_at=st.floats(min_value=NOW, max_value=NOW + 1e6),
    registered_at=st.floats(min_value=0, max_value=NOW),
    repeat=st.sampled_from(["prefer_delivery", "prefer_once", "at_most_once"]),
    once=st.booleans(),
    group_failing=st.booleans(),
)


@settings(max_examples=examples(2000), deadline=None)
@given(outcomes, tried, st.integers(0, 2**32))
def test_every_decision_is_lawful(outcome: Outcome, delivery: Attempted, seed: int) -> None:
    """Nothing is due after the TTL, nothing is tried more often than allowed, nothing waits in the past, doubt is
    obeyed."""
    decision = decide(outcome, delivery, POLICY, NOW, random.Random(seed))

    match decision:
        case Retry(due_at, attempt):
            assert NOW <= due_at < delivery.expires_at
            assert attempt == delivery.attempt + 1 <= POLICY.attempts
            assert not delivery.once
        case Relocate(_, retry):
            assert retry.due_at == NOW
        case Park(scope, after):
            assert scope is not Scope.ENDPOINT or isinstance(outcome, Misconfigured)
            assert after is None or 0 <= after <= 1.1 * POLICY.retry_after_cap + POLICY.backoff_base
        case Wait(due_at):
            assert isinstance(outcome, Deferred)
            assert outcome.sent == "no"
            assert NOW < due_at < delivery.expires_at
        case Again():
            assert isinstance(outcome, Unavailable)
            assert outcome.sent == "no"
            assert delivery.free < POLICY.free_retries
        case Final(state, _, endpoint_gone):
            assert state is not DeliveryState.CANCELLED
            assert endpoint_gone == (state is DeliveryState.GONE)
    if (
        isinstance(outcome, (Unavailable, Deferred))
        and outcome.sent == "unknown"
        and delivery.repeat != "prefer_delivery"
    ):
        assert isinstance(decision, Final), "what may have arrived must not be sent again"


@settings(max_examples=examples(500), deadline=None)
@given(tried, delays, st.sampled_from(["no", "unknown"]), st.integers(0, 2**32))
def test_an_event_of_our_own_is_neither_a_loop_nor_for_ever(
    delivery: Attempted, after: float | None, sent: Literal["no", "unknown"], seed: int
) -> None:
    """It waits half a second to a second where no time is known, closes nothing, and ends with the TTL."""
    decision = decide(Deferred("overload", after, sent), delivery, POLICY, NOW, random.Random(seed))

    match decision:
        case Wait(due_at, reason, waiting) | Retry(due_at, _, reason, waiting):
            assert due_at - NOW >= 0.5
            assert due_at - NOW <= 1.0 or after is not None
            assert (reason, waiting) == ("overload", Waiting.LIMITER)
        case Final(state):
            assert state is DeliveryState.EXPIRED or sent == "unknown"
        case _:
            raise AssertionError(decision)


@settings(max_examples=examples(300), deadline=None)
@given(tried, delays, st.integers(0, 2**32))
def test_the_end_of_a_connection_is_no_fault_of_an_endpoint(
    delivery: Attempted, after: float | None, seed: int
) -> None:
    """However often it was excluded, it waits for a moment, spends nothing, and ends with the TTL alone."""
    park = Park(Scope.GROUP, after, "goaway", Waiting.GATE)
    match by_connection(park, delivery, POLICY, NOW, random.Random(seed)):
        case Wait(due_at, "goaway", Waiting.GATE):
            assert due_at - NOW >= 0.5
            assert due_at - NOW <= 1.0 or after is not None
            assert due_at < delivery.expires_at
        case Final(DeliveryState.EXPIRED, "goaway"):
            assert delivery.expires_at - NOW < 1.0 or after is not None
        case other:
            raise AssertionError(other)


@settings(max_examples=examples(300), deadline=None)
@given(tried, st.integers(0, 2**32))
def test_a_decision_depends_on_its_arguments_alone(delivery: Attempted, seed: int) -> None:
    outcome = Unavailable("unknown", Scope.ENDPOINT, "reset")

    first = decide(outcome, delivery, POLICY, NOW, random.Random(seed))
    again = decide(outcome, delivery, POLICY, NOW, random.Random(seed))

    assert first == again


def _tried(**changes: object) -> Attempted:
    values: dict[str, object] = {"attempt": 1, "free": 0, "expires_at": NOW + 86_400, "registered_at": NOW - 1000}
    return Attempted(**(values | changes))  # type: ignore[arg-type]


def test_a_verdict_older_than_the_registration_keeps_the_endpoint() -> None:
    decision = decide(Gone("Unregistered", since=NOW - 2000), _tried(), POLICY, NOW, random.Random(1))

    assert decision == Final(DeliveryState.REJECTED, "Unregistered (before its registration)")


def test_a_verdict_newer_than_the_registration_ends_it() -> None:
    decision = decide(Gone("Unregistered", since=NOW - 10), _tried(), POLICY, NOW, random.Random(1))

    assert decision == Final(DeliveryState.GONE, "Unregistered", endpoint_gone=True)


@pytest.mark.parametrize("after", [0.0, 1.0, 60.0, 3599.0])
def test_retry_after_is_never_undercut(after: float) -> None:
    for seed in range(50):
        decision = decide(Throttled(after), _tried(), POLICY, NOW, random.Random(seed))
        assert isinstance(decision, Retry)
        assert decision.due_at >= NOW + after


def test_nonsense_in_retry_after_parks_nothing_for_ever() -> None:
    decision = decide(Throttled(1e12, Scope.QUOTA), _tried(), POLICY, NOW, random.Random(1))

    assert isinstance(decision, Park)
    assert decision.after is not None
    assert decision.after <= 1.1 * POLICY.retry_after_cap + POLICY.backoff_base


def test_a_cohort_told_the_same_second_does_not_return_as_one() -> None:
    dues = {
        round(decision.due_at, 1)
        for seed in range(200)
        if isinstance(decision := decide(Throttled(60.0), _tried(), POLICY, NOW, random.Random(seed)), Retry)
    }

    assert len(dues) > 20


def test_full_jitter_is_uniform() -> None:
    """No tenth of the interval holds more than twice its share of 10,000 retries that failed at one instant."""
    rng = random.Random(7)
    waits = [
        decision.due_at - NOW
        for _ in range(10_000)
        if isinstance(
            decision := decide(Unavailable("unknown"), _tried(attempt=5), POLICY, NOW, rng),
            Retry,
        )
    ]
    bins = [0] * 10
    for wait in waits:
        bins[min(9, math.floor(wait / 1.6))] += 1

    assert len(waits) == 10_000
    assert max(waits) <= 16.0
    assert all(500 < count < 2000 for count in bins)


def test_the_last_attempt_is_the_last() -> None:
    decision = decide(Unavailable("unknown", reason="reset"), _tried(attempt=10), POLICY, NOW, random.Random(1))

    assert decision == Final(DeliveryState.DEAD, "10 attempts: reset")


def test_a_gateway_that_comes_and_goes_takes_half_of_the_attempts() -> None:
    """What waits for the gate comes forward at each opening; from then on a delivery keeps its own distance."""
    doubt = Unavailable("unknown", Scope.ENDPOINT, "503")
    for failing in (True, False):
        waits = []
        for attempt in range(1, POLICY.attempts):
            decision = decide(
                doubt, _tried(attempt=attempt, group_failing=failing), POLICY, NOW, random.Random(attempt)
            )
            assert isinstance(decision, Retry)
            waits.append(decision.waiting)
        half = POLICY.attempts // 2 if failing else 0
        assert waits == [Waiting.GATE] * half + [Waiting.BACKOFF] * (POLICY.attempts - 1 - half)
