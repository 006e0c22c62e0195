"""Reasons stay few, and a settlement is counted for what it is."""

from __future__ import annotations

import pytest

from fanout.core.records import Release, RetryRow, Settlement
from fanout.core.states import DOUBT
from fanout.engine.counters import Counters, Reasons

TOKEN = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "Unregistered",
        "TooManyProviderTokenUpdates",
        "THIRD_PARTY_AUTH_ERROR",
        "status 503",
        "errno 102",
        "host refused (private)",
    ],
)
def test_the_words_of_gateways_are_kept(reason: str) -> None:
    assert Reasons().name(reason) == reason


@pytest.mark.parametrize(
    "reason",
    [
        TOKEN,
        f"bad token {TOKEN}",
        "https://push.example.net/wpush/v2/gAAAAABkQ2hlYXBseUNvbW11bmljYXRl",
        "user 12345678 is unknown",
        "line\nbreak",
        "x" * 65,
        "Ünregistriert",
    ],
)
def test_what_may_be_an_address_or_a_sentence_is_other(reason: str) -> None:
    assert Reasons().name(reason) == "other"


def test_a_gateway_that_invents_reasons_gets_few() -> None:
    reasons = Reasons()
    names = {reasons.name("Reason" + chr(65 + n // 26) + chr(65 + n % 26)) for n in range(600)}
    assert len(names) <= 49
    assert "other" in names
    assert reasons.name("ReasonAA") == "ReasonAA"


def test_a_settlement_is_counted() -> None:
    counters = Counters()
    settlement = Settlement(
        1,
        1,
        results={("accepted", ""): [0, 1], ("gone", "Unregistered"): [2], (DOUBT, "unknown"): [3, 4]},
        retries=[RetryRow(5, 2.0, 2, "backoff", "status 503")],
        attempts=4,
        release=Release(9.0, "gate"),
    )
    counters.settled(settlement, lane=1, size=100, due_at=10.0, now=12.0)
    assert counters.outcomes == {("accepted", ""): 2, ("gone", "Unregistered"): 1}
    assert counters.retries == {("backoff", "status 503"): 1}
    assert (counters.released, counters.attempts, counters.bytes) == ({"gate": 1}, 4, 400)
    assert [sum(histogram.counts) for histogram in counters.lag] == [0, 2, 0]
    assert counters.lag[1].sum == 4.0
