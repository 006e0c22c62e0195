"""Every row of the table of answers: over the wire from the simulated services, and the order in which rows are
chosen."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.plugin import (
    ACCEPTED,
    Gone,
    Misconfigured,
    Moved,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from fanout_kit.examples import examples
from fanout_webpush.outcome import FALLBACK, TABLE, Answer, Crowd, Effect, code_of, of_answer, of_failure
from fanout_webpush.services import PLAIN, SAYS
from fanout_webpush.vendors import Vendor

M, G, A, E = Vendor.MOZILLA, Vendor.GOOGLE, Vendor.APPLE, Vendor.EDGE


def uncertain(reason: str) -> Outcome:
    return Gone(reason, certain=False)


def failed(reason: str, after: float | None = None) -> Outcome:
    return Unavailable("unknown", Scope.ENDPOINT, reason, after)


def stop(reason: str) -> Outcome:
    return Misconfigured(reason, Scope.GROUP)


def later(reason: str, after: float | None = None, scope: Scope = Scope.ENDPOINT) -> Outcome:
    return Throttled(after, scope, reason)


EXPECTED: dict[tuple[Vendor, str], Outcome] = {
    (M, "errno 101"): Rejected("errno 101"),
    (M, "errno 108"): Rejected("errno 108"),
    (M, "errno 110"): Rejected("errno 110"),
    (M, "errno 111"): Rejected("errno 111"),
    (M, "errno 112"): Rejected("errno 112"),
    (M, "errno 113"): Rejected("errno 113"),
    (M, "errno 114"): Rejected("errno 114"),
    (M, "errno 109"): stop("errno 109"),
    (M, "errno 102"): Gone("errno 102"),
    (M, "errno 103"): Gone("errno 103"),
    (M, "errno 105"): Gone("errno 105"),
    (M, "errno 106"): Gone("errno 106"),
    (M, "errno 104"): Rejected("errno 104"),
    (M, "errno 999"): failed("errno 999"),
    (M, "errno 900"): failed("errno 900"),
    (M, "errno 901"): failed("errno 901"),
    (M, "errno 902"): failed("errno 902"),
    (M, "errno 903"): failed("errno 903"),
    (M, "errno 201"): failed("errno 201", 120.0),
    (M, "errno 202"): failed("errno 202", 120.0),
    (G, "UnauthorizedRegistration"): uncertain("UnauthorizedRegistration"),
    (G, "key mismatch"): uncertain("key mismatch"),
    (G, "aud claim"): stop("aud claim"),
    (G, "MismatchSenderId"): uncertain("MismatchSenderId"),
    (G, "invalid endpoint"): later("invalid endpoint"),
    (G, "stale endpoint"): Gone("stale endpoint"),
    (G, "unsubscribed"): Gone("unsubscribed"),
    (E, "dropped"): Rejected("dropped"),
    (E, "ttl conflict"): Rejected("ttl conflict"),
    (E, "unauthorized"): stop("status 401"),
    (E, "gone"): Gone("status 410"),
    (E, "appthrottled"): later("appthrottled", 900.0, Scope.GROUP),
    (E, "channelthrottled"): later("channelthrottled", 900.0),
    (E, "appthrottled 429"): later("appthrottled", 900.0, Scope.GROUP),
    (E, "channelthrottled 429"): later("channelthrottled", 900.0),
    (E, "throttled"): later("status 406", 900.0),
    (E, "Domain Blocked"): stop("Domain Blocked"),
    (A, "BadTtl"): Rejected("BadTtl"),
    (A, "BadUrgency"): Rejected("BadUrgency"),
    (A, "BadWebPushTopic"): Rejected("BadWebPushTopic"),
    (A, "BadWebPushRequest"): Rejected("BadWebPushRequest"),
    (A, "VapidPkHashMismatch"): uncertain("VapidPkHashMismatch"),
    (A, "VapidPkHashMismatch 403"): uncertain("VapidPkHashMismatch"),
    (A, "BadAuthorizationHeader"): stop("BadAuthorizationHeader"),
    (A, "BadJwtToken"): stop("BadJwtToken"),
    (A, "BadVapidPublicKey"): stop("BadVapidPublicKey"),
    (A, "BadPath"): Gone("BadPath"),
    (A, "MethodNotAllowed"): Rejected("MethodNotAllowed"),
    (A, "Unregistered"): Gone("Unregistered"),
    (A, "PayloadTooLarge"): Rejected("PayloadTooLarge"),
    (A, "TooManyRequests"): later("TooManyRequests", 30.0),
    (A, "InternalServerError"): failed("InternalServerError"),
    (A, "ServiceUnavailable"): failed("ServiceUnavailable"),
    (A, "Shutdown"): Unavailable("no", Scope.ENDPOINT, "Shutdown"),
    (A, "IdleTimeout"): Unavailable("no", Scope.ENDPOINT, "IdleTimeout"),
}

PLAINLY: dict[str, Outcome] = {
    "301": Rejected("status 301"),
    "302": Rejected("status 302"),
    "307": Rejected("status 307"),
    "308": Rejected("status 308"),
    "400": Rejected("status 400"),
    "401": stop("status 401"),
    "403": stop("status 403"),
    "404": Gone("status 404"),
    "408": failed("status 408"),
    "410": Gone("status 410"),
    "413": Rejected("status 413"),
    "418": Rejected("status 418"),
    "429": later("status 429", 30.0),
    "500": failed("status 500"),
    "502": failed("status 502"),
    "503": failed("status 503", 0.0),
}


def test_every_answer_that_the_services_know_has_its_expectation() -> None:
    assert set(EXPECTED) == {(vendor, word) for vendor, said in SAYS.items() for word in said if word != "moved"}
    assert set(PLAINLY) == set(PLAIN)


def test_every_row_of_the_table_is_met_by_an_answer() -> None:
    met = set()
    for vendor, answers in SAYS.items():
        for said in answers.values():
            named = {name.lower(): value for name, value in said.headers.items()}
            code = code_of(vendor, said.body, named.get)
            met |= {(vendor, said.status, code), (vendor, 0, code), (vendor, said.status, "")}
    missing = set(TABLE) - met
    assert missing == {(A, 403, "")} - met


@pytest.mark.anyio
@pytest.mark.parametrize("vendor", [M, G, A, E])
async def test_what_each_vendor_says_over_the_wire(rig, vendor: Vendor) -> None:  # type: ignore[no-untyped-def]
    async with rig() as each:
        address = each.subscribe(vendor)
        for (whose, word), outcome in EXPECTED.items():
            if whose is vendor:
                each.simulator.script = lambda request, word=word: each.simulator.error(word, request)
                assert await each.send(address) == outcome, word


@pytest.mark.anyio
@pytest.mark.parametrize("vendor", [M, G, A, E])
async def test_what_any_server_may_say(rig, vendor: Vendor) -> None:  # type: ignore[no-untyped-def]
    differs = {(A, "403"): stop("status 403")}
    async with rig() as each:
        address = each.subscribe(vendor)
        for status, outcome in PLAINLY.items():
            each.simulator.script = lambda request, status=status: each.simulator.error(status, request)
            assert await each.send(address) == differs.get((vendor, status), outcome), status


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("vendor", [*Vendor])
def test_success_is_accepted(vendor: Vendor, status: int) -> None:
    assert of_answer(Answer(vendor, status)) == (ACCEPTED, Effect.NONE)


@pytest.mark.parametrize("status", [300, 303, 402, 405, 406, 421, 451, 499])
def test_other_redirects_and_client_errors_are_rejected(status: int) -> None:
    assert of_answer(Answer(Vendor.OTHER, status))[0] == Rejected(f"status {status}")


@pytest.mark.parametrize("vendor", [*Vendor])
def test_a_proxy_between_that_wants_credentials_is_about_no_message(vendor: Vendor) -> None:
    assert of_answer(Answer(vendor, 407)) == (Misconfigured("status 407", Scope.GROUP), Effect.NONE)


@pytest.mark.parametrize("status", [500, 501, 504, 520, 599])
def test_other_server_errors_are_failures(status: int) -> None:
    assert of_answer(Answer(Vendor.OTHER, status, after=7.0))[0] == failed(f"status {status}", 7.0)


def test_a_reason_decides_before_the_status() -> None:
    assert of_answer(Answer(A, 410, "VapidPkHashMismatch"))[0] == uncertain("VapidPkHashMismatch")
    assert of_answer(Answer(A, 410, "SomethingNew"))[0] == Gone("SomethingNew")
    assert of_answer(Answer(M, 410, "777"))[0] == Gone("errno 777")


def test_an_endpoint_that_chrome_calls_invalid_is_believed_the_third_time() -> None:
    outcomes = [of_answer(Answer(G, 403, "invalid endpoint", attempt=n))[0] for n in (1, 2, 3)]
    assert outcomes == [later("invalid endpoint"), later("invalid endpoint"), Rejected("invalid endpoint")]


def test_which_answers_ask_for_a_new_token() -> None:
    asking = {key for key, (_, effect) in TABLE.items() if effect is Effect.RENEW}
    assert asking == {(M, 401, "109"), (E, 401, ""), (A, 403, "BadJwtToken")}
    assert FALLBACK[401][1] is Effect.RENEW


@pytest.mark.parametrize(
    ("vendor", "body", "code"),
    [
        (M, b"", ""),
        (M, b"{", ""),
        (M, b"[]", ""),
        (M, b'{"errno":"109"}', ""),
        (M, b'{"errno":true}', ""),
        (M, b'{"errno":-5}', ""),
        (M, b'{"errno":109}', "109"),
        (A, b'{"reason":"BadTtl"}', "BadTtl"),
        (A, b'{"reason":5}', ""),
        (A, b'{"reason":"\\u0007"}', ""),
        (A, b"<html>", ""),
        (G, b"\xff\xfe", ""),
        (G, b"THE AUD CLAIM IN THE TOKEN", "aud claim"),
        (Vendor.OTHER, b'{"errno":109,"reason":"BadTtl"}', ""),
    ],
)
def test_a_body_of_any_form_is_read_or_ignored(vendor: Vendor, body: bytes, code: str) -> None:
    assert code_of(vendor, body, lambda name: None) == code


@given(
    st.sampled_from([*Vendor]),
    st.integers(100, 999),
    st.binary(max_size=200) | st.sampled_from([b'{"errno":', b'{"reason":{}}', b"[" * 5000, b'{"errno":1e400}']),
    st.none() | st.text(max_size=30),
)
@settings(max_examples=examples(300), deadline=None, derandomize=True)
def test_no_answer_breaks_the_reading(vendor: Vendor, status: int, body: bytes, header: str | None) -> None:
    code = code_of(vendor, body, lambda name: header)
    outcome, effect = of_answer(Answer(vendor, status, code))
    assert effect in Effect
    assert (outcome is ACCEPTED) == (200 <= status < 300 and code != "dropped")


@pytest.mark.parametrize("reason", ["connect", "dns", "tls", "alpn", "settings"])
def test_trouble_with_a_host_is_the_groups(reason: str) -> None:
    assert of_failure("no", reason) == Unavailable("no", Scope.GROUP, reason)


@pytest.mark.parametrize("reason", ["refused", "goaway", "reset", "timeout", "ping", "closed", "protocol", "malformed"])
def test_trouble_with_a_request_is_the_endpoints(reason: str) -> None:
    assert of_failure("unknown", reason) == Unavailable("unknown", Scope.ENDPOINT, reason)


def test_a_few_throttled_endpoints_are_no_crowd() -> None:
    crowd = Crowd()
    assert not any(crowd.throttled(0.1 * n, accepted=0) for n in range(19))


def test_a_crowd_is_when_most_are_throttled() -> None:
    crowd = Crowd()
    verdicts = [crowd.throttled(0.1 * n, accepted=1000) for n in range(30)]
    assert verdicts == [False] * 19 + [True] * 11


def test_no_crowd_among_many_accepted() -> None:
    crowd = Crowd()
    assert not any(crowd.throttled(0.1 * n, accepted=n * 10) for n in range(90))


def test_a_crowd_is_forgotten_with_its_window() -> None:
    crowd = Crowd()
    for n in range(19):
        crowd.throttled(0.1 * n, accepted=0)
    assert not crowd.throttled(60.0, accepted=0)


def test_moved_is_not_among_the_plain_outcomes() -> None:
    outcome, effect = of_answer(Answer(M, 301))
    assert not isinstance(outcome, Moved)
    assert effect is Effect.FOLLOW
    assert of_answer(Answer(G, 301))[1] is Effect.NONE
