"""Each answer of Apple's, through TLS and HTTP/2, with both clients."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from fanout.plugin import (
    ACCEPTED,
    Action,
    Delivery,
    Gone,
    Misconfigured,
    Notification,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.testing.simulator import Faults, Reply
from fanout_apns.payload import SUFFIXES
from fanout_apns.simulator import REASONS, ApnsSimulator
from fanout_apns.transport import ApnsTransport

pytestmark = pytest.mark.anyio

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
HELLO = Notification(id=ID, title="Hello")
SINCE = 1_700_000_000.0


def unavailable(sent: Any, reason: str) -> Outcome:
    return Unavailable(sent, Scope.ENDPOINT, reason)


EXPECTED: dict[str, Outcome] = {
    "BadCollapseId": Rejected("BadCollapseId"),
    "BadDeviceToken": Gone("BadDeviceToken", certain=False),
    "BadExpirationDate": Rejected("BadExpirationDate"),
    "BadMessageId": Rejected("BadMessageId"),
    "BadPriority": Rejected("BadPriority"),
    "BadTopic": Misconfigured("BadTopic", Scope.TOPIC),
    "DeviceTokenNotForTopic": Gone("DeviceTokenNotForTopic", certain=False),
    "DuplicateHeaders": Rejected("DuplicateHeaders"),
    "IdleTimeout": unavailable("no", "IdleTimeout"),
    "InvalidPushType": Rejected("InvalidPushType"),
    "MissingDeviceToken": Rejected("MissingDeviceToken"),
    "MissingTopic": Misconfigured("MissingTopic", Scope.TOPIC),
    "PayloadEmpty": Rejected("PayloadEmpty"),
    "TopicDisallowed": Misconfigured("TopicDisallowed", Scope.TOPIC),
    "BadCertificate": Misconfigured("BadCertificate"),
    "BadCertificateEnvironment": Misconfigured("BadCertificateEnvironment"),
    "BadEnvironmentKeyIdInToken": Misconfigured("BadEnvironmentKeyIdInToken"),
    "BadEnvironmentKeyInToken": Misconfigured("BadEnvironmentKeyInToken"),
    "ExpiredProviderToken": Misconfigured(
        "ExpiredProviderToken (the token is young: the clock of this machine is wrong)"
    ),
    "Forbidden": Misconfigured("Forbidden"),
    "InvalidProviderToken": Misconfigured("InvalidProviderToken"),
    "MissingProviderToken": Misconfigured("MissingProviderToken"),
    "UnrelatedKeyIdInToken": unavailable("no", "UnrelatedKeyIdInToken"),
    "BadPath": Rejected("BadPath"),
    "MethodNotAllowed": Rejected("MethodNotAllowed"),
    "ExpiredToken": Gone("ExpiredToken", SINCE),
    "Unregistered": Gone("Unregistered", SINCE),
    "PayloadTooLarge": Rejected("PayloadTooLarge"),
    "TooManyProviderTokenUpdates": unavailable("no", "TooManyProviderTokenUpdates"),
    "TooManyRequests": Throttled(None, Scope.ENDPOINT, "TooManyRequests"),
    "InternalServerError": unavailable("unknown", "InternalServerError"),
    "ServiceUnavailable": unavailable("unknown", "ServiceUnavailable"),
    "Shutdown": unavailable("no", "Shutdown"),
}


async def send(transport: ApnsTransport, raw: str, notification: Notification = HELLO, **delivery: Any) -> Outcome:
    given = Delivery.of(transport.parse_address(raw), **({"id": str(uuid4())} | delivery))
    return await transport.send(transport.prepare(notification), given)


def test_the_expectations_are_complete() -> None:
    assert set(EXPECTED) == set(REASONS)


@pytest.mark.parametrize("client", ["fanout", "aioapns"])
@pytest.mark.parametrize("reason", sorted(REASONS))
async def test_each_reason(opened: Any, reason: str, client: str) -> None:
    async with opened(client=client, simulator={"dead_since": SINCE}) as (apple, transport):
        assert await send(transport, apple.address(1)) is ACCEPTED
        apple.faults = Faults(errors={reason: 1.0})
        assert await send(transport, apple.address(1)) == EXPECTED[reason]
        apple.faults = Faults()
        assert await send(transport, apple.address(1)) is ACCEPTED  # and it goes on
        assert not apple.counters.violations


@pytest.mark.parametrize("auth", ["token", "certificate"])
async def test_devices_of_each_kind(opened: Any, auth: str) -> None:
    async with opened(auth=auth, simulator={"dead_since": SINCE, "slow": 0.02}) as (apple, transport):
        outcomes = {word: await send(transport, apple.address(1, word)) for word in apple.behaviours}
        assert outcomes == {
            "good": ACCEPTED,
            "dead": Gone("Unregistered", SINCE),
            "bad": Gone("BadDeviceToken", certain=False),
            "other": Gone("DeviceTokenNotForTopic", certain=False),
            "throttled": Throttled(1.0, Scope.ENDPOINT, "TooManyRequests"),
            "slow": ACCEPTED,
        }
        assert await send(transport, apple.address(1, "throttled")) is ACCEPTED


@pytest.mark.parametrize("client", ["fanout", "aioapns"])
@pytest.mark.parametrize("push_type", sorted(SUFFIXES))
async def test_each_push_type_passes_the_strict_checks(opened: Any, push_type: str, client: str) -> None:
    notification = Notification(
        id=ID,
        title="t",
        expires_at=4e9,
        collapse_key="ü" * 50,
        transports={"apns": {"push_type": push_type}},
    )
    seen: list[dict[str, str]] = []
    async with opened(client=client) as (apple, transport):
        apple.script = lambda request: seen.append(request.headers)
        delivery = str(uuid4())
        assert await send(transport, apple.address(1), notification, id=delivery) is ACCEPTED
    [headers] = seen
    assert headers["apns-push-type"] == push_type
    assert headers["apns-topic"] == "com.example.app" + SUFFIXES[push_type]
    assert headers["apns-priority"] == ("5" if push_type == "background" else "10")
    assert abs(int(headers["apns-expiration"]) - 4_000_000_000) <= 1  # aioapns adds to its own clock
    assert len(headers["apns-collapse-id"]) == 48
    assert headers["apns-id"] == delivery
    assert headers["authorization"].startswith("bearer ")


async def test_a_whole_notification_arrives(opened: Any) -> None:
    bodies: list[bytes] = []
    async with opened() as (apple, transport):
        apple.pushes = []
        apple.script = lambda request: bodies.append(request.body)
        notification = Notification(
            id=ID,
            title="Hëllo",
            badge=1,
            actions=(Action("a", "A"),),
            data={"n": 1},
            transports={"apns": {"aps": {"x": 1}}},
        )
        delivery = str(uuid4())
        assert await send(transport, apple.address(1).upper(), notification, id=delivery) is ACCEPTED
        address = transport.parse_address(apple.address(1))
        assert apple.pushes == [(delivery, address.digest, ID)]
        assert bodies == [transport.prepare(notification).payload]


async def test_overrides_of_the_binding_come_before_those_of_the_transport(opened: Any) -> None:
    seen: list[str] = []
    notification = Notification(id=ID, title="t", transports={"apns": {"priority": 5}, "apns_sandbox": {"priority": 1}})
    for binding in ("apns", "apns_sandbox"):
        async with opened(binding=binding) as (apple, transport):
            apple.script = lambda request: seen.append(request.headers["apns-priority"])
            await send(transport, apple.address(1), notification)
    assert seen == ["5", "1"]


async def test_a_topic_of_its_own_that_apple_refuses_is_the_notification_s_fault(opened: Any) -> None:
    async with opened() as (apple, transport):
        other = Notification(id=ID, title="t", transports={"apns": {"topic": "org.example.other"}})
        assert await send(transport, apple.address(1), other) == Rejected("TopicDisallowed")
        assert await send(transport, apple.address(1)) is ACCEPTED


async def test_production_and_sandbox_side_by_side(transport_to: Any) -> None:
    async with ApnsSimulator() as production, ApnsSimulator(environment="sandbox") as sandbox:
        async with (
            transport_to(production) as first,
            transport_to(sandbox, binding="apns_sandbox") as second,
        ):
            assert await send(first, production.address(1)) is ACCEPTED
            assert await send(second, sandbox.address(2)) is ACCEPTED
        assert production.counters.accepted == sandbox.counters.accepted == 1


async def test_a_certificate_needs_no_topic_and_sends_no_token(opened: Any) -> None:
    seen: list[dict[str, str]] = []
    for topic in ("com.example.app", ""):
        async with opened(auth="certificate", topic=topic) as (apple, transport):
            apple.script = lambda request: seen.append(request.headers)
            assert await send(transport, apple.address(1)) is ACCEPTED
    assert [headers.get("apns-topic") for headers in seen] == ["com.example.app", None]
    assert not any("authorization" in headers for headers in seen)


async def test_one_stream_until_a_token_was_believed(opened: Any) -> None:
    async with opened(connections=1) as (apple, transport):
        apple.script = lambda request: Reply(200, after=0.01) if apple.counters.requests > 1 else None
        outcomes = await asyncio.gather(*[send(transport, apple.address(n)) for n in range(50)])
        assert set(outcomes) == {ACCEPTED}
        assert apple.counters.refused == 0
        assert apple.counters.connections == 1
        assert 1 < apple.counters.most_streams <= 50


async def test_odd_answers_are_outcomes_too(opened: Any) -> None:
    async with opened() as (apple, transport):
        for reply, expected in [
            (Reply(400), Rejected("status 400")),
            (Reply(400, body=b"<html>"), Rejected("status 400")),
            (Reply(503, {"retry-after": "7"}), Unavailable("unknown", reason="status 503", after=7.0)),
            (Reply(429, {"retry-after": "nonsense"}), Throttled(None, reason="status 429")),
            (Reply(500, body=b"x" * 200_000), unavailable("unknown", "status 500")),
            (Reply(410, body=b'{"reason":"Unregistered"}'), Gone("Unregistered")),
        ]:
            apple.script = lambda request, reply=reply: reply
            assert await send(transport, apple.address(1)) == expected


async def test_sending_before_opening_is_a_mistake_of_the_caller(transport_to: Any) -> None:
    async with ApnsSimulator() as apple:
        for client in ("fanout", "aioapns"):
            with pytest.raises(RuntimeError, match="not open"):
                await send(transport_to(apple, client=client), apple.address(1))
