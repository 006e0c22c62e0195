"""What an operator does to a running engine: hold, let go, mend a credential, ask why."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rig import FAST, fresh_storage, opened_again, register, running

from fanout.config import BindingSettings, Watcher, load
from fanout.core.delivery import Delivery, Message
from fanout.core.model import Notification
from fanout.core.policy import Policy
from fanout.core.secret import Secret
from fanout.engine import Engine, Renewer
from fanout.errors import ConfigurationError, NotFound, StorageUnavailable, UsageError
from fanout.plugin import ACCEPTED, Misconfigured, Outcome, Throttled, Unavailable
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio
HI = Notification(title="Hi")


class Turnstile:
    """Lets sends through one by one, as the test says."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[Outcome]] = []
        self.open = False

    def __call__(self, message: ScriptedMessage, delivery: Delivery) -> Outcome | asyncio.Future[Outcome]:
        if self.open:
            return ACCEPTED
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return future

    async def have(self, count: int) -> None:
        while len(self.waiting) < count:
            await asyncio.sleep(0.002)

    def release(self) -> None:
        self.open = True
        for future in self.waiting:
            future.done() or future.set_result(ACCEPTED)


async def test_after_pause_returns_only_what_was_in_flight_arrives() -> None:
    turnstile = Turnstile()
    transport = ScriptedTransport(turnstile, capacity=5)
    async with running(transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", *(f"phone-{n}" for n in range(100)))
        receipt = await engine.send(HI, "user:alice")
        await turnstile.have(5)

        pausing = asyncio.create_task(engine.pause(receipt.id))
        while not any(lease.prepared.stopped for d in engine._dispatchers for lease in d.state.leases.values()):
            await asyncio.sleep(0.001)
        turnstile.release()
        status = await pausing

        assert status.state == "paused"
        assert status.counts["accepted"] == transport.calls
        assert status.counts["accepted"] + status.counts["pending"] == 100
        assert status.pending_by_reason == {"paused": status.counts["pending"]}
        calls = transport.calls
        other = await engine.send(HI, "user:alice")
        assert (await other.wait(60)).counts["accepted"] == 100, "another notification is not held"
        assert transport.calls == calls + 100

        resumed = await engine.resume(receipt.id)
        assert resumed.state in ("running", "done")
        assert (await receipt.wait(60)).counts["accepted"] == 100
        assert transport.calls == 200


async def test_a_paused_retry_waits_and_comes_back_not_before_its_time() -> None:
    first = [True]

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if first[0]:
            first[0] = False
            return Throttled(0.3)
        return ACCEPTED

    async with running(answer) as (engine, transport):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        while not (await receipt.status()).pending_by_reason.get("backoff"):
            await asyncio.sleep(0.005)
        assert (await engine.pause(receipt.id)).pending_by_reason == {"paused": 1}
        await engine.resume(receipt.id)

        assert (await receipt.wait(60)).counts["accepted"] == 1
        assert [sent.attempt for sent in transport.sends] == [1, 2]


async def test_a_paused_binding_sends_nothing_and_loses_nothing() -> None:
    storage = fresh_storage()
    transports = {("default", "push"): ScriptedTransport(), ("default", "other"): ScriptedTransport()}
    async with running(storage=storage, transports=transports) as (engine, transport):
        await register(engine, "alice", "phone")
        await register(engine, "alice", "desk", binding="other")
        await engine.pause_binding("push")
        receipt = await engine.send(HI, "user:alice")
        while (await receipt.status()).counts["accepted"] < 1:
            await asyncio.sleep(0.005)

        status = await receipt.status()
        assert status.pending_by_reason == {"paused": 1}
        assert transport.sends == []

        await engine.resume_binding("push")
        assert (await receipt.wait(60)).counts["accepted"] == 2


async def test_cancel_while_paused() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone")
        await engine.pause_binding("push")
        receipt = await engine.send(HI, "user:alice")
        await engine.pause(receipt.id)

        assert (await engine.cancel(receipt.id)).counts["cancelled"] == 1
        await engine.resume_binding("push")
        await engine.resume(receipt.id)
        assert (await receipt.wait(60)).counts["cancelled"] == 1
        assert transport.sends == []


async def test_unknown_names_are_refused() -> None:
    async with running() as (engine, _):
        with pytest.raises(UsageError, match="has no binding 'nope'; it has push"):
            await engine.pause_binding("nope")
        with pytest.raises(UsageError, match="has no binding"):
            await engine.resume_binding("push", app="nobody")
        for call in (engine.pause, engine.resume):
            with pytest.raises(NotFound):
                await call("00000000-0000-7000-8000-000000000000")
        with pytest.raises(NotFound):
            await engine.explain("00000000-0000-7000-8000-000000000000", 1)


async def test_a_parked_binding_goes_on_when_somebody_says_that_it_is_mended() -> None:
    wrong = [True]

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        return Misconfigured("InvalidProviderToken") if wrong[0] else ACCEPTED

    async with running(answer, policy=Policy(probe=3600.0)) as (engine, _):
        await register(engine, "alice", *(f"phone-{n}" for n in range(50)))
        receipt = await engine.send(HI, "user:alice")
        while not await engine.gates():
            await asyncio.sleep(0.005)
        (gate,) = await engine.gates()
        assert (gate.waiting, gate.alarm, gate.whole) == ("breaker", True, True)
        later = await engine.send(HI, "user:alice")
        assert (await later.status()).pending_by_reason == {"breaker": 50}, "also what no worker has looked at"
        assert [e.kind async for e in engine.events()] == ["binding.parked"]
        wrong[0] = False

        await engine.resume_binding("push")

        assert (await receipt.wait(60)).counts["accepted"] == 50
        assert (await later.wait(60)).counts["accepted"] == 50
        while await engine.gates():
            await asyncio.sleep(0.005)
        assert "binding.opened" in [e.kind async for e in engine.events()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    key: Secret
    topic: str = "old"


class Named(ScriptedTransport):
    """Encodes its topic into each message, as a transport of its own kind would, and takes no other's."""

    def __init__(self, settings: Credential) -> None:
        self.key, self.topic = settings.key.reveal(), settings.topic
        self.topics: list[str] = []
        super().__init__(lambda m, d: ACCEPTED if self.key == "right" else Misconfigured("InvalidProviderToken"))

    def prepare(self, notification: Notification) -> ScriptedMessage:
        message = super().prepare(notification)
        return ScriptedMessage(message.notification, message.payload + b" " + self.topic.encode())

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        assert isinstance(message, ScriptedMessage)
        self.topics.append(message.payload.rpartition(b" ")[2].decode())
        return await super().send(message, delivery)


class Changeable:
    """A configuration with one binding in a folder, and what an engine needs to follow it."""

    def __init__(self, folder: Path) -> None:
        self.file, self.key = folder / "fanout.toml", folder / "key"
        self.made: list[Named] = []
        self.write("wrong")
        settings = load(self.file, lambda name, place: Credential, {})
        self.renewer = Renewer(Watcher(settings), self.make)
        self.transports = {("default", "push"): self.make("default", "push", settings.apps["default"]["push"])}

    def write(self, key: str, topic: str = "old") -> None:
        table = f'[apps.default.transports.push]\nkey_file = "key"\ntopic = "{topic}"\n'
        for path, text in ((self.key, key), (self.file, 'storage = "memory:"\n' + table)):
            fresh = path.with_name("fresh")
            fresh.write_text(text)
            os.replace(fresh, path)

    def make(self, app: str, binding: str, chosen: BindingSettings) -> Named:
        if chosen.settings.key.reveal() == "half":
            raise ConfigurationError("The key is half a key.")
        self.made.append(Named(chosen.settings))
        return self.made[-1]

    def running(self, **more: Any) -> Any:
        return running(
            transports={**self.transports},
            policy=Policy(probe=3600.0, request_timeout=1.0),
            renewer=self.renewer,
            **more,
        )


@pytest.fixture
def changeable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Changeable:
    monkeypatch.setattr("fanout.engine.renewal.EVERY", 0.01)
    return Changeable(tmp_path)


async def test_lines_of_the_audit_log_go_in_their_order_although_an_operator_looks_meanwhile(
    changeable: Changeable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two looks at once: the second finds the first at a line that is slow to be stored."""
    async with changeable.running() as (engine, _):
        told: list[str] = []
        slow = asyncio.Event()

        async def record(app: str, line: Any, now: float) -> None:
            if line.kind == "audit.binding.changed":
                await slow.wait()
            told.append(line.kind)

        monkeypatch.setattr(engine.storage, "record", record)
        renewal = engine._renewal
        renewal._lines += [("default", renewal._line(kind)) for kind in ("binding.changed", "config.taken")]
        first = asyncio.create_task(renewal._try_all_again())
        await asyncio.sleep(0)
        second = asyncio.create_task(renewal._try_all_again())
        await second
        slow.set()
        await first
        while renewal._lines:
            await asyncio.sleep(0.001)
    assert told == ["audit.binding.changed", "audit.config.taken"]


@pytest.mark.parametrize("topic", ["old", "new"])
async def test_a_replaced_credential_is_taken_into_use_without_loss(changeable: Changeable, topic: str) -> None:
    """What was encoded for the old settings is encoded anew, whether it waited in storage, in a cache or in hand."""
    async with changeable.running() as (engine, _):
        await register(engine, "alice", *(f"phone-{n}" for n in range(50)))
        receipt = await engine.send(HI, "user:alice")
        while not await engine.gates():
            await asyncio.sleep(0.005)
        changeable.write("half")
        while not engine.configuration.problem:
            await asyncio.sleep(0.005)
        assert "half a key" in engine.configuration.problem
        assert len(changeable.made) == 1, "a broken credential is not taken"

        changeable.write("right", topic)

        assert (await receipt.wait(60)).counts["accepted"] == 50
        assert len(changeable.made) == 2
        assert engine.transports["default", "push"] is changeable.made[1]
        assert set(changeable.made[1].topics) == {topic}
        assert (engine.configuration.taken, engine.configuration.problem) == (1, "")
        while not any(line.kind == "audit.config.taken" for line in await engine.storage.events(audit=True)):
            await asyncio.sleep(0.005)
        about = {"by": "config", "worker": engine.worker}
        assert [(line.app, line.kind, line.data) for line in await engine.storage.events(audit=True)] == [
            ("default", "audit.config.refused", about),
            ("default", "audit.binding.changed", {**about, "binding": "push"}),
            ("default", "audit.config.taken", {**about, "parts": ["apps.default.transports.push"]}),
        ]
    assert all(transport.opened == 1 and transport.closed >= 1 for transport in changeable.made)


async def test_resume_takes_what_stands_there_at_once(changeable: Changeable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.engine.renewal.EVERY", 3600.0)
    async with changeable.running() as (engine, _):
        await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        while not await engine.gates():
            await asyncio.sleep(0.005)
        changeable.write("right")
        await engine.resume_binding("push")
        assert (await receipt.wait(60)).counts["accepted"] == 1


async def test_a_line_that_storage_does_not_take_now_holds_up_no_change(
    changeable: Changeable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with changeable.running(role="submit") as (engine, _):
        record, away = engine.storage.record, [True]

        async def sometimes(*arguments: Any) -> None:
            if away[0]:
                raise StorageUnavailable("away")
            await record(*arguments)

        monkeypatch.setattr(engine.storage, "record", sometimes)
        for number, topic in enumerate(("new", "newer"), 1):
            changeable.write("right", topic)
            while engine.configuration.taken < number:
                await asyncio.sleep(0.005)
        away[0] = False
        while (await engine.storage.events(audit=True))[-1:] == []:
            await asyncio.sleep(0.005)
        (first, *_) = await engine.storage.events(audit=True)
        assert first.kind == "audit.binding.changed"


async def test_an_engine_that_only_accepts_follows_its_configuration_too(changeable: Changeable) -> None:
    async with changeable.running(role="submit") as (engine, _):
        changeable.write("right", "new")
        while not engine.configuration.taken:
            await asyncio.sleep(0.005)
        assert engine.transports["default", "push"] is changeable.made[1]


async def test_explain_lists_what_was_decided_in_order() -> None:
    turn = [0]

    def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        turn[0] += 1
        if turn[0] == 1:
            return Unavailable("unknown", reason="503 busy")
        return Throttled(0.01, reason="TooManyRequests") if turn[0] == 2 else ACCEPTED

    async with running(answer, policy=FAST) as (engine, _):
        (endpoint,) = await register(engine, "alice", "phone")
        receipt = await engine.send(HI, "user:alice")
        await receipt.wait(60)

        steps = await engine.explain(receipt.id, endpoint)

        assert [step.at for step in steps] == sorted(step.at for step in steps)
        assert steps[0].what == "accepted"
        retries = [(step.reason, step.attempt) for step in steps if step.what == "retry"]
        assert retries == [("503 busy", 2), ("TooManyRequests", 3)]
        assert (steps[-1].what, steps[-1].state) == ("ended", "accepted")
        with pytest.raises(NotFound, match="has no delivery for the endpoint 999"):
            await engine.explain(receipt.id, 999)


async def test_erasing_a_user_reaches_directory_and_queue() -> None:
    async with running() as (engine, transport):
        await register(engine, "alice", "phone", "tablet", tags=["news"])
        await register(engine, "bob", "desk", tags=["news"])
        await engine.pause_binding("push")
        receipt = await engine.send(HI, "topic:news")

        assert await engine.erase_user("alice") == 2
        await engine.resume_binding("push")

        status = await receipt.wait(60)
        assert status.counts["accepted"] == 1
        assert [sent.address for sent in transport.sends] == ["desk"]
        assert [e async for e in engine.endpoints.list(user="alice", state=None)] == []


async def test_a_drain_ends_where_only_paused_work_is_left_and_says_so() -> None:
    async with running() as (engine, _):
        await register(engine, "alice", "phone", "tablet")
        await engine.pause_binding("push")
        await engine.send(HI, "user:alice")

        async with asyncio.timeout(60):
            report = await engine.drain()

        assert report.parked == {"paused by an operator": 2}
        await engine.resume_binding("push")
        assert (await engine.drain()).clean


async def test_what_is_leased_at_the_moment_of_closing_is_given_back() -> None:
    storage = fresh_storage()
    lease = storage.lease
    leasing, go_on = asyncio.Event(), asyncio.Event()
    leased: list[int] = []

    async def slow(*arguments: Any, **named: Any) -> Any:
        chunks = await lease(*arguments, **named)
        if chunks:
            leased.append(len(chunks))
            leasing.set()
            await go_on.wait()
        return chunks

    storage.lease = slow  # type: ignore[method-assign]
    async with running(storage=storage, policy=FAST) as (engine, transport):
        await register(engine, "alice", "phone")
        await engine.send(HI, "user:alice")
        await leasing.wait()
        asyncio.get_running_loop().call_soon(lambda: closing(engine, go_on))
    async with running(storage=opened_again(storage), role="submit") as (engine, _):
        left = await engine.storage.outstanding()

    assert leased == [1]
    assert left == ({} if transport.sends else {"ready": 1}), "sent and stored, or given back; not left to run out"


def closing(engine: Engine, go_on: asyncio.Event) -> None:
    """Let the lease come back as soon as the engine has begun to close."""
    if engine._open:
        asyncio.get_running_loop().call_soon(lambda: closing(engine, go_on))
    else:
        go_on.set()
