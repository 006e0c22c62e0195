"""The pool's decisions without its sockets."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.http.settings import PoolSettings
from fanout.http.upkeep import Health, Heartbeat, Marks, Reconnect, wants_connection
from fanout_kit.examples import examples


@pytest.mark.parametrize("ready", range(4))
@pytest.mark.parametrize("ageing", range(3))
def test_when_a_connection_is_wanted(ready: int, ageing: int) -> None:
    if ageing > ready:
        return
    for waiting, crowded, warm, on_trial in itertools.product([False, True], repeat=4):
        wanted = wants_connection(
            ready=ready, ageing=ageing, limit=2, waiting=waiting, crowded=crowded, warm=warm, on_trial=on_trial
        )
        if ageing:
            assert wanted
        elif ready == 0:
            assert wanted == (waiting or warm)
        elif ready == 1:
            assert wanted == ((waiting or crowded) and not on_trial)
        else:
            assert not wanted


def test_back_off_is_full_jitter_that_doubles_to_its_cap_and_forgets_at_success() -> None:
    rng, reconnect = random.Random(1), Reconnect(PoolSettings(backoff_base=1.0, backoff_cap=8.0))
    assert reconnect.until < 0.0
    for failures in range(1, 8):
        ceiling = min(8.0, 2.0 ** (failures - 1))
        waits = []
        for _ in range(300):
            trial = Reconnect(PoolSettings(backoff_base=1.0, backoff_cap=8.0))
            for _ in range(failures):
                trial.failed(100.0, rng, "tls", told=True)
            waits.append(trial.until - 100.0)
        assert 0.0 <= min(waits) < 0.1 * ceiling
        assert 0.9 * ceiling < max(waits) <= ceiling
    reconnect.failed(0.0, rng, "tls")
    assert reconnect.reason == "tls"
    reconnect.succeeded()
    assert reconnect.until == float("-inf")


@given(st.integers(0, 2**32), st.integers(1, 50), st.floats(0.01, 20.0))
def test_after_connections_that_ended_without_a_word_another_comes_within_four_seconds(
    seed: int, failures: int, base: float
) -> None:
    rng, reconnect = random.Random(seed), Reconnect(PoolSettings(backoff_base=base))
    for _ in range(failures):
        reconnect.failed(0.0, rng, "closed")
        assert reconnect.until <= max(4.0, base)
        assert not reconnect.soon(min(0.0, reconnect.until - 0.01))


@given(st.integers(0, 2**32), st.integers(1, 50), st.floats(0.01, 20.0))
def test_after_connects_that_failed_another_comes_within_a_second(seed: int, failures: int, base: float) -> None:
    rng, reconnect = random.Random(seed), Reconnect(PoolSettings(backoff_base=base))
    for moment in range(failures):
        reconnect.refused(float(moment), rng, "connect")
        pause = min(1.0, 2 * base)
        assert pause / 2 <= reconnect.until - moment <= pause + 1e-9
        assert reconnect.soon(float(moment))
    assert reconnect.reason == "connect"


def test_a_connection_that_ended_without_an_answer_is_not_forgotten_by_a_connect_that_fails() -> None:
    rng, reconnect = random.Random(1), Reconnect(PoolSettings(backoff_base=16.0))
    reconnect.failed(0.0, rng, "goaway")
    until = reconnect.until
    assert until > 1.0
    assert not reconnect.soon(0.0)
    reconnect.refused(0.0, rng, "connect")
    assert reconnect.until == until


@settings(derandomize=True, deadline=None, max_examples=examples(200))
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 1.0, 7.0]), st.integers(0, 5)), max_size=60), st.floats(0.0, 60.0))
def test_marks_know_by_which_tick_a_stream_was_open(steps: list[tuple[float, int]], timeout: float) -> None:
    marks, now, next_stream = Marks(1), 0.0, 1
    ticked: dict[int, float] = {}
    for pause, count in steps:
        now += pause
        ticked |= dict.fromkeys(range(next_stream, next_stream + 2 * count, 2), now)
        next_stream += 2 * count
        assert marks.mark(now, next_stream) == (count > 0)
        below = marks.opened_by(now - timeout)
        assert marks.expire(now - timeout) == below
        assert all((stream < below) == (at <= now - timeout) for stream, at in ticked.items())


def test_marks_do_not_grow_without_requests() -> None:
    marks = Marks(1)
    for now in range(1000):
        assert not marks.mark(float(now), 1)
    assert marks.opened_by(2000.0) == 1


def heartbeat() -> Heartbeat:
    return Heartbeat(PoolSettings(idle_ping=120.0, stall_ping=4.0, ping_timeout=8.0), 0.0)


@pytest.mark.parametrize(
    ("now", "in_flight", "overdue", "health"),
    [
        (3.9, True, True, Health.FINE),
        (4.0, True, True, Health.PING),
        (100.0, True, False, Health.FINE),
        (119.0, False, False, Health.FINE),
        (120.0, False, False, Health.PING),
        (120.0, True, False, Health.FINE),
    ],
)
def test_when_to_ask_for_a_sign_of_life(now: float, in_flight: bool, overdue: bool, health: Health) -> None:
    assert heartbeat().look(now, waiting_for_pong=False, in_flight=in_flight, overdue=overdue) is health


def test_a_peer_is_dead_when_it_says_nothing_for_the_timeout_and_any_byte_puts_it_off() -> None:
    beat = heartbeat()
    assert beat.look(5.0, waiting_for_pong=False, in_flight=True, overdue=True) is Health.PING
    assert beat.look(12.9, waiting_for_pong=True, in_flight=True, overdue=True) is Health.FINE
    assert beat.look(13.0, waiting_for_pong=True, in_flight=True, overdue=True) is Health.DEAD
    beat.heard(12.0)
    assert beat.look(13.0, waiting_for_pong=True, in_flight=True, overdue=True) is Health.FINE
    assert beat.silence(13.0) == 1.0
    assert beat.look(20.0, waiting_for_pong=True, in_flight=True, overdue=True) is Health.DEAD
