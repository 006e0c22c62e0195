"""What runs for the engine is apart from whoever opened it; and hooks that would never be called are refused."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import Any, Self

import pytest
from rig import register, running

from fanout.core.model import Notification
from fanout.errors import UsageError
from fanout.plugin import ACCEPTED, Delivery, Outcome
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

pytestmark = pytest.mark.anyio

SPAN: ContextVar[str] = ContextVar("span", default="none")


class _Nosy(ScriptedTransport):
    def __init__(self) -> None:
        super().__init__(self.answer)
        self.seen: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self.seen["opened"] = SPAN.get()
        return await super().__aenter__()

    def answer(self, message: ScriptedMessage, delivery: Delivery) -> Outcome:
        self.seen["sent"] = SPAN.get()
        return ACCEPTED


async def test_tasks_of_the_engine_do_not_live_in_the_context_of_who_opened_it() -> None:
    transport = _Nosy()

    class Hook:
        def on_settled(self, batch: object) -> None:
            transport.seen["told"] = SPAN.get()

    token = SPAN.set("the request that happened to open it")
    try:
        async with running(transports={("default", "push"): transport}, hooks=[Hook()]) as (engine, _):
            await register(engine, "alice", "phone")
            SPAN.set("a later request")
            await (await engine.send(Notification(title="Hi"), "user:alice")).wait(60)
            assert SPAN.get() == "a later request"
    finally:
        SPAN.reset(token)

    assert transport.seen == {"opened": "none", "sent": "none", "told": "none"}


def _hook(**members: Any) -> object:
    return type("Mine", (), members)()


async def _wait(self: object, batch: object) -> None: ...


def _take(self: object, batch: object) -> None: ...


class _Awaits:
    async def __call__(self, batch: object) -> None: ...


@pytest.mark.parametrize(
    ("hooks", "said"),
    [
        ([_hook(on_settled=_wait)], r"on_settled is `async def`"),
        ([_hook(on_event=staticmethod(partial(_wait, None)))], r"on_event is `async def`"),
        ([_hook(on_event=_Awaits())], r"on_event is `async def`"),
        ([_hook(on_setled=_take)], r"on_setled is no hook.*did you mean on_settled"),
        ([_hook(on_settled=_take, on_events=_take)], r"on_events is no hook.*did you mean on_event"),
        ([_hook(onEvent=_take)], r"onEvent is no hook.*did you mean on_event"),
        ([_hook(on_error=_take)], r"on_error is no hook.*on_settled and on_event"),
        ([_hook(settled=_take)], "neither on_settled nor on_event"),
        ([_hook(on_event=5)], "no method"),
        ([type("Mine", (), {"on_event": _take})], "the class Mine"),
        ([print], "neither"),
        (_hook(on_event=_take), "hooks must be a list"),
        ("ab", "hooks must be a list"),
    ],
)
async def test_a_hook_that_would_never_be_called_is_refused(hooks: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        async with running(hooks=hooks):
            pass


async def test_other_members_of_a_hook_are_its_own_affair() -> None:
    async with running(hooks=[_hook(on_event=_take, once=_take, only=3, settled=[], on=True)]):
        pass
