"""A script that holds every send, for the tests of the path."""

from __future__ import annotations

import asyncio

from fanout.core.delivery import Delivery
from fanout.core.model import Notification
from fanout.plugin import ACCEPTED, Outcome
from fanout.testing.scripted import ScriptedMessage

HI = Notification(title="Hi")


class Held:
    """A script that holds every send until it is let go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.begun = asyncio.Semaphore(0)

    async def __call__(self, message: ScriptedMessage, delivery: Delivery) -> Outcome:
        self.begun.release()
        await self.open.wait()
        return ACCEPTED
