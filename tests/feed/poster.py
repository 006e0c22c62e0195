"""Posts to one user until it is killed, and says each item's id once it is accepted: `python poster.py DATABASE`."""

from __future__ import annotations

import asyncio
import random
import sys
import time

from fanout.core.model import Notification
from fanout.engine import Engine, EngineOptions
from fanout.plugin import Policy, StorageContext
from fanout.registry import Registry
from fanout.service.feed import FeedService, NewItem
from fanout.testing.scripted import ScriptedTransport


class Clock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


async def main(database: str) -> None:
    storage = Registry().make_storage(f"sqlite:{database}", StorageContext(clock=Clock()))
    transports = {("default", binding): ScriptedTransport() for binding in ("apns", "fcm")}
    engine = Engine(
        storage, transports, EngineOptions(clock=Clock(), rng=random.Random(), policy=Policy(), role="submit")
    )
    async with engine, FeedService(engine) as feed:
        await feed.subscribe("default", "alice", device="phone", binding="apns", address="alice-phone")
        await feed.subscribe(
            "default", "alice", device="tablet", binding="fcm", address="alice-tablet", receive="signal"
        )

        async def post() -> None:
            while True:
                posted = await feed.post("default", "user:alice", NewItem(content={}), Notification(title="hello"))
                sys.stdout.write(posted.item_id + "\n")
                sys.stdout.flush()

        await asyncio.gather(*(post() for _ in range(8)))


asyncio.run(main(sys.argv[1]))
