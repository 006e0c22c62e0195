"""A process whose clock is not right: `child.py work|shut|submit STORAGE`. It prints what it has come to, a line each.

work     delivers until it is killed; prints its worker's name, then each notification that it sends
shut     sends one notification to alice, whose gateway closes the binding for half a second; prints its id when it
waits for that submit   sends one notification to alice, prints its id, and ends
"""

from __future__ import annotations

import asyncio
import random
import sys

from fanout.bootstrap import SystemClock
from fanout.core.delivery import Delivery
from fanout.core.model import Notification
from fanout.engine import Engine, EngineOptions
from fanout.plugin import ACCEPTED, Outcome, Policy, Scope, StorageContext, Throttled
from fanout.registry import Registry
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport

HOUR = 3600.0


async def main(what: str, location: str) -> None:
    clock = SystemClock()

    async def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        if what == "shut":
            return Throttled(0.5, Scope.BINDING, named=False)
        print(message.notification.id, flush=True)
        return ACCEPTED

    engine = Engine(
        Registry().make_storage(location, StorageContext(clock=clock)),
        {("default", "push"): ScriptedTransport(answer)},
        EngineOptions(
            clock=clock,
            rng=random.Random(),
            policy=Policy(backoff_base=0.05, heartbeat=2.0, request_timeout=5.0),
            role="submit" if what == "submit" else "both",
        ),
    )
    async with engine:
        if what == "work":
            print(engine.worker, flush=True)
            await engine.failed()
        receipt = await engine.send(Notification(title="Hi", ttl=24 * HOUR), "user:alice")
        while what == "shut" and not (await receipt.status()).pending_by_reason.keys() & {"quota", "gate"}:
            await asyncio.sleep(0.01)
        print(receipt.id, flush=True)
        if what == "shut":
            await engine.failed()


asyncio.run(main(*sys.argv[1:]))
