"""The simulator is as strict as Apple, asked by hyper-h2's own client (through httpx)."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jwt
import pytest

from fanout.plugin import Delivery, Notification
from fanout.testing.clock import VirtualClock
from fanout.testing.simulator import read_ledger
from fanout_apns.simulator import ApnsSimulator

pytestmark = pytest.mark.anyio

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
GOOD = b'{"aps":{"alert":"Hi"},"fanout":{"id":"01890a5d-ac96-774b-bcce-b302099a8057"}}'


def token(apple: ApnsSimulator, *, age: float = 0, now: float | None = None, **changes: Any) -> str:
    given = {"iss": apple.team_id, "kid": apple.key_id, "key": apple.key, "algorithm": "ES256"} | changes
    claims = {"iss": given["iss"], "iat": int((time.time() if now is None else now) - age)}
    return "bearer " + jwt.encode(claims, given["key"], algorithm=given["algorithm"], headers={"kid": given["kid"]})


class Client:
    def __init__(self, apple: ApnsSimulator, client: httpx.AsyncClient) -> None:
        self.apple, self.client = apple, client
        self.token = token(apple)  # each signature is another token to Apple

    async def post(
        self, path: str | None = None, body: bytes = GOOD, method: str = "POST", **changes: str | None
    ) -> tuple[int, str, httpx.Response]:
        headers: dict[str, str | None] = {
            "authorization": self.token if self.apple.auth == "token" else None,
            "apns_topic": self.apple.topic,
            "apns_push_type": "alert",
        }
        headers |= changes
        given = [(name.replace("_", "-"), value) for name, value in headers.items() if value is not None]
        url = self.apple.url + (path or f"/3/device/{self.apple.address(1)}")
        answer = await self.client.request(method, url, content=body, headers=given)
        return answer.status_code, answer.json()["reason"] if answer.content else "", answer


@asynccontextmanager
async def client_of(apple: ApnsSimulator, certificate: tuple[Path, Path] | None = None) -> AsyncIterator[Client]:
    context = ssl.create_default_context(cafile=apple.ca_file)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    async with httpx.AsyncClient(http2=True, verify=context, trust_env=False) as client:
        yield Client(apple, client)


async def test_a_right_push_is_taken(tmp_path: Path) -> None:
    async with ApnsSimulator(ledger=tmp_path / "ledger") as apple, client_of(apple) as client:
        status, reason, answer = await client.post(apns_id=ID)
        assert (status, reason, answer.headers["apns-id"]) == (200, "", ID)
        assert UUID((await client.post())[2].headers["apns-id"])  # made up where none was given
        [first, _] = read_ledger(tmp_path / "ledger")
        assert (first.delivery, first.notification) == (ID, ID)
        assert apple.counters.accepted == 2


WRONG: list[tuple[dict[str, Any], int, str]] = [
    ({"path": "/3/devices/abc"}, 404, "BadPath"),
    ({"path": "/3/device/ab/cd"}, 404, "BadPath"),
    ({"method": "GET"}, 405, "MethodNotAllowed"),
    ({"apns_id": "7"}, 400, "BadMessageId"),
    ({"apns_id": ID.replace("-", "")}, 400, "BadMessageId"),
    ({"apns_push_type": "sms"}, 400, "InvalidPushType"),
    ({"apns_priority": "7"}, 400, "BadPriority"),
    ({"apns_push_type": "background", "apns_priority": "10"}, 400, "BadPriority"),
    ({"apns_push_type": "background"}, 400, "BadPriority"),
    ({"apns_expiration": "tomorrow"}, 400, "BadExpirationDate"),
    ({"apns_expiration": "-1"}, 400, "BadExpirationDate"),
    ({"apns_collapse_id": "x" * 65}, 400, "BadCollapseId"),
    ({"apns_topic": None}, 400, "MissingTopic"),
    ({"authorization": None}, 403, "MissingProviderToken"),
    ({"authorization": "basic abc"}, 403, "MissingProviderToken"),
    ({"authorization": "bearer abc"}, 403, "InvalidProviderToken"),
    ({"authorization": "bearer a.b.c"}, 403, "InvalidProviderToken"),
    ({"apns_topic": "org.example.other"}, 400, "TopicDisallowed"),
    ({"apns_topic": "com.example.app.voip"}, 400, "BadTopic"),
    ({"apns_push_type": "voip"}, 400, "BadTopic"),
    ({"body": b"x" * 4097}, 413, "PayloadTooLarge"),
    ({"body": b"x" * 5121, "apns_push_type": "voip", "apns_topic": "com.example.app.voip"}, 413, "PayloadTooLarge"),
    ({"body": b""}, 400, "PayloadEmpty"),
    ({"body": b"{}"}, 400, "PayloadEmpty"),
    ({"body": b"{"}, 400, "PayloadEmpty"),
    ({"body": b"[1]"}, 400, "PayloadEmpty"),
    ({"path": "/3/device/"}, 400, "MissingDeviceToken"),
    ({"path": "/3/device/xyz"}, 400, "BadDeviceToken"),
    ({"path": "/3/device/abc"}, 400, "BadDeviceToken"),
    ({"path": "/3/device/" + "0" * 64}, 400, "BadDeviceToken"),
]


@pytest.mark.parametrize(("changes", "status", "reason"), WRONG)
async def test_each_mistake_has_apple_s_word(changes: dict[str, Any], status: int, reason: str) -> None:
    async with ApnsSimulator() as apple, client_of(apple) as client:
        assert (await client.post(**changes))[:2] == (status, reason)
        assert apple.counters.rejected == {reason: 1}


async def test_mistakes_are_found_in_apple_s_order() -> None:
    """With everything wrong at once, what is corrected first is path, then method, headers, token, topic, payload,
    device."""
    order = [
        "BadPath",
        "MethodNotAllowed",
        "BadMessageId",
        "InvalidProviderToken",
        "TopicDisallowed",
        "PayloadTooLarge",
    ]
    wrong: dict[str, Any] = {
        "path": "/2/device/bad",
        "method": "PUT",
        "apns_id": "7",
        "authorization": "bearer x",
        "apns_topic": "org.other",
        "body": b"x" * 9000,
    }
    async with ApnsSimulator() as apple, client_of(apple) as client:
        for right in wrong:
            assert (await client.post(**wrong))[1] == order.pop(0)
            wrong[right] = {"path": "/3/device/bad", "method": "POST", "apns_id": ID, "body": GOOD}.get(right)
            if right == "authorization":
                wrong[right] = token(apple)
            if right == "apns_topic":
                wrong[right] = apple.topic
        assert (await client.post(**wrong))[1] == "BadDeviceToken"


async def test_doubled_headers() -> None:
    async with ApnsSimulator() as apple, client_of(apple) as client:
        headers = [("authorization", token(apple)), ("apns-topic", apple.topic), ("apns-topic", apple.topic)]
        answer = await client.client.post(f"{apple.url}/3/device/{apple.address(1)}", content=GOOD, headers=headers)
        assert answer.json() == {"reason": "DuplicateHeaders"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"age": 3500}, ""),
        ({"age": 3700}, "ExpiredProviderToken"),
        ({"age": -100}, ""),
        ({"age": -900}, "InvalidProviderToken"),
        ({"iss": "OTHERTEAM1"}, "InvalidProviderToken"),
        ({"kid": "OTHERKEY11"}, "InvalidProviderToken"),
        ({"algorithm": "HS256", "key": "k" * 64}, "InvalidProviderToken"),
    ],
)
async def test_tokens(changes: dict[str, Any], reason: str) -> None:
    async with ApnsSimulator() as apple, client_of(apple) as client:
        assert (await client.post(authorization=token(apple, **changes)))[1] == reason


async def test_a_signature_by_another_key() -> None:
    async with ApnsSimulator() as apple, ApnsSimulator() as other, client_of(apple) as client:
        assert (await client.post(authorization=token(apple, key=other.key)))[1] == "InvalidProviderToken"


async def test_tokens_that_change_too_often() -> None:
    clock = VirtualClock()
    async with ApnsSimulator(clock=clock.now) as apple, client_of(apple) as client:
        tokens = [token(apple, age=age, now=clock.now()) for age in (0, 1, 2)]
        assert (await client.post(authorization=tokens[0]))[0] == 200
        assert (await client.post(authorization=tokens[1]))[:2] == (429, "TooManyProviderTokenUpdates")
        assert (await client.post(authorization=tokens[0]))[0] == 200  # the former one is still good
        clock.advance(20 * 60)
        assert (await client.post(authorization=tokens[2]))[0] == 200


async def test_dead_since_when() -> None:
    async with ApnsSimulator(dead_since=1_700_000_000.5) as apple, client_of(apple) as client:
        status, reason, answer = await client.post(f"/3/device/{apple.address(1, 'dead')}")
        assert (status, reason) == (410, "Unregistered")
        assert answer.json()["timestamp"] == 1_700_000_000_500
        apple.devices[apple.address(2)] = "bad"
        assert (await client.post(f"/3/device/{apple.address(2)}"))[1] == "BadDeviceToken"


async def test_certificates() -> None:
    async with ApnsSimulator(auth="certificate") as apple:
        good = apple.authority.client("com.example.app")
        async with client_of(apple, good) as client:
            assert (await client.post())[0] == 200
            assert (await client.post(apns_topic=None))[0] == 200
            assert (await client.post(apns_topic="org.other"))[1] == "TopicDisallowed"
            location = {"apns_topic": "com.example.app.location-query", "apns_push_type": "location"}
            assert (await client.post(**location))[1] == "TopicDisallowed"
        async with client_of(apple) as client:
            assert (await client.post())[1] == "Forbidden"


async def test_the_sandbox_names_the_push_once_more() -> None:
    async with ApnsSimulator(environment="sandbox") as apple, client_of(apple) as client:
        assert UUID((await client.post())[2].headers["apns-unique-id"])


async def test_the_lean_ledger_finds_the_ids(opened: Any, tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    async with opened(simulator={"lean": True, "ledger": path}) as (apple, transport):
        message = transport.prepare(Notification(id=ID, title="t"))
        address = transport.parse_address(apple.address(1))
        ids = [ID[:-1] + str(n) for n in range(10)]
        await asyncio.gather(*[transport.send(message, Delivery.of(address, id=one)) for one in ids])
        assert [(entry.delivery, entry.notification) for entry in read_ledger(path)] == [(one, ID) for one in ids]
        assert {entry.address for entry in read_ledger(path)} == {address.digest}
        assert apple.counters.unrecorded == 0


async def test_a_restarted_simulator_believes_the_same_key(tmp_path: Path) -> None:
    async with ApnsSimulator(folder=tmp_path) as apple:
        before = apple.settings()
    async with ApnsSimulator(folder=tmp_path, port=int(before["gateway"].rpartition(":")[2])) as apple:
        assert apple.settings() == before
        assert json.dumps(before)
