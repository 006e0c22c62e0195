"""The transport keeps the laws of a transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fanout.plugin import Gone, Misconfigured, Rejected, Throttled, Unavailable
from fanout.testing.simulator.gateway import SimulatorGateway
from fanout.testing.transport import CHECKS, SILENT, Subject
from fanout_fcm.simulator import REASONS, FcmSimulator
from fanout_fcm.transport import FcmTransport

pytestmark = pytest.mark.anyio

EXPECTED: dict[str, type] = {
    "INVALID_ARGUMENT": Rejected,
    "INVALID_TOKEN": Gone,
    "UNAUTHENTICATED": Misconfigured,
    "THIRD_PARTY_AUTH_ERROR": Misconfigured,
    "PERMISSION_DENIED": Misconfigured,
    "SENDER_ID_MISMATCH": Gone,
    "NOT_FOUND": Misconfigured,
    "UNREGISTERED": Gone,
    "PROJECT_QUOTA": Throttled,
    "DEVICE_QUOTA": Throttled,
    "TOPIC_QUOTA": Throttled,
    "INTERNAL": Unavailable,
    "BAD_GATEWAY": Unavailable,
    "UNAVAILABLE": Unavailable,
    "UNSPECIFIED_ERROR": Unavailable,
}


def maker(transport_to: Callable[..., FcmTransport], folder: Path, behaviour: str, name: str) -> Callable[[], Any]:
    deadline = 1.0 if name in SILENT else 30.0

    @asynccontextmanager
    async def make() -> AsyncIterator[Subject]:
        async with FcmSimulator(folder=folder) as google:
            key = google.service_account.split("-----")[2]
            yield Subject(
                transport=transport_to(google, request_timeout=deadline),
                address=lambda n: google.address(n, behaviour),
                gone=lambda n: google.address(n, "dead"),
                invalid=[
                    "",
                    "short",
                    "with space " * 5,
                    'quote"' * 9,
                    "é" * 40,
                    "a" * 5000,
                    {"token": 5},
                    {},
                    "{",
                    "[]",
                ],
                secrets=[line for line in key.split("\\n") if line],
                deadline=deadline,
                gateway=SimulatorGateway(google, EXPECTED),
            )

    return make


def test_every_answer_of_the_simulator_is_expected_here() -> None:
    assert set(EXPECTED) == set(REASONS)


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("behaviour", ["good", "fid"])
async def test_law(transport_to: Callable[..., FcmTransport], folder: Path, name: str, behaviour: str) -> None:
    await CHECKS[name](maker(transport_to, folder, behaviour, name))
