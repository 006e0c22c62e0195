"""Refused callers leave a trace that names what they were refused for, and nothing that they wrote."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest
from edgerig import APP_KEY, request, running
from hypothesis import given
from hypothesis import strategies as st

from fanout.config import Limits
from fanout.metrics import render
from fanout.service.auth import Caller
from fanout.service.security import LINES_OF_PEER, LINES_PER_MINUTE, SecurityEvents

anyio = pytest.mark.anyio
SECRET = "fak_0123456789ab_" + "s" * 43


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "fanout.security"]


@anyio
@pytest.mark.parametrize(
    ("data", "status", "reason", "route"),
    [
        (request("GET", "/v1/endpoints/77?secret=tag"), 401, "missing", "GET /v1/endpoints/*"),
        (request("DELETE", "/v1/users/alice", f"Authorization: Bearer {SECRET}"), 401, "key", "DELETE /v1/users/*"),
        (
            request("GET", "/v1/me/feed", f"Authorization: Bearer {APP_KEY.key.reveal()}"),
            403,
            "user_only",
            "/v1/me/feed",
        ),
        (request("GET", "/wp-admin/alice.php", "Host: other"), 400, "invalid", "GET /*/*"),
        (request("GET", "/a", "X-Long: " + "x" * 40_000), 431, "headers", "GET /*"),
        (request("GET", "/v1/endpoints", "Authorization: Basic YTpi"), 401, "missing", "GET /v1/endpoints"),
    ],
)
async def test_an_event_names_reason_route_and_peer_and_nothing_that_was_written(
    caplog: pytest.LogCaptureFixture, data: bytes, status: int, reason: str, route: str
) -> None:
    async with running() as rig:
        answer = await rig.one(data)
        assert answer.status == status
        (line,) = lines(caplog)
        assert f"({reason}, {status})" in line
        assert "peer 127.0.0.1," in line
        assert route in line
        assert answer.headers["request-id"] in line
        for written in ("alice", "secret", "tag", SECRET, "YTpi", "x" * 20):
            assert written not in line
        app = "default" if reason == "user_only" else ""
        assert rig.app.state.service.security.summed() == {(app, reason): 1}
        metrics = await render(rig.engine, refused=rig.app.state.service.security.summed())
        assert f'fanout_refusals_total{{app="{app}",reason="{reason}"}} 1' in metrics.decode()


@anyio
async def test_what_is_only_wrong_is_no_event(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as rig:
        key = f"Authorization: Bearer {APP_KEY.key.reveal()}"
        for data in (
            request("GET", "/v1/endpoints", key),
            request("GET", "/v1/endpoints/77", key),
            request("POST", "/v1/notifications", key, "Content-Type: application/json", body=b"{"),
        ):
            await rig.one(data)
        assert lines(caplog) == []


@anyio
async def test_an_attack_is_counted_whole_and_logged_in_part(caplog: pytest.LogCaptureFixture) -> None:
    async with running(limits=Limits(failures_per_minute=30)) as rig:
        for _ in range(40):
            await rig.one(request("GET", "/v1/endpoints"))
        assert rig.app.state.service.security.summed() == {("", "missing"): 30, ("", "failures"): 10}
        assert Counter("missing" in line for line in lines(caplog))[True] == LINES_OF_PEER


@anyio
async def test_too_many_bad_credentials_are_429_and_a_good_one_is_served_all_the_same() -> None:
    async with running(limits=Limits(failures_per_minute=3)) as rig:
        bad = request("GET", "/v1/endpoints", f"Authorization: Bearer {SECRET}")
        good = request("GET", "/v1/endpoints", f"Authorization: Bearer {APP_KEY.key.reveal()}")
        assert [(await rig.one(bad)).status for _ in range(4)] == [401, 401, 401, 429]
        refused = await rig.one(bad)
        assert refused.json()["error"]["innerError"]["code"] == "failures"
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert (await rig.one(good)).status == 200


@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from(["a", "b"]), st.floats(0, 5)), max_size=400))
def test_no_minute_has_more_lines_than_the_limits_allow(events: list[tuple[int, str, float]]) -> None:
    written: list[tuple[float, str, str]] = []
    made, now = SecurityEvents(), 0.0

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            arguments: Any = record.args
            written.append((now, arguments[2], arguments[0]))

    logger = logging.getLogger("fanout.security")
    handler = Handler()
    logger.addHandler(handler)
    try:
        for peer, reason, step in events:
            now += step
            made.refused(
                reason=reason,
                status=401,
                peer=f"10.0.0.{peer}",
                method="GET",
                path="/",
                request_id="-",
                caller=None,
                now=now,
            )
    finally:
        logger.removeHandler(handler)
    assert sum(made.counts.values()) == len(events)
    for at, peer, reason in written:
        near = [line for line in written if at <= line[0] < at + 60]
        assert len(near) <= 2 * LINES_PER_MINUTE
        assert sum(line[1:] == (peer, reason) for line in near) <= 2 * LINES_OF_PEER


@given(st.text(max_size=200))
def test_a_route_holds_only_words_of_routes(path: str) -> None:
    made = SecurityEvents(["/v1/users/{user:path}", "/health"])
    assert set(made.route("/" + path).split("/")) <= {"", "*", "v1", "users", "health"}


def test_the_client_of_a_good_credential_is_named(caplog: pytest.LogCaptureFixture) -> None:
    caller = Caller("shop", "alice", "client-7", frozenset(), "delegated")
    SecurityEvents().refused(
        reason="rate", status=429, peer="", method="G\nT", path="/x", request_id="r", caller=caller, now=0.0
    )
    (line,) = lines(caplog)
    assert "app shop, client client-7, * /*, request r" in line
    assert "alice" not in line
