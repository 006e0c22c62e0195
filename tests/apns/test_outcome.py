"""The table of Apple's answers, apart from any connection."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.plugin import ACCEPTED, Gone, Misconfigured, Rejected, Scope, Throttled, Unavailable
from fanout_apns.outcome import FALLBACK, TABLE, Answer, Effect, by_our_clock, of_answer, of_failure, parse_body
from fanout_apns.simulator import REASONS
from fanout_kit.examples import examples

OUTCOMES = (type(ACCEPTED), Gone, Misconfigured, Rejected, Throttled, Unavailable)


STATUSES: dict[str, int] = {
    "BadCollapseId": 400,
    "BadDeviceToken": 400,
    "BadExpirationDate": 400,
    "BadMessageId": 400,
    "BadPriority": 400,
    "BadTopic": 400,
    "DeviceTokenNotForTopic": 400,
    "DuplicateHeaders": 400,
    "IdleTimeout": 400,
    "InvalidPushType": 400,
    "MissingDeviceToken": 400,
    "MissingTopic": 400,
    "PayloadEmpty": 400,
    "TopicDisallowed": 400,
    "BadCertificate": 403,
    "BadCertificateEnvironment": 403,
    "BadEnvironmentKeyIdInToken": 403,
    "BadEnvironmentKeyInToken": 403,
    "ExpiredProviderToken": 403,
    "Forbidden": 403,
    "InvalidProviderToken": 403,
    "MissingProviderToken": 403,
    "UnrelatedKeyIdInToken": 403,
    "BadPath": 404,
    "MethodNotAllowed": 405,
    "ExpiredToken": 410,
    "Unregistered": 410,
    "PayloadTooLarge": 413,
    "TooManyProviderTokenUpdates": 429,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
}
"""Every reason with its status, as Apple's page on responses has them: written down apart from the table, which they
check."""


def test_the_table_has_each_reason_with_its_status() -> None:
    assert {(status, reason) for reason, status in STATUSES.items()} == set(TABLE)
    assert STATUSES == REASONS


def test_success() -> None:
    assert of_answer(Answer(200)) == (ACCEPTED, Effect.NONE)


def test_the_time_of_death_is_handed_on() -> None:
    assert of_answer(Answer(410, "Unregistered", since=1_700_000_000.5))[0] == Gone("Unregistered", 1_700_000_000.5)
    assert of_answer(Answer(410, "ExpiredToken"))[0] == Gone("ExpiredToken", None)


@pytest.mark.parametrize("reason", ["BadDeviceToken", "DeviceTokenNotForTopic"])
def test_deaths_that_our_mistake_could_cause_are_uncertain(reason: str) -> None:
    assert of_answer(Answer(400, reason))[0] == Gone(reason, certain=False)


def test_a_throttled_device_holds_up_only_itself() -> None:
    assert of_answer(Answer(429, "TooManyRequests", after=7.0))[0] == Throttled(7.0, Scope.ENDPOINT, "TooManyRequests")


@pytest.mark.parametrize("reason", ["TopicDisallowed", "BadTopic", "MissingTopic"])
def test_a_topic_of_the_notification_s_own_parks_nobody_else(reason: str) -> None:
    assert of_answer(Answer(400, reason))[0] == Misconfigured(reason, Scope.TOPIC)
    assert of_answer(Answer(400, reason), own_topic=False)[0] == Rejected(reason)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(400, "NewReason"), Rejected("NewReason")),
        (Answer(400), Rejected("status 400")),
        (Answer(418), Rejected("status 418")),
        (Answer(403, "NewReason"), Misconfigured("NewReason")),
        (Answer(403), Misconfigured("status 403")),
        (Answer(410, "NewReason", 5.0), Gone("NewReason", certain=False)),
        (Answer(429, "NewReason"), Throttled(None, Scope.ENDPOINT, "NewReason")),
        (Answer(500, "NewReason"), Unavailable("unknown", reason="NewReason")),
        (Answer(502), Unavailable("unknown", reason="status 502")),
        (Answer(503, after=3.0), Unavailable("unknown", reason="status 503", after=3.0)),
        (Answer(301), Misconfigured("status 301")),
        (Answer(302), Misconfigured("status 302")),
        (Answer(308), Misconfigured("status 308")),
        (Answer(407), Misconfigured("status 407")),
        (Answer(408), Unavailable("unknown", reason="status 408")),
        (Answer(202), ACCEPTED),
        (Answer(204), ACCEPTED),
    ],
)
def test_answers_that_are_not_in_the_table(answer: Answer, expected: object) -> None:
    assert of_answer(answer) == (expected, Effect.NONE)


def test_every_status_and_reason_has_one_outcome() -> None:
    reasons = ["", "Unknown", *REASONS]
    for status, reason in itertools.product(range(100, 600), reasons):
        outcome, effect = of_answer(Answer(status, reason))
        assert isinstance(outcome, OUTCOMES)
        assert effect is Effect.NONE or (status, reason) in TABLE
    assert set(FALLBACK) <= {403, 407, 408, 410, 429}


@pytest.mark.parametrize("sent", ["no", "unknown"])
@pytest.mark.parametrize("reason", ["refused", "goaway", "reset", "timeout", "closed", "overload"])
def test_a_failure_says_what_was_sent(sent: str, reason: str) -> None:
    assert of_failure(sent, reason, b"") == (Unavailable(sent, Scope.ENDPOINT, reason), Effect.NONE)  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", ["connect", "dns", "tls", "alpn", "settings"])
def test_no_connection_is_the_group_s_affair(reason: str) -> None:
    assert of_failure("no", reason, b"")[0] == Unavailable("no", Scope.GROUP, reason)


def test_a_goaway_names_its_reason() -> None:
    def at(reason: str) -> object:
        return of_failure("unknown", "goaway", b'{"reason":"%s"}' % reason.encode())

    assert at("BadCertificate") == (Misconfigured("BadCertificate"), Effect.NONE)
    assert at("ExpiredProviderToken") == (Unavailable("no", reason="ExpiredProviderToken"), Effect.RENEW)
    assert at("Shutdown") == (Unavailable("unknown", reason="Shutdown"), Effect.NONE)
    assert at("Unheard") == (Unavailable("unknown", reason="Unheard"), Effect.NONE)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", ("", None)),
        (b'{"reason":"Unregistered","timestamp":1700000000500}', ("Unregistered", 1_700_000_000.5)),
        (b'{"reason":"Unregistered","timestamp":"soon"}', ("Unregistered", None)),
        (b'{"reason":"Unregistered","timestamp":true}', ("Unregistered", None)),
        (b'{"reason":7}', ("", None)),
        (b'{"reason":"a\\nb"}', ("", None)),
        (b"[]", ("", None)),
        (b"<html>", ("", None)),
        (b'{"reason":"' + b"x" * 500 + b'"}', ("x" * 64, None)),
    ],
)
def test_bodies_are_data(body: bytes, expected: tuple[str, float | None]) -> None:
    assert parse_body(body) == expected


@settings(derandomize=True, deadline=None, max_examples=examples(300))
@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode()))
def test_no_body_raises(body: bytes) -> None:
    reason, since = parse_body(body)
    assert isinstance(reason, str)
    assert since is None or isinstance(since, float)


@pytest.mark.parametrize("off", [0.0, 8 * 3600.0, -8 * 3600.0])
def test_when_a_token_died_is_told_by_our_clock(off: float) -> None:
    """Apple's answer says when the token died and what time it is: registrations are dated by ours, which may be
    another."""
    died, answered = 1_798_761_600.0 - 100, "Fri, 01 Jan 2027 00:00:00 GMT"
    assert by_our_clock(died, answered, 1_798_761_600.0 + off) == died + off
    assert by_our_clock(died, None, 5.0) == died
    assert by_our_clock(died, "soon", 5.0) == died
    assert by_our_clock(None, answered, 5.0) is None
    assert by_our_clock(died + 3600, answered, 1_798_761_600.0 + off) == 1_798_761_600.0 + off, "not in the future"
