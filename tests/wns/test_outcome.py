"""Every row of the response table: on its own, and from the wire to the outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fanout.http.http1_values import Http1Response
from fanout.plugin import (
    Accepted,
    Delivery,
    Gone,
    Misconfigured,
    Notification,
    Outcome,
    Rejected,
    RequestFailed,
    Scope,
    Throttled,
    TokenError,
    Unavailable,
)
from fanout.testing.simulator import Reply
from fanout_wns.outcome import TABLE, Answer, of_answer, of_failure, of_token_error, read
from fanout_wns.simulator import REASONS

NOTE = Notification(title="t", id="01890a5d-ac96-774b-bcce-b302099a8057")

# (status, headers, body) of an answer, and what it means.
ROWS: list[tuple[int, dict[str, str], bytes, Outcome]] = [
    (200, {"X-WNS-Status": "received", "X-WNS-Msg-ID": "3CE38FF109E03A74"}, b"", Accepted()),
    (200, {"X-WNS-Status": "Received"}, b"", Accepted()),
    (200, {}, b"", Accepted()),
    (201, {"X-WNS-Status": "received"}, b"", Accepted()),
    (200, {"X-WNS-Status": "dropped"}, b"", Rejected("dropped")),
    (200, {"X-WNS-NotificationStatus": "dropped"}, b"", Rejected("dropped")),
    (200, {"X-WNS-Status": "received", "X-WNS-NotificationStatus": "received"}, b"", Accepted()),
    (200, {"X-WNS-Status": "channelthrottled"}, b"", Throttled(None, Scope.ENDPOINT, "channelthrottled")),
    (
        200,
        {"X-WNS-Status": "channelthrottled", "Retry-After": "60"},
        b"",
        Throttled(60.0, Scope.ENDPOINT, "channelthrottled"),
    ),
    (200, {"X-WNS-Status": "appthrottled"}, b"", Throttled(900.0, Scope.QUOTA, "appthrottled")),
    (400, {}, b"", Rejected("status 400")),
    (
        400,
        {"X-WNS-Error-Description": "Ttl value conflicts with X-WNS-Cache-Policy."},
        b"",
        Rejected("status 400: Ttl value conflicts with X-WNS-Cache-Policy."),
    ),
    (401, {}, b"", Misconfigured("status 401", Scope.BINDING)),
    (403, {}, b"", Misconfigured("status 403", Scope.BINDING)),
    (404, {}, b"", Gone("status 404")),
    (405, {}, b"", Rejected("status 405")),
    (406, {}, b"", Throttled(900.0, Scope.ENDPOINT, "status 406")),
    (406, {"Retry-After": "120"}, b"", Throttled(120.0, Scope.ENDPOINT, "status 406")),
    (406, {"X-WNS-CONTINUE-AFTER": "30"}, b"", Throttled(30.0, Scope.ENDPOINT, "status 406")),
    (
        406,
        {"Retry-After": "nonsense", "X-WNS-CONTINUE-AFTER": "31"},
        b"",
        Throttled(31.0, Scope.ENDPOINT, "status 406"),
    ),
    (
        406,
        {"X-WNS-Status": "channelthrottled", "Retry-After": "Fri, 15 Jan 2027 08:01:00 GMT"},
        b"",
        Throttled(60.0, Scope.ENDPOINT, "channelthrottled"),
    ),
    (406, {"X-WNS-Status": "appthrottled", "Retry-After": "900"}, b"", Throttled(900.0, Scope.QUOTA, "appthrottled")),
    (407, {"X-WNS-Error-Description": "no"}, b"<h1>Proxy</h1>", Misconfigured("status 407: no", Scope.GROUP)),
    (408, {}, b"", Unavailable("unknown", Scope.ENDPOINT, "status 408")),
    (410, {}, b"", Gone("status 410")),
    (410, {"X-WNS-Error-Description": "The channel expired"}, b"", Gone("status 410: The channel expired")),
    (
        410,
        {"X-WNS-Error-Description": "Domain Blocked"},
        b"",
        Misconfigured("domain blocked: Domain Blocked", Scope.BINDING),
    ),
    (
        410,
        {"X-WNS-Status": "dropped"},
        b"<h1>Domain  blocked</h1> DOMAIN BLOCKED",
        Misconfigured("domain blocked", Scope.BINDING),
    ),
    (413, {}, b"", Rejected("status 413")),
    (429, {}, b"", Throttled(900.0, Scope.QUOTA, "status 429")),
    (429, {"Retry-After": "60"}, b"", Throttled(60.0, Scope.QUOTA, "status 429")),
    (
        429,
        {"X-WNS-Status": "channelthrottled", "Retry-After": "60"},
        b"",
        Throttled(60.0, Scope.ENDPOINT, "channelthrottled"),
    ),
    (
        429,
        {"X-WNS-Error-Description": "Monthly Quota Exceeded"},
        b"",
        Misconfigured("monthly quota exceeded: Monthly Quota Exceeded", Scope.BINDING),
    ),
    (500, {}, b"", Unavailable("unknown", Scope.ENDPOINT, "status 500")),
    (503, {}, b"", Unavailable("unknown", Scope.ENDPOINT, "status 503")),
    (503, {"Retry-After": "30"}, b"", Unavailable("unknown", Scope.GROUP, "status 503", 30.0)),
    # Not in the table.
    (301, {"Location": "https://evil.example/"}, b"", Rejected("status 301")),
    (308, {}, b"", Rejected("status 308")),
    (418, {}, b"", Rejected("status 418")),
    (451, {"X-WNS-Status": "dropped"}, b"", Rejected("dropped")),
    (502, {}, b"", Unavailable("unknown", Scope.ENDPOINT, "status 502")),
    (599, {}, b"", Unavailable("unknown", Scope.ENDPOINT, "status 599")),
]
NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(("status", "headers", "body", "outcome"), ROWS)
def test_a_row(status: int, headers: dict[str, str], body: bytes, outcome: Outcome) -> None:
    from multidict import CIMultiDict, CIMultiDictProxy

    response = Http1Response(status, body, CIMultiDictProxy(CIMultiDict(headers)))
    assert of_answer(read(response, NOW)) == outcome


def test_the_rows_cover_the_table() -> None:
    tried = set()
    for status, headers, body, _ in ROWS:
        answer = read(_plain(status, headers, body), NOW)
        key = (200 if 200 <= status < 300 else status, answer.word)
        tried.add(key if key in TABLE else (key[0], ""))
    assert set(TABLE) <= tried


@pytest.mark.anyio
async def test_every_row_from_the_wire(opened: Callable[..., Any]) -> None:
    from fanout.testing.clock import VirtualClock

    clock = VirtualClock(NOW)
    async with opened(clock=clock) as (wns, transport):
        address = transport.parse_address(wns.address(1))
        message = transport.prepare(NOTE)
        for status, headers, body, outcome in ROWS:
            wns.script = lambda request, status=status, headers=headers, body=body: Reply(status, headers, body)
            assert await transport.send(message, Delivery.of(address)) == outcome, (status, headers)
        assert wns.counters.violations == []
        # One token at first, and one for the 401.
        assert wns.fetched == 2


def test_the_simulator_says_nothing_that_the_table_does_not_know() -> None:
    for status, headers in REASONS.values():
        answer = read(_plain(status, headers, b""), NOW)
        assert (status, answer.word) in TABLE or (status, "") in TABLE


def test_what_wns_says_is_cleaned() -> None:
    channel = "https://wns2-by3p.notify.windows.com/?token=AwYAAAB"
    for description in (channel, f"bad channel {channel}", "bad ?token=AwYAAAB", "<script>\x1b[0m"):
        answer = read(_plain(400, {"x-wns-error-description": description}, b""), NOW)
        shown = f"{of_answer(answer)!r}"
        assert "AwYAAAB" not in shown
        assert "<" not in shown.replace("<Scope", "")
    assert read(_plain(200, {"x-wns-status": channel}, b""), NOW).word == ""
    assert len(read(_plain(400, {"x-wns-error-description": "long " * 500}, b""), NOW).text) <= 120


@pytest.mark.parametrize("reason", ["connect", "dns", "tls", "timeout", "closed", "malformed"])
def test_failures(reason: str) -> None:
    assert of_failure(RequestFailed("no", reason)) == Unavailable("no", Scope.GROUP, reason)
    assert of_failure(RequestFailed("unknown", reason)) == Unavailable("unknown", Scope.ENDPOINT, reason)


def test_token_errors() -> None:
    assert of_token_error(TokenError("misconfigured", "No.")) == Misconfigured("No.", Scope.BINDING)
    assert of_token_error(TokenError("unavailable", "Down.", 5.0)) == Unavailable("no", Scope.BINDING, "Down.", 5.0)
    assert of_token_error(TokenError("unavailable", "Down.")) == Unavailable("no", Scope.BINDING, "Down.", 0.0)


def test_an_unknown_word_falls_back_to_the_status() -> None:
    assert of_answer(Answer(406, "newword")) == Throttled(900.0, Scope.ENDPOINT, "newword")
    assert of_answer(Answer(200, "newword")) == Accepted()


def _plain(status: int, headers: dict[str, str], body: bytes) -> Http1Response:
    return Http1Response(status, body, {name.lower(): value for name, value in headers.items()})


def test_a_connection_to_the_wrong_server_closes_no_host() -> None:
    failed = RequestFailed("no", "misdirected")
    assert of_failure(failed) == Unavailable("no", Scope.ENDPOINT, "misdirected")
