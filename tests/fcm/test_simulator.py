"""The simulator is strict: what Google would refuse, it refuses."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest

from fanout.plugin import Accepted, Delivery, Notification
from fanout.testing.simulator import Reply, Request, read_ledger
from fanout.testing.simulator.answers import Peer
from fanout_fcm.simulator import REASONS, FcmSimulator
from fanout_fcm.simulator.schema import violations

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
TOKEN = FcmSimulator.address(1)
PATH = "/v1/projects/simulated-project/messages:send"


@pytest.fixture
def google(folder: Path) -> FcmSimulator:
    simulator = FcmSimulator(folder=folder, clock=lambda: NOW)
    simulator.tokens._given["good"] = NOW + 60
    return simulator


def request(body: object, path: str = PATH, method: str = "POST", **headers: str) -> Request:
    fields = {"authorization": "Bearer good", "content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Request(method, path, list(fields.items()), raw, Peer(1, None, 100))


def told(simulator: FcmSimulator, asked: Request) -> tuple[int, str, str]:
    """(HTTP status, status word, error code)."""
    reply = simulator.handle(asked)
    assert isinstance(reply, Reply)
    values = orjson.loads(reply.body)
    if "error" not in values:
        return reply.status, "", ""
    codes = [detail["errorCode"] for detail in values["error"].get("details", []) if "errorCode" in detail]
    return reply.status, values["error"]["status"], codes[0] if codes else ""


def message(**fields: Any) -> dict[str, Any]:
    return {"message": {"token": TOKEN, **fields}}


async def test_a_good_message_is_named(google: FcmSimulator) -> None:
    reply = google.handle(request(message(notification={"title": "T"})))
    assert isinstance(reply, Reply)
    assert orjson.loads(reply.body)["name"].startswith("projects/simulated-project/messages/0:")
    assert reply.push is not None


async def test_validate_only_is_no_push(google: FcmSimulator) -> None:
    for name in ("validateOnly", "validate_only"):
        reply = google.handle(request(message() | {name: True}))
        assert isinstance(reply, Reply)
        assert reply.push is None
        assert orjson.loads(reply.body)["name"].endswith("/fake_message_id")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(message(), path="/v1/projects/simulated-project/messages"), (404, "NOT_FOUND", "")),
        (request(message(), path="/fcm/send"), (404, "NOT_FOUND", "")),
        (request(message(), method="GET"), (404, "NOT_FOUND", "")),
        (request(message(), authorization="Bearer other"), (401, "UNAUTHENTICATED", "")),
        (request(message(), authorization="key=good"), (401, "UNAUTHENTICATED", "")),
        (request(message(), path="/v1/projects/other/messages:send"), (403, "PERMISSION_DENIED", "")),
        (request(b"{"), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (request(message(), content_type="text/plain"), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (request([]), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (request({}), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (request(message() | {"dryRun": True}), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (request({"message": {"token": "nonsense"}}), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
    ],
)
async def test_what_is_refused_in_google_s_order(
    google: FcmSimulator, asked: Request, expected: tuple[int, str, str]
) -> None:
    assert told(google, asked) == expected


async def test_an_expired_token_is_refused(google: FcmSimulator) -> None:
    google.tokens._given["good"] = NOW
    assert told(google, request(message()))[0] == 401


@pytest.mark.parametrize("reason", REASONS)
async def test_every_reason_has_its_form(google: FcmSimulator, reason: str) -> None:
    google.pause = 30
    reply = google.error(reason, request(message()))
    http, status, code = REASONS[reason]
    assert reply.status == http
    assert ("retry-after" in reply.headers) == (http in (429, 502, 503))
    if reason == "BAD_GATEWAY":
        assert reply.body.startswith(b"<!DOCTYPE html>")
        return
    error = orjson.loads(reply.body)["error"]
    assert (error["code"], error["status"]) == (http, status)
    assert [d["errorCode"] for d in error.get("details", []) if "errorCode" in d] == ([code] if code else [])


RIGHT: list[dict[str, Any]] = [
    {"token": "t"},
    {"fid": "f"},
    {"topic": "news"},
    {"condition": "'a' in topics"},
    {"token": "t", "android": {"ttl": "3.5s", "priority": "high", "collapse_key": "k", "direct_boot_ok": True}},
    {"token": "t", "androidV2": {"remoteNotification": {"notification": {"id": "1"}}, "backgroundSync": {}}},
    {"token": "t", "webpush": {"fcm_options": {"link": "https://example.com"}, "notification": {"x": [1]}}},
    {"token": "t", "apns": {"liveActivityToken": "x", "payload": {"aps": {"alert": "x"}}}},
    {"token": "t", "data": {"k": "x" * 4095}},
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "message"),
    ({"token": "t", "fid": "f"}, "message"),
    ({"token": 5}, "message.token"),
    ({"topic": "/topics/x"}, "message.topic"),
    ({"token": "t", "nonsense": 1}, "message.nonsense"),
    ({"token": "t", "data": {"n": 1}}, "message.data"),
    ({"token": "t", "data": {"from": "x"}}, "message.data"),
    ({"token": "t", "data": {"google.c": "x"}}, "message.data"),
    ({"token": "t", "data": {"gcm.notification.x": "x"}}, "message.data"),
    ({"token": "t", "android": {"ttl": 5}}, "message.android.ttl"),
    ({"token": "t", "android": {"ttl": "5"}}, "message.android.ttl"),
    ({"token": "t", "android": {"ttl": "2419201s"}}, "message.android.ttl"),
    ({"token": "t", "android": {"priority": "LOUD"}}, "message.android.priority"),
    ({"token": "t", "android": {"collapseKey": "k", "collapse_key": "k"}}, "message.android.collapse_key"),
    ({"token": "t", "android": {"notification": {"color": "red"}}}, "message.android.notification.color"),
    ({"token": "t", "android": {}, "androidV2": {}}, "message.android_v2"),
    ({"token": "t", "androidV2": {"priority": "HIGH"}}, "message.androidV2.priority"),
    ({"token": "t", "webpush": {"fcmOptions": {"link": "http://x"}}}, "message.webpush.fcmOptions.link"),
    ({"token": "t", "apns": {"headers": {"apns-priority": "10"}, "payload": {}}}, "message.apns.headers"),
    ({"token": "t", "apns": {"headers": {"apns-priority": "7"}}}, "message.apns.headers"),
    ({"token": "t", "apns": {"headers": {"apns-expiration": "x"}}}, "message.apns.headers"),
    ({"token": "t", "apns": {"headers": {"apns-collapse-id": "x" * 65}}}, "message.apns.headers"),
    ({"token": "t", "notification": "x"}, "message.notification"),
    ({"token": "t", "data": {"k": "x" * 4096}}, "message"),
    ({"topic": "news", "data": {"k": "x" * 2048}}, "message"),
    ({"token": "t", "fcmOptions": {"analyticsLabel": "a b"}}, "message.fcmOptions.analyticsLabel"),
]


@pytest.mark.parametrize("values", RIGHT, ids=str)
async def test_what_the_schema_takes(values: dict[str, Any]) -> None:
    assert violations(values) == []


@pytest.mark.parametrize(("values", "field"), WRONG, ids=lambda value: str(value)[:60])
async def test_what_the_schema_refuses(values: dict[str, Any], field: str) -> None:
    assert field in [name for name, _ in violations(values)]


# -- the token endpoint


def assertion(google: FcmSimulator, *, header: dict[str, Any] | None = None, key: str = "", **changes: Any) -> str:
    account = orjson.loads(google.service_account)
    claims = {
        "iss": account["client_email"],
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": int(NOW),
        "exp": int(NOW) + 3600,
    }
    claims |= changes
    claims = {name: value for name, value in claims.items() if value is not None}
    headers = {"kid": account["private_key_id"]} | (header or {})
    return jwt.encode(claims, key or account["private_key"], algorithm="RS256", headers=headers)


def form(text: str, grant: str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer") -> Request:
    body = f"grant_type={grant}&assertion={text}".encode()
    return request(body, path="/token", content_type="application/x-www-form-urlencoded")


def asked_for(google: FcmSimulator, asked: Request) -> tuple[int, dict[str, Any]]:
    reply = google.tokens.handle(asked)
    assert isinstance(reply, Reply)
    return reply.status, orjson.loads(reply.body) if reply.body else {}


async def test_a_right_assertion_gets_a_token_that_the_gateway_knows(google: FcmSimulator) -> None:
    status, values = asked_for(google, form(assertion(google)))
    assert (status, values["expires_in"], values["token_type"]) == (200, 3600, "Bearer")
    assert google.tokens.knows(values["access_token"])
    google.tokens.revoke()
    assert not google.tokens.knows(values["access_token"])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"iss": "other@x.iam.gserviceaccount.com"}, "invalid_grant"),
        ({"aud": "https://fcm.googleapis.com/"}, "invalid_grant"),
        ({"exp": int(NOW) + 3601}, "invalid_grant"),
        ({"exp": int(NOW) - 1}, "invalid_grant"),
        ({"iat": int(NOW) + 301, "exp": int(NOW) + 3000}, "invalid_grant"),
        ({"iat": None}, "invalid_grant"),
        ({"exp": None}, "invalid_grant"),
        ({"scope": "https://www.googleapis.com/auth/drive"}, "invalid_scope"),
        ({"scope": None}, "invalid_scope"),
        ({"header": {"kid": "other"}}, "invalid_grant"),
    ],
)
async def test_a_wrong_assertion_is_refused(google: FcmSimulator, changes: dict[str, Any], error: str) -> None:
    status, values = asked_for(google, form(assertion(google, **changes)))
    assert (status, values["error"]) == (400, error)


async def test_another_key_a_wrong_form_and_nonsense_are_refused(google: FcmSimulator, pem: str) -> None:
    good = assertion(google)
    assert asked_for(google, form(assertion(google, key=pem)))[1]["error"] == "invalid_grant"
    assert asked_for(google, form(good[:-8] + "AAAAAAAA"))[1]["error"] == "invalid_grant"
    assert asked_for(google, form("nonsense"))[1]["error"] == "invalid_grant"
    assert asked_for(google, form(""))[1]["error"] == "invalid_grant"
    assert asked_for(google, form(good, grant="password"))[1]["error"] == "unsupported_grant_type"
    assert asked_for(google, request(b"", path="/token"))[1]["error"] == "invalid_request"
    assert asked_for(google, request(b"", path="/other"))[0] == 404


# -- as a whole


async def test_the_ledger_knows_address_and_notification(folder: Path, tmp_path: Path, transport_to: Any) -> None:
    notification = Notification(title="T", id="01890a5d-ac96-774b-bcce-b302099a8057")
    for lean in (False, True):
        file = tmp_path / f"ledger-{lean}"
        async with FcmSimulator(folder=folder, ledger=file, lean=lean) as google, transport_to(google) as transport:
            message = transport.prepare(notification)
            addresses = [transport.parse_address(google.address(n, "fid" if n % 2 else "good")) for n in range(20)]
            outcomes = await asyncio.gather(*[transport.send(message, Delivery.of(a)) for a in addresses])
            assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        entries = list(read_ledger(file))
        assert {entry.address for entry in entries} == {address.digest for address in addresses}
        assert {entry.notification for entry in entries} == {notification.id}


async def test_it_keeps_its_key_over_a_restart(folder: Path) -> None:
    assert FcmSimulator(folder=folder).service_account == FcmSimulator(folder=folder).service_account


async def test_addresses_are_the_same_everywhere_and_differ() -> None:
    made = {FcmSimulator.address(n, word) for n in range(50) for word in FcmSimulator.behaviours}
    assert len(made) == 50 * len(FcmSimulator.behaviours)
    assert FcmSimulator.address(7) == FcmSimulator.address(7)


async def test_it_runs_as_a_process(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "fanout.testing.simulator", "fcm", "--ca-dir", str(tmp_path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    ready = orjson.loads(await process.stdout.readline())
    assert ready["name"] == "fcm"
    assert {"service_account", "gateway", "token_url", "ca_file"} <= set(ready["settings"])
    process.stdin.close()
    assert await process.wait() == 0
