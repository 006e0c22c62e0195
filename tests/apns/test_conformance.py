"""Both clients keep the laws of a transport, with either way to authenticate."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from fanout.plugin import Gone, Misconfigured, Rejected, Throttled, Unavailable
from fanout.testing.simulator.gateway import SimulatorGateway
from fanout.testing.transport import CHECKS, SILENT, Subject
from fanout_apns.simulator import REASONS, ApnsSimulator
from fanout_apns.transport import ApnsTransport

pytestmark = pytest.mark.anyio

GONE = {"BadDeviceToken", "DeviceTokenNotForTopic", "ExpiredToken", "Unregistered"}
STOP = {"BadCertificate", "BadCertificateEnvironment", "BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken"}
STOP |= {"BadTopic", "Forbidden", "InvalidProviderToken", "MissingProviderToken", "MissingTopic", "TopicDisallowed"}
STOP |= {"ExpiredProviderToken"}  # of a young token
AGAIN = {"IdleTimeout", "InternalServerError", "ServiceUnavailable", "Shutdown", "TooManyProviderTokenUpdates"}
AGAIN |= {"UnrelatedKeyIdInToken"}


def expected(reason: str) -> type:
    if reason == "TooManyRequests":
        return Throttled
    kinds: list[tuple[set[str], type]] = [(GONE, Gone), (STOP, Misconfigured), (AGAIN, Unavailable)]
    return next((kind for reasons, kind in kinds if reason in reasons), Rejected)


def maker(transport_to: Callable[..., ApnsTransport], client: str, auth: str, name: str) -> Callable[[], object]:
    deadline = 2.0 if name in SILENT else 30.0

    @asynccontextmanager
    async def make() -> AsyncIterator[Subject]:
        async with ApnsSimulator(auth=auth) as apple:  # type: ignore[arg-type]
            gateway = SimulatorGateway(apple, {reason: expected(reason) for reason in REASONS})
            yield Subject(
                transport=transport_to(apple, client=client, request_timeout=deadline),
                address=lambda n: apple.address(n).upper(),
                gone=lambda n: apple.address(n, "dead"),
                invalid=["", "xyz", "abc", "0" * 15, "00 11" * 8, "<" + "0a" * 32 + ">", "ab" * 500, {"token": 5}, {}],
                secrets=[line for line in apple.key.splitlines() if not line.startswith("-----")],
                deadline=deadline,
                gateway=gateway,
            )

    return make


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize(("client", "auth"), [("fanout", "token"), ("fanout", "certificate"), ("aioapns", "token")])
async def test_law(transport_to: Callable[..., ApnsTransport], name: str, client: str, auth: str) -> None:
    await CHECKS[name](maker(transport_to, client, auth, name))  # type: ignore[arg-type]


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
@pytest.mark.parametrize("client", ["fanout", "aioapns"])
async def test_the_suite_on_uvloop(transport_to: Callable[..., ApnsTransport], client: str) -> None:
    pytest.importorskip("uvloop")
    for name, check in CHECKS.items():
        await check(maker(transport_to, client, "token", name))  # type: ignore[arg-type]
