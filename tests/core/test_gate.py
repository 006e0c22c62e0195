"""The gate as a state machine, driven over every order of its inputs."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fanout.core.gate import Gate, GateState
from fanout.core.policy import Policy
from fanout.core.states import Waiting
from fanout.http.settings import PoolSettings
from fanout.http.upkeep import Reconnect

POLICY = Policy()


class GateMachine(RuleBasedStateMachine):
    """A closed gate admits nobody; past its time it admits one, and two more when that one has succeeded; then it
    opens."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(3)
        self.now = 1000.0
        self.gate = Gate(POLICY)
        self.probe_since: float | None = None
        self.out = 0
        self.proven = 0

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        before = self.gate.state
        ready = self.gate.ready(self.now)
        admitted = self.gate.admits(self.now)
        assert admitted == ready
        if before is GateState.OPEN:
            assert admitted
            return
        if admitted:
            if before is GateState.CLOSED:
                assert self.now >= self.gate.until
                self.out = self.proven = 0
            elif self.out >= (1 if self.proven == 0 else 3 - self.proven):
                assert self.probe_since is not None
                assert self.now >= self.probe_since + 2 * POLICY.request_timeout
                self.out = 0
            self.out += 1
            self.probe_since = self.now
            if self.proven == 0:
                assert not self.gate.admits(self.now)

    @rule()
    def no_verdict(self) -> None:
        if self.gate.state is GateState.PROBING:
            self.out = max(0, self.out - 1)
        self.gate.unused()

    @rule()
    def success(self) -> None:
        probing = self.gate.state is GateState.PROBING
        if probing:
            self.proven += 1
            self.out = max(0, self.out - 1)
        opened = self.gate.succeeded(self.now)
        assert opened == (probing and self.proven == 3)
        if opened:
            assert self.gate.is_open
            assert self.gate.closures == 0
            assert self.gate.share(self.now) == 0.1

    @rule()
    def failure(self) -> None:
        before = self.gate.state
        closed = self.gate.failed(self.now, self.rng, "503")
        if before is GateState.PROBING:
            assert closed
        if closed:
            assert self.gate.until >= self.now

    @rule(after=st.none() | st.floats(0, 1000))
    def close(self, after: float | None) -> None:
        before = self.gate.until if self.gate.shut(self.now) else 0.0
        self.gate.close(self.now, self.rng, reason="told", after=after, waiting=Waiting.QUOTA)
        assert self.gate.until >= before
        if after is not None:
            assert self.gate.until >= self.now + after or not self.gate.shut(self.now)

    @rule()
    def somebody_mended_it(self) -> None:
        if self.gate.reset(self.now):
            assert self.gate.ready(self.now)

    @invariant()
    def the_share_is_a_share(self) -> None:
        assert 0 < self.gate.share(self.now) <= 1

    @invariant()
    def a_shut_gate_says_when(self) -> None:
        if self.gate.shut(self.now):
            assert not self.gate.ready(self.now)
            assert self.gate.opens_at(self.now) == self.gate.until
            assert self.gate.until - self.now <= 1000 + POLICY.backoff_cap


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def test_one_failure_of_many_closes_nothing() -> None:
    gate = Gate(POLICY)
    rng = random.Random(1)

    for _ in range(1000):
        for _ in range(8):
            assert not gate.failed(0.0, rng, "reset")
        gate.succeeded(0.0)

    assert gate.is_open


def test_failures_without_one_success_close_it() -> None:
    gate = Gate(POLICY)

    closed = [gate.failed(0.0, random.Random(1), "503") for _ in range(16)]

    assert closed.index(True) == 15
    assert gate.shut(0.0)


def test_each_closure_is_longer_up_to_ten_seconds_or_an_eighth_of_the_outage() -> None:
    gate = Gate(POLICY)
    rng = random.Random(5)
    now, longest = 0.0, []
    for k in range(200):
        assert gate.admits(now)
        gate.close(now, rng, reason="down")
        longest.append(min(2.0 ** min(k, 30), max(10.0, now / 8), POLICY.backoff_cap))
        assert longest[-1] / 2 <= gate.until - now <= longest[-1]
        now = gate.until

    assert longest[:5] == [1.0, 2.0, 4.0, 8.0, 10.0]
    assert longest[-1] == POLICY.backoff_cap


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.floats(1.0, 86_400.0))
def test_a_gateway_that_answers_again_is_noticed_within_an_eighth_of_its_outage(seed: int, outage: float) -> None:
    rng, gate, now, probes = random.Random(seed), Gate(POLICY), 0.0, 0
    while now < outage:
        gate.close(now, rng, reason="503")
        assert gate.resumes_at(now) == gate.opens_at(now)
        now, probes = gate.opens_at(now), probes + 1
        gate.admits(now)
    assert now - outage <= max(10.0, outage / 8)
    assert probes <= 150, "and deliveries that wait do not spend their attempts on it"


def test_the_load_comes_back_in_doubling_steps() -> None:
    gate = Gate(POLICY)
    gate.close(0.0, random.Random(1), reason="down", after=10.0)
    for _ in range(3):
        assert gate.admits(10.0)
        gate.succeeded(10.0)

    shares = [gate.share(10.0 + seconds) for seconds in range(5)]

    assert shares == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert gate.share(10.0) == 1.0, "a ramp that is over stays over"


def test_a_new_outage_ends_the_ramp() -> None:
    gate = Gate(POLICY)
    gate.close(0.0, random.Random(1), reason="down", after=1.0)
    for _ in range(3):
        gate.admits(1.0)
        gate.succeeded(1.0)
    gate.close(1.5, random.Random(1), reason="down again", after=1.0)

    assert gate.share(1.5) == 1.0
    assert gate.shut(1.5)


@given(st.integers(0, 2**32), st.floats(0.1, 600.0))
def test_after_an_outage_of_connections_the_first_probe_goes_within_a_second_and_a_half(
    seed: int, outage: float
) -> None:
    """Gate and pool together: each probe's request waits for the pool's next connect, which fails until the outage is
    over."""
    rng, gate, reconnect = random.Random(seed), Gate(POLICY), Reconnect(PoolSettings())
    now, tried = 0.0, 0
    while now < outage:
        tried += 1
        reconnect.refused(now, rng, "connect")
        assert gate.close(now, rng, reason="connect", knocks=1)
        assert gate.resumes_at(now) >= gate.opens_at(now)
        now = gate.opens_at(now)
        assert gate.admits(now)
        now = max(now, reconnect.until)
    assert now <= outage + 1.0  # the rest of 1.5 s is for the connect itself
    assert tried <= outage / 0.5 + 1, "no more than two connects a second"


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.floats(0.0, 1e9))
def test_what_is_no_probe_waits_as_long_as_the_outage_has_lasted_and_five_minutes_at_most(
    seed: int, begin: float
) -> None:
    rng, gate, now, returns, rounds = random.Random(seed), Gate(POLICY), begin, begin, 0
    while now < begin + 900.0:
        gate.close(now, rng, reason="connect", knocks=1)
        assert 0.49 <= gate.opens_at(now) - now <= 1.01
        wait = gate.resumes_at(now) - now
        assert wait <= min(300.0, max(1.0, now - begin)) + 0.01
        if now >= returns:
            returns, rounds = now + wait, rounds + 1
        now = gate.opens_at(now)
        gate.admits(now)
    assert rounds <= 16, "a delivery that waits goes to storage a few times"


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.floats(0.0, 120.0))
def test_a_gateway_that_is_back_and_not_yet_well_is_not_left_alone_for_long(seed: int, outage: float) -> None:
    """No connection comes about for a while, each second; then one does, and is answered 503."""
    rng, gate, now = random.Random(seed), Gate(POLICY), 0.0
    while now <= outage:
        gate.close(now, rng, reason="connect", knocks=1)
        now = gate.opens_at(now)
        gate.admits(now)
    gate.close(now, rng, reason="ServiceUnavailable")
    assert gate.resumes_at(now) - now <= 2.0
    now = gate.opens_at(now)
    gate.admits(now)
    gate.close(now, rng, reason="connect", knocks=1)
    gate.admits(gate.opens_at(now))
    gate.close(now, rng, reason="ServiceUnavailable")
    assert gate.opens_at(now) - now <= 4.0


def test_many_gates_share_the_pace_of_probes() -> None:
    rng, gate, now, count = random.Random(1), Gate(POLICY), 0.0, 10_000
    probes = 0
    while now < 3600.0:
        gate.close(now, rng, reason="connect", knocks=count)
        now = gate.opens_at(now)
        gate.admits(now)
        probes += now > 1800.0
    assert probes / 1800.0 * count < 64.0, "a second, over all hosts"
