"""The engine's door: a call from another loop does nothing at all; what cannot be stored is refused before anything
is."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from rig import register, running

from fanout.core.model import Notification, Target
from fanout.engine import Engine
from fanout.errors import AddressInvalid, EngineClosed, InvalidMessage, UsageError, WrongLoop
from fanout.plugin import ACCEPTED, Address, Misconfigured, Moved, Outcome, Rejected
from fanout.testing.scripted import ScriptedTransport

pytestmark = pytest.mark.anyio

HI = Notification(title="Hi")


def calls(engine: Engine, id: str, endpoint: int) -> dict[str, Callable[[], Any]]:
    """Every public call of an engine and its directory, each as it would succeed in the right loop."""
    directory = engine.endpoints
    known = directory.registration(user="alice", binding="push", address="other")
    given: dict[str, tuple[Any, ...]] = {
        "send": (HI, "user:alice"),
        "send_many": ([(HI, "user:alice")],),
        "request": (HI, "user:alice"),
        "preview": (HI, "user:alice"),
        **dict.fromkeys(("status", "wait", "cancel", "pause", "resume", "deliveries"), (id,)),
        **dict.fromkeys(("pause_binding", "resume_binding"), ("push",)),
        "explain": (id, endpoint),
        **dict.fromkeys(("erase_user", "export_user"), ("alice",)),
    }
    named: dict[str, dict[str, Any]] = {"accept": {"app": "default", "requests": [engine.request(HI, "user:alice")]}}
    of_directory: dict[str, tuple[Any, ...]] = {
        "register_many": ([known],),
        "intern": ("push", ["stray"]),
        **dict.fromkeys(("get", "remove", "restore"), (endpoint,)),
        "import_": ([b'{"user": "bob", "transport": "push", "address": "imported"}'],),
    }
    whom = {"user": "alice", "binding": "push", "address": "other"}
    directory_named: dict[str, dict[str, Any]] = {"registration": whom, "register": whom}
    found: dict[str, Callable[[], Any]] = {}
    for owner, prefix, plain, keyed in (
        (engine, "", given, named),
        (directory, "endpoints.", of_directory, directory_named),
    ):
        for name in dir(owner):
            if name.startswith("_") or not callable(getattr(owner, name)) or f"{prefix}{name}" == "endpoints.change":
                continue
            found[f"{prefix}{name}"] = _bound(getattr(owner, name), plain.get(name, ()), keyed.get(name, {}))
    return found


def _bound(method: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Callable[[], Any]:
    return lambda: method(*given, **named)


async def _finish(answer: Any) -> None:
    if inspect.isawaitable(answer):
        await answer
    elif hasattr(answer, "__anext__"):
        await anext(answer)


def _in_another_loop(call: Callable[[], Any]) -> None:
    async def there() -> None:
        await _finish(call())

    asyncio.run(there())


def _refusal(call: Callable[[], Any]) -> BaseException | None:
    try:
        _in_another_loop(call)
    except Exception as error:
        return error
    return None


async def test_a_call_from_another_loop_or_from_none_does_nothing() -> None:
    async with running() as (engine, transport):
        (endpoint,) = await register(engine, "alice", "phone")
        first = await engine.send(HI, "user:alice")
        assert (await first.wait(60)).counts["accepted"] == 1
        device = await engine.endpoints.get(endpoint)
        every = calls(engine, first.id, endpoint)
        every["receipt.wait"], every["receipt.status"], every["receipt.cancel"] = first.wait, first.status, first.cancel
        every["endpoints.change"] = lambda: engine.endpoints.change(device, platform="", tags=["new"], expires_at=None)
        every["leaving"] = lambda: engine.__aexit__(None, None, None)
        every["live events"] = _bound(engine.live().__anext__, (), {})
        before = await engine.storage.changes()

        for name, call in every.items():
            said = await asyncio.to_thread(_refusal, call)
            assert isinstance(said, WrongLoop), (name, said)
        for name in ("request", "live", "endpoints.registration"):
            with pytest.raises(WrongLoop):
                await asyncio.to_thread(every[name])

        assert await engine.storage.changes() == before
        assert [found.id async for found in engine.endpoints.list(state=None)] == [endpoint]
        assert len(transport.sends) == 1
        assert (await engine.send(HI, "user:alice")).total == 1


async def test_the_wrong_loop_is_misuse_and_a_closed_engine() -> None:
    assert issubclass(WrongLoop, UsageError)
    assert issubclass(WrongLoop, EngineClosed)
    async with running() as (engine, _):
        pass
    with pytest.raises(EngineClosed, match="not open"):
        await asyncio.to_thread(_in_another_loop, lambda: engine.send(HI, "user:alice"))


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("messages", lambda e: e.send_many("ab")),
        ("messages", lambda e: e.send_many([HI])),
        ("idempotency_keys", lambda e: e.send_many([(HI, "all")] * 3, idempotency_keys="abc")),
        ("idempotency_keys", lambda e: e.send_many([(HI, "all")] * 3, idempotency_keys=["a"])),
        ("idempotency_keys", lambda e: e.send_many([(HI, "all")] * 3, idempotency_keys=[])),
        ("idempotency_key", lambda e: e.send(HI, "all", idempotency_key=5)),
        ("idempotency_key", lambda e: e.send(HI, "all", idempotency_key="\x00")),
        ("app", lambda e: e.send(HI, "all", app=["default"])),
        ("notification", lambda e: e.send({"title": "Hi"}, "all")),
        ("target", lambda e: e.send(HI, ["user:alice"])),
        ("addresses", lambda e: e.endpoints.intern("push", "abc")),
        ("ids", lambda e: e.endpoints.remove("12")),
        ("ids", lambda e: e.endpoints.restore(b"12")),
        ("id", lambda e: e.endpoints.remove(True)),
        ("id", lambda e: e.endpoints.remove(["1"])),
        ("id", lambda e: e.endpoints.get("1")),
        ("id", lambda e: e.endpoints.get(2**70)),
        ("lines", lambda e: e.endpoints.import_(b"{}")),
        ("registrations", lambda e: e.endpoints.register_many("ab")),
        ("registrations", lambda e: e.endpoints.register_many([{"user": "alice"}])),
        ("id", lambda e: e.status("\ud800")),
        ("id", lambda e: e.cancel(5)),
        ("endpoint", lambda e: e.explain("0198", "1")),
        ("user", lambda e: e.erase_user("\x00")),
        ("user", lambda e: anext(e.export_user("\x00"))),
        ("user", lambda e: anext(e.export_user(""))),
        ("app", lambda e: anext(e.export_user("alice", app="\x00"))),
        ("state", lambda e: anext(e.deliveries("0198", state="sent"))),
        ("state", lambda e: anext(e.endpoints.list(state="dead"))),
        ("tag", lambda e: anext(e.endpoints.list(tag="\x00"))),
        ("binding", lambda e: e.pause_binding(["push"])),
    ],
)
async def test_an_argument_is_refused_by_its_name(field: str, call: Callable[[Engine], Awaitable[object]]) -> None:
    async with running() as (engine, _):
        with pytest.raises(UsageError, match=rf"\b{field}\b"):
            await call(engine)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("tags", {"tags": "news"}),
        ("tags", {"tags": b"news"}),
        ("tag", {"tags": [5]}),
        ("tag", {"tags": ["a\x00"]}),
        ("tag", {"tags": ["\ud800"]}),
        ("tag", {"tags": ["a b"]}),
        ("tag", {"tags": ["a&b"]}),
        ("platform", {"platform": "\x00"}),
        ("platform", {"platform": "\udfff"}),
        ("user", {"user": "\ud800"}),
        ("expires_at", {"expires_at": float("nan")}),
        ("expires_at", {"expires_at": float("inf")}),
        ("expires_at", {"expires_at": "2030-01-01"}),
    ],
)
async def test_a_device_is_registered_whole_or_refused_by_the_field(field: str, values: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"user": "alice", "binding": "push", "address": "phone"} | values
    async with running() as (engine, _):
        with pytest.raises(UsageError, match=rf"\b{field}\b"):
            await engine.endpoints.register(**whole)
        assert [found async for found in engine.endpoints.list(state=None)] == []


async def test_tags_that_an_endpoint_has_stay_when_it_is_changed_and_no_new_one_is_taken() -> None:
    from dataclasses import replace

    async with running() as (engine, _):
        plain = engine.endpoints.registration(user="alice", binding="push", address="phone")
        (device,) = await engine.endpoints.register_many([replace(plain, tags=("old & odd",))])
        changed = await engine.endpoints.change(device, platform="", tags=["old & odd", "new"], expires_at=None)
        assert set(changed.tags) == {"old & odd", "new"}
        for tags in ("news", ["new & odd"]):
            with pytest.raises(UsageError, match="tag"):
                await engine.endpoints.change(device, platform="", tags=tags, expires_at=None)
        with pytest.warns(UserWarning, match="new tags"):
            target = Target.topic("old & odd")
        receipt = await engine.send(HI, target)
        assert (await receipt.wait(60)).counts["accepted"] == 1


class _Odd(ScriptedTransport):
    """Raises what no transport may, and makes addresses that no storage can hold."""

    def prepare(self, notification: Notification) -> Any:
        if notification.title == "odd":
            raise KeyError(notification.body)
        return super().prepare(notification)

    def parse_address(self, raw: Any) -> Address:
        if raw == "broken":
            raise TypeError(f"what is {raw}?")
        return Address("a\x00b") if raw == "nul" else super().parse_address(raw)


async def test_a_bad_line_of_an_import_is_a_bad_line() -> None:
    bad = [
        b'{"user": "a\\u0000", "transport": "push", "address": "x"}',
        b'{"user": "a", "transport": "push", "address": "nul"}',
        b'{"user": "a", "transport": "push", "address": "broken"}',
        b'{"user": "a", "transport": "push", "address": "x", "tags": "news"}',
        b'{"user": "a", "transport": "push", "address": "x", "tags": ["a b"]}',
        b'{"user": "a", "transport": "push", "address": "x", "tags": ["a\\u0000"]}',
        b'{"user": "a", "transport": "push", "address": "x", "tags": false}',
        b'{"user": "a", "transport": "push", "address": "x", "platform": "\\u0000"}',
        b'{"user": "a", "transport": "push", "address": "x", "platform": 0}',
        b'{"user": "a", "transport": "push", "address": "x", "expires_at": 1e300}',
        b'{"user": "a", "transport": "push", "address": "x", "app": ["default"]}',
        b'{"user": "a", "transport": ["push"], "address": "x"}',
        b'{"user": "a", "transport": "push", "address": "\\ud800"}',
        5,
    ]
    good = [b'{"user": "a", "transport": "push", "address": "%d"}' % number for number in range(3)]
    async with running(transports={("default", "push"): _Odd()}) as (engine, _):
        report = await engine.endpoints.import_([good[0], *bad, *good[1:]])  # type: ignore[list-item]

        assert (report.imported, report.bad) == (3, len(bad))
        assert [line for line, _ in report.errors] == list(range(2, len(bad) + 2))
        assert not any("what is" in sentence for _, sentence in report.errors)
        with pytest.raises(AddressInvalid):
            await engine.endpoints.intern("push", ["nul"])


async def test_an_exception_of_one_binding_harms_no_user_without_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "fanout")  # another test may have silenced it
    transports = {("default", "odd"): _Odd(), ("default", "push"): ScriptedTransport()}
    async with running(transports=transports) as (engine, _):
        await register(engine, "alice", "phone")
        await register(engine, "bob", "watch", binding="odd")
        odd = Notification(title="odd", body="a private text")

        assert (await (await engine.send(odd, "user:alice")).wait(60)).counts["accepted"] == 1
        with pytest.raises(InvalidMessage, match=r"binding odd.*KeyError"):
            await engine.send(odd, "user:bob")
        assert "KeyError escaped from prepare" in caplog.text
        assert "a private text" not in caplog.text


UNSTORABLE = "gone\x00 \ud800 away"


@pytest.mark.parametrize(
    "outcome", [Rejected(UNSTORABLE), Moved(Address("phone\x00"), UNSTORABLE)], ids=["rejected", "moved"]
)
async def test_what_a_plugin_says_is_stored_whatever_it_holds(outcome: Outcome) -> None:
    async with running(lambda message, delivery: outcome) as (engine, _):
        (endpoint,) = await register(engine, "alice", "phone")
        status = await (await engine.send(HI, "user:alice")).wait(60)

        assert status.counts["rejected"] == 1
        assert "gone\ufffd \ufffd away" in next(iter(status.reasons["rejected"]))
        steps = await engine.explain(status.id, endpoint)
        assert steps[-1].state == "rejected"


async def test_a_refusal_at_the_lease_is_stored_whatever_it_holds() -> None:
    class Changes(ScriptedTransport):
        refuses = False

        def prepare(self, notification: Notification) -> Any:
            if self.refuses:
                raise InvalidMessage(UNSTORABLE)
            return super().prepare(notification)

    transport = Changes()
    async with running(transports={("default", "push"): transport}) as (engine, _):
        await register(engine, "alice", "phone")
        # What is scheduled is prepared anew when it is leased.
        receipt = await engine.send(HI, "user:alice", at=time.time() + 0.05)
        transport.refuses = True
        status = await receipt.wait(60)

        assert status.reasons["rejected"] == {"gone\ufffd \ufffd away": 1}


async def test_a_gate_without_a_name_leaves_no_gap_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fanout")
    answers: list[Outcome] = [Misconfigured("no key", named=False)]
    async with running(lambda message, delivery: answers.pop() if answers else ACCEPTED) as (engine, _):
        await register(engine, "alice", "phone")
        await (await engine.send(HI, "user:alice")).wait(60)
    told = [record.getMessage() for record in caplog.records if "gate of" in record.getMessage()]

    assert any("gate of binding push closed" in text for text in told), told
    assert not any("  " in text for text in told)
