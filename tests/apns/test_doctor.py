"""What `check` finds, and that it disturbs nobody."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fanout.plugin import Misconfigured, Secret, Throttled
from fanout.testing.simulator import Faults
from fanout_apns.diagnosis import diagnose
from fanout_apns.outcome import Answer, of_answer
from fanout_apns.simulator import REASONS, ApnsSimulator

pytestmark = pytest.mark.anyio

WORDS = {
    "InvalidProviderToken": ["team_id", "key_id", "key"],
    "MissingProviderToken": ["key_file"],
    "ExpiredProviderToken": ["clock"],
    "BadEnvironmentKeyIdInToken": ["environment = production"],
    "BadEnvironmentKeyInToken": ["environment = production"],
    "BadCertificate": ["cert_file"],
    "BadCertificateEnvironment": ["environment = production"],
    "Forbidden": ["active"],
    "TopicDisallowed": ["topic = com.example.app"],
    "BadTopic": ["topic = com.example.app"],
    "MissingTopic": ["topic"],
    "ServiceUnavailable": ["no answer"],
    "TooManyProviderTokenUpdates": ["too many tokens", "20 minutes"],
    "TooManyRequests": ["slow down"],
    "BadPath": ["gateway"],
}


@pytest.mark.parametrize("client", ["fanout", "aioapns"])
@pytest.mark.parametrize("auth", ["token", "certificate"])
async def test_all_is_well(opened: Any, auth: str, client: str) -> None:
    async with opened(auth=auth, client=client) as (apple, transport):
        diagnosis = await transport.check()
        assert diagnosis.ok
        assert "com.example.app" in diagnosis.detail
        assert (apple.counters.accepted, dict(apple.counters.rejected)) == (0, {"BadDeviceToken": 1})


@pytest.mark.parametrize("reason", sorted(WORDS))
async def test_each_trouble_has_its_remedy(opened: Any, reason: str) -> None:
    async with opened(simulator={"faults": Faults(errors={reason: 1.0})}) as (_, transport):
        diagnosis = await transport.check()
        assert not diagnosis.ok
        for word in WORDS[reason]:
            assert word in diagnosis.problem
        assert "{" not in diagnosis.problem


async def test_a_key_of_somebody_else(opened: Any, transport_to: Any) -> None:
    stranger = ec.generate_private_key(ec.SECP256R1())
    key = Secret(stranger.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    async with ApnsSimulator() as apple, transport_to(apple) as right:
        assert (await right.check()).ok
        for changes in ({"key": key.reveal()}, {"team_id": "OTHERTEAM1"}, {"key_id": "OTHERKEY11"}):
            async with transport_to(apple, **changes) as wrong:
                assert "belong together" in (await wrong.check()).problem
        async with transport_to(apple, topic="org.example.other") as wrong:
            assert "org.example.other" in (await wrong.check()).problem


async def test_a_gateway_that_accepts_anything_is_no_proof(opened: Any) -> None:
    async with opened(simulator={"lean": True}) as (_, transport):
        diagnosis = await transport.check()
        assert diagnosis.ok
        assert "no real gateway" in diagnosis.detail


def test_every_reason_that_parks_has_a_sentence_of_its_own() -> None:
    for reason, status in REASONS.items():
        if isinstance(of_answer(Answer(status, reason))[0], Misconfigured):
            assert reason in WORDS


def test_throttling_is_no_fault_of_the_settings() -> None:
    diagnosis = diagnose(Throttled(), None)  # type: ignore[arg-type]
    assert "slow down" in diagnosis.problem
