"""The exceptions that docstrings of the engine promise: each is raised for a wrong call, and stands in that call's
docstring."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import fanout
from fanout import Notification
from fanout.testing import ScriptedTransport

from .public_names import public
from .test_docstrings import entries, faults

Call = Callable[[Any], object]
HI = Notification(title="Hi")
WRONG: list[tuple[str, Call, str]] = [
    ("send", lambda e: e.send(HI, "topic:a & b"), "UsageError"),
    ("send", lambda e: e.send(HI, "all", app="unknown"), "UsageError"),
    ("send", lambda e: e.send(HI, "all", at="soon"), "UsageError"),
    ("send", lambda e: e.send(HI, "all", connection=object()), "UsageError"),
    ("send_many", lambda e: e.send_many([3]), "UsageError"),
    ("send_many", lambda e: e.send_many([(HI, "all")], idempotency_keys=["a", "b"]), "UsageError"),
    ("request", lambda e: e.request(HI, "nobody"), "UsageError"),
    ("preview", lambda e: e.preview(HI, "nobody"), "UsageError"),
    ("status", lambda e: e.status("unknown"), "NotFound"),
    ("status", lambda e: e.status(5), "UsageError"),
    ("wait", lambda e: e.wait("unknown"), "NotFound"),
    ("wait", lambda e: e.wait(60), "UsageError"),
    ("cancel", lambda e: e.cancel("unknown"), "NotFound"),
    ("pause", lambda e: e.pause("unknown"), "NotFound"),
    ("resume", lambda e: e.resume(5), "UsageError"),
    ("explain", lambda e: e.explain("unknown", 1), "NotFound"),
    ("explain", lambda e: e.explain("unknown", "1"), "UsageError"),
    ("pause_binding", lambda e: e.pause_binding("unknown"), "UsageError"),
    ("resume_binding", lambda e: e.resume_binding(7), "UsageError"),
    ("erase_user", lambda e: e.erase_user(""), "UsageError"),
    ("export_user", lambda e: e.export_user(""), "UsageError"),
    ("deliveries", lambda e: e.deliveries("unknown", state="lost"), "UsageError"),
    ("events", lambda e: e.events(after="first"), "UsageError"),
    ("endpoints.register", lambda e: register(e, address="No Name"), "AddressInvalid"),
    ("endpoints.register", lambda e: register(e, tags=["a b"]), "UsageError"),
    ("endpoints.register_many", lambda e: e.endpoints.register_many([3]), "UsageError"),
    ("endpoints.intern", lambda e: e.endpoints.intern("pigeon", "phone"), "UsageError"),
    ("endpoints.intern", lambda e: e.endpoints.intern("pigeon", ["No Name"]), "AddressInvalid"),
    ("endpoints.list", lambda e: e.endpoints.list(state="lost"), "UsageError"),
    ("endpoints.get", lambda e: e.endpoints.get(99), "NotFound"),
    ("endpoints.get", lambda e: e.endpoints.get("99"), "UsageError"),
    ("endpoints.remove", lambda e: e.endpoints.remove("99"), "UsageError"),
    ("endpoints.restore", lambda e: e.endpoints.restore([None]), "UsageError"),
    ("endpoints.import_", lambda e: e.endpoints.import_("{}"), "UsageError"),
]
RIGHT: list[tuple[str, Call]] = [
    ("send", lambda e: e.send(HI, "all")),
    ("send_many", lambda e: e.send_many([(HI, "all")])),
    ("request", lambda e: e.request(HI, "all")),
    ("preview", lambda e: e.preview(HI, "all")),
    *[(name, lambda e, name=name: getattr(e, name)("id")) for name in ("status", "wait", "cancel", "pause", "resume")],
    *[(name, lambda e, name=name: getattr(e, name)("pigeon")) for name in ("pause_binding", "resume_binding")],
    *[
        (name, lambda e, name=name: getattr(e, name)())
        for name in ("probe", "gates", "workers", "live", "drain", "check")
    ],
    ("explain", lambda e: e.explain("id", 1)),
    ("erase_user", lambda e: e.erase_user("alice")),
    ("export_user", lambda e: e.export_user("alice")),
    ("deliveries", lambda e: e.deliveries("id")),
    ("events", lambda e: e.events()),
    ("ensure_open", lambda e: e.ensure_open()),
    ("endpoints.register", lambda e: register(e)),
    ("endpoints.list", lambda e: e.endpoints.list()),
    ("endpoints.get", lambda e: e.endpoints.get(1)),
    ("endpoints.remove", lambda e: e.endpoints.remove(1)),
    ("endpoints.restore", lambda e: e.endpoints.restore(1)),
    ("endpoints.intern", lambda e: e.endpoints.intern("pigeon", ["phone"])),
]
"""Calls that are in order while the engine is open, and are made once it is closed."""


def register(engine: Any, address: str = "phone", tags: Any = ()) -> object:
    return engine.endpoints.register(user="alice", binding="pigeon", address=address, tags=tags)


async def fault(call: Call, engine: object) -> str:
    """The class of the exception that a call raises: at once, awaited, or with its first value."""
    try:
        made = call(engine)
        if inspect.isawaitable(made):
            await made
        elif isinstance(made, AsyncIterator):
            await anext(made)
    except (fanout.FanoutError, StopAsyncIteration) as error:
        return type(error).__name__
    return ""


def test_the_engine_raises_what_its_docstrings_say() -> None:
    texts = {each.path: each.text for each in public()}

    async def main() -> list[tuple[str, str, str]]:
        async with fanout.open(storage="memory:", transports={"pigeon": ScriptedTransport()}) as engine:
            found = [(path, wanted, await fault(call, engine)) for path, call, wanted in WRONG]
        return found + [(path, "EngineClosed", await fault(call, engine)) for path, call in RIGHT]

    for path, wanted, raised in asyncio.run(main()):
        assert raised in faults(), f"{path} raises nothing, and not {wanted}"
        assert wanted in faults()[raised], f"{path} raises {raised}, and not {wanted}"
        named = entries(texts[f"fanout.Engine.{path}"], "Raises").keys()
        assert faults()[raised] & named, f"{path} raises {raised}, which its docstring does not name"
