"""The public surface as type-checkers see it. Nothing here is run: mypy --strict and pyright read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self, assert_type

import fanout
import fanout.sync
from fanout import plugin
from fanout.core.outcome import Outcome


async def asynchronous() -> None:
    opening: AbstractAsyncContextManager[fanout.Engine] = fanout.open(Path("fanout.toml"), role="submit")
    async with opening:
        pass
    async with fanout.open(storage="memory:", transports={"apns": {"topic": "x"}}, policy={"attempts": 3}) as engine:
        assert_type(engine, fanout.Engine)
        receipt = await engine.send(fanout.Notification(title="Hello"), "user:alice", idempotency_key="k", at=1.0)
        assert_type(receipt, fanout.Receipt)
        assert_type(receipt.id, str)
        assert_type(receipt.total, int | None)
        status = await receipt.wait(timeout=1.5)
        assert_type(status, fanout.Status)
        assert_type(status.counts, Mapping[str, int])
        many = await engine.send_many([(fanout.Notification(body="Hello"), fanout.Target.topic("news"))])
        assert_type(many, list[fanout.Receipt])
        endpoint = await engine.endpoints.register(user="alice", binding="apns", address="00", tags=["news"])
        assert_type(endpoint, fanout.Endpoint)
        assert_type(endpoint.state, fanout.EndpointState)
        async for one in engine.endpoints.list(user="alice"):
            assert_type(one, fanout.Endpoint)
        async for event in engine.events(after=3):
            assert_type(event, fanout.Event)
        live: AsyncIterator[fanout.LiveEvent] = engine.live()
        async for happened in live:
            assert_type(happened.kind, str)
        await engine.send("Hello", "user:alice")  # type: ignore[arg-type]
        fanout.open(role="boss")  # type: ignore[arg-type]


def blocking() -> None:
    with fanout.sync.open("fanout.toml") as engine:
        assert_type(engine, fanout.sync.Engine)
        receipt = engine.send(fanout.Notification(title="Hello"), fanout.Target.user("alice"))
        assert_type(receipt, fanout.sync.Receipt)
        assert_type(receipt.wait(1.0), fanout.Status)
        assert_type(engine.endpoints.list(), Iterator[fanout.Endpoint])
        assert_type(engine.cancel("id"), fanout.Status)
        fanout.sync.open(role="boss")  # type: ignore[arg-type]


def values() -> None:
    fanout.Notification(lane="fast")  # type: ignore[arg-type]
    fanout.Notification("Hello")  # type: ignore[call-arg]
    assert_type(fanout.Notification().ttl, float)
    assert_type(fanout.Target.parse("all"), fanout.Target)
    assert_type(fanout.__version__, str)
    fanout.nothing  # type: ignore[attr-defined]  # noqa: B018


def read(outcome: Outcome) -> str:
    """The outcomes are a closed union: with every case named, a checker knows that nothing is left."""
    match outcome:
        case fanout.Accepted(id):
            return id
        case fanout.Rejected(reason) | fanout.Gone(reason) | fanout.Misconfigured(reason) | fanout.Deferred(reason):
            return reason
        case fanout.Moved(address):
            return address.kind
        case fanout.Throttled(after):
            return str(after)
        case fanout.Unavailable(sent):
            return sent


class Carrier:
    """A transport that a stranger writes against `fanout.plugin` alone."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    def parse_address(self, raw: str | Mapping[str, Any]) -> plugin.Address:
        return plugin.Address(str(raw))

    def prepare(self, notification: plugin.Notification) -> plugin.Message:
        return plugin.Message(0)

    def capacity(self, group: str) -> int:
        return 1

    async def send(self, message: plugin.Message, delivery: plugin.Delivery) -> plugin.Outcome:
        return plugin.ACCEPTED

    async def check(self) -> plugin.Diagnosis:
        return plugin.Diagnosis()


def make(settings: object, context: plugin.Context) -> plugin.Transport:
    return Carrier()


descriptor = plugin.TransportPlugin(name="carrier", settings=dict, factory=make)
