"""Tasks in which deliveries are sent one by one: an engine has as many as sends are under way, and uses each again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["SendTasks"]

Work = Callable[[], Coroutine[Any, Any, None]]


class SendTasks:
    """The tasks of all bindings of an engine. One without work is parked here: no group and no binding keeps any."""

    __slots__ = ("_idle", "_least", "_spawn")

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._spawn = spawn
        self._idle: deque[asyncio.Future[Work | None]] = deque()
        self._least = 0
        """The smallest number of parked tasks since `trim` was called last."""

    def begin(self, work: Work) -> None:
        """Do it in the task that was parked last, or else in a new one."""
        while self._idle:
            parked = self._idle.pop()
            if not parked.done():
                parked.set_result(work)
                self._least = min(self._least, len(self._idle))
                return
        self._least = 0
        self._spawn(self._run(work))

    async def _run(self, first: Work) -> None:
        work: Work | None = first
        del first
        while work is not None:
            await work()
            work = None  # a parked task keeps nothing alive
            parked: asyncio.Future[Work | None] = asyncio.get_running_loop().create_future()
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
