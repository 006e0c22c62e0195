"""Every row of the tables, once as a function and once end to end, and everything that is not in them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.plugin import (
    ACCEPTED,
    Delivery,
    Gone,
    Misconfigured,
    Moved,
    Notification,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.testing.simulator import Reply
from fanout_fcm.address import RELAYED
from fanout_fcm.outcome import BY_ERROR_CODE, BY_HTTP, BY_STATUS, Answer, Reauthenticate, of_answer, of_failure
from fanout_kit.examples import examples

FCM = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD = "type.googleapis.com/google.rpc.BadRequest"
QUOTA = "type.googleapis.com/google.rpc.QuotaFailure"


def error(http: int, status: str = "", code: str = "", message: str = "", *details: dict[str, Any]) -> bytes:
    listed = [{"@type": FCM, "errorCode": code}] if code else []
    return orjson.dumps({"error": {"code": http, "message": message, "status": status, "details": [*listed, *details]}})


def field(name: str) -> dict[str, Any]:
    return {"@type": BAD, "fieldViolations": [{"field": name, "description": "wrong"}]}


def quota(subject: str, description: str = "") -> dict[str, Any]:
    return {"@type": QUOTA, "violations": [{"subject": subject, "description": description}]}


def unavailable(reason: str, after: float = 10.0) -> Unavailable:
    return Unavailable("unknown", Scope.ENDPOINT, reason, after)


INVALID = "INVALID_ARGUMENT"
PAGE = b"<html>Error 502 (Server Error)!!1 Please try again in 30 seconds.</html>"
ROWS: dict[str, tuple[int, bytes, str | None, Outcome]] = {
    "accepted": (200, b'{"name":"projects/p/messages/1"}', None, ACCEPTED),
    "accepted by a gateway of its own": (202, b"", None, ACCEPTED),
    "accepted without a body": (204, b"", None, ACCEPTED),
    "bad token, named as a field": (
        400,
        error(400, INVALID, INVALID, "x", field("message.token")),
        None,
        Gone(INVALID, certain=False),
    ),
    "bad id, named as a field": (
        400,
        error(400, INVALID, INVALID, "x", field("message.fid")),
        None,
        Gone(INVALID, certain=False),
    ),
    "bad token, told in words": (
        400,
        error(400, INVALID, INVALID, "The registration token is not a valid FCM registration token"),
        None,
        Gone(INVALID, certain=False),
    ),
    "bad token, told in other words": (
        400,
        error(400, INVALID, "", "Invalid registration token"),
        None,
        Gone(INVALID, certain=False),
    ),
    "bad payload": (
        400,
        error(400, INVALID, INVALID, "x", field("message.android.ttl")),
        None,
        Rejected(f"{INVALID} (message.android.ttl)"),
    ),
    "bad payload and bad token": (
        400,
        error(400, INVALID, INVALID, "x", field("message.token"), field("message.data")),
        None,
        Rejected(f"{INVALID} (message.token, message.data)"),
    ),
    "bad payload, unnamed": (400, error(400, INVALID, INVALID, "Android message is too big"), None, Rejected(INVALID)),
    "400 of a proxy": (400, b"no", None, Rejected("status 400")),
    "wrong Apple credential": (
        401,
        error(401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
        None,
        Misconfigured("THIRD_PARTY_AUTH_ERROR", Scope.GROUP),
    ),
    "wrong Apple credential, old name": (
        401,
        error(401, "UNAUTHENTICATED", "APNS_AUTH_ERROR"),
        None,
        Misconfigured("APNS_AUTH_ERROR", Scope.GROUP),
    ),
    "other project's token": (
        403,
        error(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
        None,
        Gone("SENDER_ID_MISMATCH", certain=False),
    ),
    "no permission": (403, error(403, "PERMISSION_DENIED"), None, Misconfigured("PERMISSION_DENIED")),
    "403 of a proxy": (403, b"", None, Misconfigured("status 403")),
    "unregistered": (404, error(404, "NOT_FOUND", "UNREGISTERED"), None, Gone("UNREGISTERED")),
    "wrong project": (404, error(404, "NOT_FOUND"), None, Misconfigured("NOT_FOUND")),
    "wrong address": (404, b"<html>", None, Misconfigured("status 404")),
    "project's quota": (
        429,
        error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "", quota("project:p")),
        None,
        Throttled(60.0, Scope.QUOTA, "QUOTA_EXCEEDED"),
    ),
    "project's quota with a time": (
        429,
        error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
        "17",
        Throttled(17.0, Scope.QUOTA, "QUOTA_EXCEEDED"),
    ),
    "device's quota": (
        429,
        error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "", quota("x", "Device message rate exceeded")),
        None,
        Throttled(60.0, Scope.ENDPOINT, "QUOTA_EXCEEDED"),
    ),
    "device's quota, told in words": (
        429,
        error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "Message rate for this device exceeded"),
        None,
        Throttled(60.0, Scope.ENDPOINT, "QUOTA_EXCEEDED"),
    ),
    "topic's quota": (
        429,
        error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", "", quota("topic:news")),
        None,
        Throttled(60.0, Scope.TOPIC, "QUOTA_EXCEEDED"),
    ),
    "quota without FcmError": (
        429,
        error(429, "RESOURCE_EXHAUSTED"),
        None,
        Throttled(60.0, Scope.QUOTA, "RESOURCE_EXHAUSTED"),
    ),
    "429 of a proxy": (429, b"slow down", None, Throttled(60.0, Scope.QUOTA, "status 429")),
    "internal": (500, error(500, "INTERNAL", "INTERNAL"), None, unavailable("INTERNAL")),
    "500 of a proxy": (500, b"", None, unavailable("status 500")),
    "bad gateway": (502, PAGE, None, unavailable("status 502", 30.0)),
    "bad gateway with a time": (502, PAGE, "45", unavailable("status 502", 45.0)),
    "unavailable": (503, error(503, "UNAVAILABLE", "UNAVAILABLE"), None, unavailable("UNAVAILABLE")),
    "unavailable with a time": (503, error(503, "UNAVAILABLE", "UNAVAILABLE"), "7", unavailable("UNAVAILABLE", 7.0)),
    "503 of a proxy": (503, b"", None, unavailable("status 503")),
    "504": (504, error(504, "DEADLINE_EXCEEDED"), None, unavailable("DEADLINE_EXCEEDED")),
    "504 of a proxy": (504, b"", None, unavailable("status 504")),
    "407": (407, b"", None, Misconfigured("status 407")),
    "408": (408, b"", None, unavailable("status 408")),
    "409": (409, error(409, "ABORTED"), None, unavailable("ABORTED")),
    "413": (413, b"", None, Rejected("status 413")),
    "unspecified": (500, error(500, "UNKNOWN", "UNSPECIFIED_ERROR"), None, unavailable("UNSPECIFIED_ERROR")),
    "unspecified 400": (400, error(400, "UNKNOWN", "UNSPECIFIED_ERROR"), None, unavailable("UNSPECIFIED_ERROR")),
    "a code of tomorrow": (403, error(403, "PERMISSION_DENIED", "NEW_CODE"), None, Misconfigured("NEW_CODE")),
    "a status of tomorrow": (418, error(418, "TEAPOT"), None, Rejected("TEAPOT")),
    "a redirect": (302, b"", "1", Misconfigured("status 302")),
    "nonsense": (599, b"\xff\x00", None, unavailable("status 599")),
}


@pytest.mark.anyio
async def test_retry_after_in_every_form(opened: Any) -> None:
    told = {
        "17": 17.0,
        "0": 0.0,
        "Sat, 21 Nov 2020 10:00:00 GMT": 0.0,
        "-5": 60.0,
        "1e12": 60.0,
        "soon": 60.0,
        "9" * 15: float("9" * 15),  # the policy caps it
    }
    async with opened() as (google, transport):
        message = transport.prepare(Notification(title="T"))
        address = transport.parse_address(google.address(1))
        for value, after in told.items():
            google.script = lambda request, value=value: Reply(
                429, {"retry-after": value}, error(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
            )
            outcome = await transport.send(message, Delivery.of(address))
            assert outcome == Throttled(after, Scope.QUOTA, "QUOTA_EXCEEDED"), value


def test_every_row_is_here() -> None:
    """So that a row that is added to a table is added to the tests."""
    parsed = [Answer.parse(http, body) for http, body, _, _ in ROWS.values()]
    assert set(BY_ERROR_CODE) <= {a.error_code for a in parsed}
    known = {a.status for a in parsed if a.error_code not in BY_ERROR_CODE} | {"INTERNAL", "UNAVAILABLE"}
    assert set(BY_STATUS) - known == {"UNAUTHENTICATED"}
    assert set(BY_HTTP) - {a.http for a in parsed if not a.status} == {401}


@pytest.mark.parametrize("name", ROWS)
def test_row(name: str) -> None:
    http, body, told, expected = ROWS[name]
    answer = Answer.parse(http, body, after=float(told) if told else None)
    if http == 302:
        assert of_answer(answer) == expected
        return
    assert of_answer(answer) == expected


@pytest.mark.anyio
@pytest.mark.parametrize("name", ROWS)
async def test_row_end_to_end(opened: Any, name: str) -> None:
    http, body, told, expected = ROWS[name]
    headers = {"retry-after": told} if told else {}
    async with opened() as (google, transport):
        google.script = lambda request: Reply(http, headers, body)
        message = transport.prepare(Notification(title="T"))
        address = transport.parse_address(google.address(1))
        outcome = await transport.send(message, Delivery.of(address))
        if isinstance(expected, Misconfigured) and expected.scope is Scope.GROUP:
            assert outcome == Misconfigured(expected.reason, Scope.ENDPOINT), "one device alone"
            outcome = await transport.send(message, Delivery.of(address, endpoint=2))
            assert isinstance(outcome, Moved)
            assert (outcome.address.value, outcome.address.group) == (address.value, RELAYED)
            outcome = await transport.send(message, Delivery.of(outcome.address, endpoint=2))
        assert outcome == expected
        assert google.tokens.counters.requests == 1
        if name == "accepted":
            assert outcome is ACCEPTED


@pytest.mark.parametrize("body", [error(401, "UNAUTHENTICATED"), b"", b"<html>"])
def test_401_asks_for_another_token_and_parks_the_second_time(body: bytes) -> None:
    made = of_answer(Answer.parse(401, body))
    assert isinstance(made, Reauthenticate)
    assert isinstance(made.outcome, Misconfigured)
    assert made.outcome.scope is Scope.BINDING


def test_unspecified_is_given_up_after_three_attempts_and_deletes_nothing() -> None:
    body = error(500, "UNKNOWN", "UNSPECIFIED_ERROR")
    kinds = [type(of_answer(Answer.parse(500, body, attempt=attempt))) for attempt in range(1, 6)]
    assert kinds == [Unavailable, Unavailable, Rejected, Rejected, Rejected]


@pytest.mark.parametrize("reason", ["connect", "dns", "tls", "alpn", "settings"])
def test_no_connection_is_the_group_s_affair(reason: str) -> None:
    assert of_failure("no", reason) == Unavailable("no", Scope.GROUP, reason)


@pytest.mark.parametrize(("sent", "reason"), [("no", "refused"), ("no", "goaway"), ("unknown", "timeout")])
def test_a_lost_request_is_its_own(sent: str, reason: str) -> None:
    assert of_failure(sent, reason) == Unavailable(sent, Scope.ENDPOINT, reason)  # type: ignore[arg-type]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "details", "status", "message", "@type", "errorCode"]), inner)
    ),
    max_leaves=20,
)


@settings(derandomize=True, deadline=None, max_examples=examples(400))
@given(http=st.integers(100, 599), body=st.binary(max_size=60) | JSON.map(lambda value: orjson.dumps(value)))
def test_no_answer_breaks_it(http: int, body: bytes) -> None:
    answer = Answer.parse(http, body)
    made = of_answer(answer)
    assert made is not None
    assert len(answer.word) <= 64
    assert (made is ACCEPTED) == (200 <= http < 300)


def test_a_reason_never_holds_what_the_gateway_echoes() -> None:
    token = "d" * 150
    made = of_answer(Answer.parse(400, error(400, INVALID, INVALID, f"bad {token}", field(f"message.{token}"))))
    assert token not in repr(made)
    made = of_answer(Answer.parse(429, error(429, "", "", f"device {token}", quota(token))))
    assert token not in repr(made)
