"""A worker in a process of its own, to be killed and stopped: it writes down what it sends, and answers after a
while."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path

from fanout.core.delivery import Delivery
from fanout.engine import Engine, EngineOptions
from fanout.plugin import ACCEPTED, Outcome, Policy, StorageContext
from fanout.registry import Registry
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport


class Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


async def main(database: str, log: Path, pause: float) -> None:
    async def answer() -> Outcome:
        await asyncio.sleep(pause)
        return ACCEPTED

    def script(message: ScriptedMessage, delivery: Delivery) -> Outcome | asyncio.Future[Outcome]:
        with log.open("a") as file:
            file.write(f"{message.notification.id}\n")
        return asyncio.ensure_future(answer())

    transport = ScriptedTransport(script, capacity=2)
    policy = Policy(lease=60.0, heartbeat=1.0, request_timeout=120.0)
    storage = Registry().make_storage(database, StorageContext(clock=Clock()))
    async with Engine(
        storage,
        {("default", "push"): transport},
        EngineOptions(clock=Clock(), rng=random.Random(), policy=policy, role="work"),
    ) as engine:
        print(engine.worker, flush=True)
        await engine.failed()


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
