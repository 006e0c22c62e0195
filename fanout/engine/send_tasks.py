"""Tasks in which deliveries are sent one by one: an engine has as many as sends are under way, and uses each again."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from fanout.engine.group import Group
from fanout.engine.lane_queue import Item

__all__ = ["IDLE", "Attempt", "SendTasks"]

IDLE = math.inf


class Attempt:
    """The attempt of one task: when it began (monotonic seconds, `IDLE` between attempts), and of which delivery."""

    __slots__ = ("abandoned", "begun", "given_up", "group", "item", "task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self.begun = IDLE
        self.group: Group | None = None
        self.item: Item | None = None
        self.given_up = False
        """It was cancelled by the watchdog, for it hung."""
        self.abandoned = False
        """It went on nevertheless: its delivery is settled, and its place is another's."""


Work = Callable[[Attempt], Coroutine[Any, Any, None]]


class SendTasks:
    """The tasks of all bindings of an engine. One without work is parked here: no group and no binding keeps any."""

    __slots__ = ("_idle", "_least", "_spawn")

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._spawn = spawn
        self._idle: deque[asyncio.Future[Work | None]] = deque()
        self._least = 0
        """The smallest number of parked tasks since `trim` was called last."""

    def begin(self, work: Work, count: int) -> None:
        """Do it so many times, each in the task that was parked last, or else in a new one."""
        idle = self._idle
        while count and idle:
            parked = idle.pop()
            if not parked.done():
                parked.set_result(work)
                count -= 1
        self._least = min(self._least, len(idle))
        for _ in range(count):
            self._spawn(self._run(work))

    async def _run(self, first: Work) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        attempt = Attempt(task)
        work: Work | None = first
        del first
        while work is not None:
            await work(attempt)
            work = None  # a parked task keeps nothing alive
            parked: asyncio.Future[Work | None] = loop.create_future()
            self._idle.append(parked)
            work = await parked

    def trim(self) -> None:
        """End the tasks that have had no work since this was called last."""
        for _ in range(self._least):
            parked = self._idle.popleft()
            if not parked.done():
                parked.set_result(None)
        self._least = len(self._idle)

    def __len__(self) -> int:
        return len(self._idle)
