"""What a stop leaves behind, and what a host reads of an engine: hooks, events, previews, roles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from holding import HI, Held
from rig import FAST, fresh_storage, register, running

from fanout.core.model import Notification
from fanout.engine import Engine
from fanout.errors import EngineClosed, MessageTooLarge
from fanout.plugin import ACCEPTED, Unavailable
from fanout.testing.scripted import ScriptedTransport

pytestmark = pytest.mark.anyio


async def test_leaving_gives_back_what_was_not_sent() -> None:
    """What is under way is awaited, the rest is somebody else's; nothing is lost or sent twice."""
    storage = fresh_storage()
    held = Held()
    first = ScriptedTransport(held)
    async with running(storage=storage, transports={("default", "push"): first}) as (engine, _):
        first.capacities[""] = 5
        for n in range(100):
            await register(engine, f"u{n}", f"d{n}")
        receipt = await engine.send(HI, "all")
        for _ in range(5):
            await held.begun.acquire()
        asyncio.get_running_loop().call_later(0.05, held.open.set)
    sent = [send.address for send in first.sends]
    assert len(sent) == 5

    async with running(storage=storage) as (engine, second):
        status = await engine.wait(receipt.id, 60)

    assert status.counts["accepted"] == 100
    assert len(second.sends) == 95
    assert not {send.address for send in second.sends} & set(sent)


async def test_leaving_is_bounded_although_a_gateway_hangs() -> None:
    held = Held()
    async with running(held, drain_timeout=0.05) as (engine, transport):
        await register(engine, "alice", "phone")
        await engine.send(HI, "user:alice")
        await held.begun.acquire()

    assert transport.in_flight == 0


async def test_what_the_host_raises_is_what_the_host_catches() -> None:
    with pytest.raises(ZeroDivisionError):
        async with running():
            raise ZeroDivisionError


async def test_no_task_is_left() -> None:
    before = asyncio.all_tasks()
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
        await (await engine.send(HI, "user:alice")).wait(60)

    assert asyncio.all_tasks() == before


async def test_a_closed_engine_says_so() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
    with pytest.raises(EngineClosed, match="inside"):
        await engine.send(HI, "user:alice")
    with pytest.raises(EngineClosed):
        await engine.endpoints.register(user="a", binding="push", address="b")


async def test_waiting_ends_when_the_engine_does() -> None:
    held = Held()
    async with running(held, drain_timeout=0.01) as (engine, transport):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        await held.begun.acquire()
        waiting = asyncio.create_task(receipt.wait())
        with pytest.raises(TimeoutError):
            await receipt.wait(0.01)
    with pytest.raises(EngineClosed):
        await waiting


async def test_hooks_and_live_events_tell_after_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Hooks:
        def on_settled(self, batch: object) -> None:
            said.extend(item.state for item in batch)  # type: ignore[attr-defined]

        def on_event(self, event: object) -> None:
            said.append(event.kind)  # type: ignore[attr-defined]

    class Rude:
        def on_settled(self, batch: object) -> None:
            raise RuntimeError("a hook's own fault")

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        async def committed(*arguments: Any, **named: Any) -> Any:
            answer = await call(*arguments, **named)
            said.append(name)
            return answer

        return committed

    async with running(hooks=[Rude(), Hooks()]) as (engine, transport):
        for name in ("put", "settle"):
            monkeypatch.setattr(engine.storage, name, noted(f"{name} committed", getattr(engine.storage, name)))
        await register(engine, "alice", "phone", "tablet")
        await (await engine.send(HI, "user:alice")).wait(60)

    assert said.count("accepted") == 2
    assert "finished" in said
    assert said.index("put committed") < said.index("put")
    assert said.index("settle committed") < min(said.index("settled"), said.index("accepted"))


async def test_the_durable_log_is_read_with_a_cursor_and_followed() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
        await (await engine.send(HI, "user:alice")).wait(60)
        events = [event async for event in engine.events()]
        cursor = events[-1].id
        assert [event async for event in engine.events(after=cursor)] == []

        follow = engine.events(after=cursor, follow=True)
        pending = asyncio.ensure_future(anext(follow))
        await (await engine.send(HI, "user:alice")).wait(60)
        event = await pending
        await follow.aclose()  # type: ignore[attr-defined]

        assert event.kind == "notification.finished"
        assert event.id > cursor


async def test_a_preview_puts_nothing() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone", "tablet")

        seen = await engine.preview(HI, "user:alice")

        assert seen.endpoints == {"push": 2}
        assert seen.sizes["push"] > 0
        assert transport.sends == []
        with pytest.raises(MessageTooLarge):
            await engine.preview(Notification(body="y" * 5000), "user:alice")


async def test_draining_ends_when_nothing_is_left() -> None:
    async with running(lambda m, d: ACCEPTED if d.attempt > 2 else Unavailable("unknown")) as (engine, transport):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice", at=time.time() + 0.1)

        report = await engine.drain()

        assert report.clean
        assert (await receipt.status()).counts["accepted"] == 1


async def test_import_takes_the_good_lines_and_names_the_bad() -> None:
    lines = [
        b'{"user":"alice","transport":"push","address":"a1","tags":["news"]}\n',
        b"no json\n",
        b'{"user":"bob","transport":"push"}\n',
        b'{"user":"bob","transport":"pigeon","address":"b"}\n',
        b"\n",
        b'{"user":"bob","transport":"push","address":"!!"}\n',
        b'{"user":"bob","transport":"push","address":"b1","color":"red"}\n',
        b'{"user":"bob","transport":"push","address":"b1"}\n',
    ]
    async with running() as (engine, transport):
        report = await engine.endpoints.import_(lines)

        assert report.imported == 2
        assert [line for line, _ in report.errors] == [2, 3, 4, 6, 7]
        assert all("!!" not in sentence for _, sentence in report.errors)
        assert "has push" in dict(report.errors)[4]


async def test_roles() -> None:
    storage = fresh_storage()
    async with running(storage=storage, role="submit") as (submitter, transport):
        await register(submitter, "alice", "phone")
        receipt = await submitter.send(HI, "user:alice")
        assert (await receipt.status()).counts["pending"] == 1
        assert transport.sends == []
    async with running(storage=storage, role="work") as (worker, transport):
        assert isinstance(worker, Engine)
        assert (await worker.wait(receipt.id, 60)).counts["accepted"] == 1


def test_it_runs_in_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> int:
        async with running(policy=FAST) as (engine, transport):
            await register(engine, "alice", "phone")
            return (await (await engine.send(HI, "user:alice")).wait(60)).counts["accepted"]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == 1
