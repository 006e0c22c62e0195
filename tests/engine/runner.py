"""A scripted transport with runs, and an engine over it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from rig import FAST, register, running

from fanout.engine import Engine
from fanout.engine.binding_state import BindingState
from fanout.plugin import ACCEPTED, Delivery, Message, Notification, Outcome, Run
from fanout.testing.scripted import Script, ScriptedMessage, ScriptedTransport


class Runner(ScriptedTransport):
    """Starts what `starts` says (all), and answers each index by the script, in a callback; `held` ones when the test
    says so."""

    def __init__(self, script: Script | None = None, *, capacity: int = 1000) -> None:
        super().__init__(*([script] if script else []), capacity=capacity)
        self.runs: list[Run] = []
        self.single: list[int] = []
        self.hold = False

    def start(self, run: Run) -> Sequence[int]:
        self.runs.append(run)
        return self.begin(run)

    def begin(self, run: Run) -> Sequence[int]:
        if not self.hold:
            asyncio.get_running_loop().call_soon(self.answer, run)
        return []

    def answer(self, run: Run, indices: Sequence[int] | None = None) -> None:
        for index in range(len(run)) if indices is None else indices:
            message = run.message
            assert isinstance(message, ScriptedMessage)
            outcome = self.script(message, run.delivery(index))
            assert isinstance(outcome, Outcome)
            if outcome is ACCEPTED:
                run.accept([index])
            else:
                run.answer(index, outcome)

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        self.single.append(delivery.endpoint)
        return await super().send(message, delivery)


def state_of(engine: Engine) -> BindingState:
    return engine._settler.states[0]


async def broadcast(engine: Engine, count: int, **content: Any) -> Any:
    await register(engine, "alice", *(f"phone-{n:03}" for n in range(count)))
    return await engine.send(Notification(title="t", **content), "user:alice")


def over(runner: Runner, **more: Any) -> Any:
    return running(transports={("default", "push"): runner}, **{"policy": FAST, **more})


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)
