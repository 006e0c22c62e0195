"""The WNS transport keeps the laws of a transport, with either kind of token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from fanout.plugin import Gone, Misconfigured, Rejected, Throttled, Unavailable
from fanout.testing.simulator.gateway import SimulatorGateway
from fanout.testing.transport import CHECKS, SILENT, Subject
from fanout_wns.simulator import REASONS, WnsSimulator
from fanout_wns.transport import WnsTransport

pytestmark = pytest.mark.anyio

EXPECTED = {
    Gone: {"NotFound", "Gone"},
    Misconfigured: {"Unauthorized", "Forbidden", "DomainBlocked", "MonthlyQuota"},
    Throttled: {"channelthrottled", "appthrottled", "NotAcceptable", "AppThrottled", "TooMany"},
    Unavailable: {"RequestTimeout", "InternalError", "Down", "DownFor"},
}


def expected(reason: str) -> type:
    return next((kind for kind, reasons in EXPECTED.items() if reason in reasons), Rejected)


def maker(transport_to: Callable[..., WnsTransport], auth: str, name: str) -> Callable[[], object]:
    deadline = 2.0 if name in SILENT else 30.0

    @asynccontextmanager
    async def make() -> AsyncIterator[Subject]:
        async with WnsSimulator(auth=auth) as wns:  # type: ignore[arg-type]
            yield Subject(
                transport=transport_to(wns, request_timeout=deadline),
                address=wns.address,
                gone=lambda n: wns.address(n, "expired"),
                invalid=[
                    "",
                    "https://example.com/?token=abcdefgh",
                    "https://notify.windows.com",
                    "http://wns2-by3p.notify.windows.com/?token=abcdefgh",
                    {"uri": 5},
                    {},
                ],
                secrets=[wns.secret],
                deadline=deadline,
                gateway=SimulatorGateway(wns, {reason: expected(reason) for reason in REASONS}),
            )

    return make


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("auth", ["entra", "live"])
async def test_law(transport_to: Callable[..., WnsTransport], name: str, auth: str) -> None:
    await CHECKS[name](maker(transport_to, auth, name))  # type: ignore[arg-type]
