"""Spans of attempts, through OpenTelemetry's own SDK."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import fanout
from fanout.bootstrap import SystemClock
from fanout.metrics.tracing import traced
from fanout.plugin import (
    ACCEPTED,
    Address,
    Context,
    Delivery,
    EndpointRow,
    Gone,
    Misconfigured,
    Notification,
    Run,
    Unavailable,
)
from fanout.testing.scripted import ScriptedTransport

pytestmark = pytest.mark.anyio

ADDRESS = "one-phone"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def wrapped(transport: Any, ratio: float, seed: int = 1) -> Any:
    context = Context(app="shop", binding="push", clock=SystemClock(), rng=random.Random(seed))
    return traced(transport, ratio, context=context, system="scripted")


async def attempt(transport: Any, times: int = 1) -> Any:
    async with transport:
        message = transport.prepare(Notification(id="n", title="T"))
        for _ in range(times):
            outcome = await transport.send(message, Delivery.of(Address(ADDRESS), attempt=2, ttl=60))
    return outcome


async def test_an_attempt_is_a_span(spans: InMemorySpanExporter) -> None:
    assert await attempt(wrapped(ScriptedTransport(), 1.0)) is ACCEPTED
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind, span.status.status_code) == ("send push", SpanKind.PRODUCER, StatusCode.UNSET)
    attributes = dict(span.attributes or {})
    assert attributes.pop("messaging.message.body.size") > 0
    assert attributes == {
        "messaging.system": "scripted",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "push",
        "messaging.message.id": "00000000-0000-5000-8000-000000000000",
        "fanout.app": "shop",
        "fanout.attempt": 2,
        "fanout.ttl": 60,
        "fanout.outcome": "accepted",
    }


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Gone("Unregistered"), StatusCode.UNSET),
        (Unavailable(reason="timeout"), StatusCode.ERROR),
        (Misconfigured("x" * 500), StatusCode.ERROR),
    ],
)
async def test_what_the_gateway_said(spans: InMemorySpanExporter, outcome: Any, status: StatusCode) -> None:
    assert await attempt(wrapped(ScriptedTransport(lambda message, delivery: outcome), 1.0)) is outcome
    (span,) = spans.get_finished_spans()
    attributes = dict(span.attributes or {})
    name = type(outcome).__name__.lower()
    assert (attributes["fanout.outcome"], attributes["error.type"]) == (name, name)
    assert attributes["fanout.reason"] == outcome.reason[:64]
    assert span.status.status_code is status


async def test_an_exception_keeps_its_type_and_no_text(spans: InMemorySpanExporter) -> None:
    def broken(message: Any, delivery: Any) -> Any:
        raise KeyError(delivery.address)

    with pytest.raises(KeyError):
        await attempt(wrapped(ScriptedTransport(broken), 1.0))
    (span,) = spans.get_finished_spans()
    assert dict(span.attributes or {})["error.type"] == "KeyError"
    assert ADDRESS not in span.to_json()
    assert not span.events


async def test_a_share_is_sampled_by_the_given_chance(spans: InMemorySpanExporter) -> None:
    transport = ScriptedTransport()
    await attempt(wrapped(transport, 0.1, seed=7), times=500)
    draws = random.Random(7)
    assert len(spans.get_finished_spans()) == sum(draws.random() < 0.1 for _ in range(500)) > 20
    assert transport.calls == 500


async def test_off_is_the_transport_itself() -> None:
    transport = ScriptedTransport()
    assert wrapped(transport, 0.0) is transport


async def test_it_is_a_setting(spans: InMemorySpanExporter, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fanout_apns.simulator import ApnsSimulator

    async with (
        ApnsSimulator() as apple,
        fanout.open(storage="memory:", transports={"apns": apple.settings()}, telemetry={"traces": 1}) as engine,
    ):
        await engine.endpoints.register(user="alice", binding="apns", address=apple.address(1))
        await (await engine.send(fanout.Notification(title="Hello"), "user:alice")).wait(60)
    (span,) = spans.get_finished_spans()
    assert (span.name, dict(span.attributes or {})["messaging.system"]) == ("send apns", "apns")
    assert apple.address(1) not in span.to_json()


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(fanout.ConfigurationError, match=r"telemetry\.traces is"):
        fanout.open(storage="memory:", transports={"apns": {}}, telemetry={"traces": share})


def test_without_opentelemetry_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(fanout.ConfigurationError, match="pip install opentelemetry-api"):
        wrapped(ScriptedTransport(), 0.5)


class Starting(ScriptedTransport):
    """Starts every run at once."""

    def start(self, run: Run) -> Sequence[int]:
        self.started = [row.id for row in run.rows]
        run.accept(range(len(run)))
        return []


async def test_sampled_deliveries_of_a_run_go_by_send(spans: InMemorySpanExporter) -> None:
    transport = Starting()
    tracer = wrapped(transport, 0.2, seed=3)
    taken: list[int] = []
    async with tracer:
        rows = [EndpointRow(n, f"phone-{n}", "", "", 0.0, 1, "active") for n in range(30)]
        message = transport.prepare(Notification(id="n", title="T"))
        run = Run(message, str, rows, lambda run, accepted, others: taken.extend(accepted))
        left = tracer.start(run)
        run.give_up(left)
        run.release()
        assert sorted([*taken, *left]) == list(range(30))
        assert transport.started == taken
        for index in left:
            await tracer.send(message, run.delivery(index))
    assert len(spans.get_finished_spans()) == len(left) > 2
    assert {span.attributes["messaging.message.id"] for span in spans.get_finished_spans()} == set(map(str, left))  # type: ignore[index]
    assert not hasattr(wrapped(ScriptedTransport(), 0.2), "start")
