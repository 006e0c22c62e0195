"""The laws of a transport, with each vendor's answers, both encryptions, and both protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fanout.plugin import Gone, Misconfigured, Rejected, Throttled, Unavailable
from fanout.testing.simulator.gateway import SimulatorGateway
from fanout.testing.transport import CHECKS, SILENT, Subject
from fanout_webpush.services import SAYS
from fanout_webpush.simulator import WebPushSimulator
from fanout_webpush.transport import WebPushTransport
from fanout_webpush.vendors import Vendor

pytestmark = pytest.mark.anyio

GONE = {
    "errno 102",
    "errno 103",
    "errno 105",
    "errno 106",
    "stale endpoint",
    "unsubscribed",
    "gone",
    "Unregistered",
    "BadPath",
    "UnauthorizedRegistration",
    "key mismatch",
    "MismatchSenderId",
    "VapidPkHashMismatch",
    "VapidPkHashMismatch 403",
}
STOP = {
    "errno 109",
    "unauthorized",
    "aud claim",
    "Domain Blocked",
    "BadAuthorizationHeader",
    "BadJwtToken",
    "BadVapidPublicKey",
}
AGAIN = {"errno 999", "errno 900", "errno 901", "errno 902", "errno 903", "errno 201", "errno 202", "IdleTimeout"}
AGAIN |= {"InternalServerError", "ServiceUnavailable", "Shutdown"}
LATER = {"invalid endpoint", "appthrottled", "channelthrottled", "throttled", "TooManyRequests"}
LATER |= {"appthrottled 429", "channelthrottled 429"}


def expected(word: str) -> type:
    kinds: list[tuple[set[str], type]] = [(GONE, Gone), (STOP, Misconfigured), (AGAIN, Unavailable), (LATER, Throttled)]
    return next((kind for words, kind in kinds if word in words), Rejected)


def maker(
    transport_to: Callable[..., WebPushTransport], vendor: Vendor, protocols: tuple[str, ...], name: str, **changes: Any
) -> Callable[[], object]:
    deadline = 1.0 if name in SILENT else 30.0

    @asynccontextmanager
    async def make() -> AsyncIterator[Subject]:
        async with WebPushSimulator(protocols=protocols) as server:
            answers = {word: expected(word) for word in SAYS[vendor] if word != "moved"}
            browsers = {behaviour: {} for behaviour in ("good", "dead")}  # type: ignore[var-annotated]

            def browser(number: int, behaviour: str = "good") -> Any:
                known = browsers[behaviour]
                if number not in known:
                    known[number] = server.subscribe(f"u{number}", vendor=vendor, behaviour=behaviour)
                return known[number]

            pem = server.settings()["vapid_private_key"]
            good = server.subscribe("x", vendor=vendor)
            yield Subject(
                transport=transport_to(server, request_timeout=deadline, **changes),
                address=browser,
                gone=lambda n: browser(n, "dead"),
                invalid=[
                    "",
                    "xyz",
                    "{}",
                    {"endpoint": good["endpoint"]},
                    {**good, "endpoint": "https://127.0.0.1/secret"},
                ],
                secrets=[line for line in pem.splitlines() if not line.startswith("-----")],
                deadline=deadline,
                gateway=SimulatorGateway(server, answers),
            )

    return make


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("vendor", [*SAYS])
async def test_law(transport_to: Callable[..., WebPushTransport], name: str, vendor: Vendor) -> None:
    await CHECKS[name](maker(transport_to, vendor, ("h2", "http/1.1"), name))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CHECKS)
async def test_law_over_http1(transport_to: Callable[..., WebPushTransport], name: str) -> None:
    await CHECKS[name](maker(transport_to, Vendor.GOOGLE, ("http/1.1",), name))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CHECKS)
async def test_law_with_pywebpush(transport_to: Callable[..., WebPushTransport], name: str) -> None:
    pytest.importorskip("pywebpush")
    await CHECKS[name](maker(transport_to, Vendor.MOZILLA, ("h2",), name, encryption="pywebpush"))  # type: ignore[arg-type]
