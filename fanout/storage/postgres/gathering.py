"""Puts of many callers in one transaction: puts that wait while one is under way are stored by the next.

A caller alone is not delayed. One transaction of puts is under way at a time, unless it hangs, and takes at most `MOST`
submissions, the apps in turns. Only submissions that can neither be refused, nor conflict, nor wait for a lock of
another caller's are gathered: a batch is stored as a whole. The name of an app that the database does not have yet is
entered before, in a transaction of its own: it waits where another process has entered the same name and not committed,
and holds up that app's callers alone. On any error but doubt the puts of a batch are run one by one, so that a caller
hears of its own fault only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

from fanout.core.records import Put, Submission
from fanout.storage.acceptance import MOST, gathered
from fanout.storage.postgres.failure import Unknown

__all__ = ["Gathering"]

_SLOW, _ABREAST = 1.0, 3
"""Seconds after which a transaction that has not ended keeps the next one off no longer, and how many are under way at
most."""
_Store = Callable[[Sequence[Submission], float], Awaitable[list[Put]]]
_Knows = Callable[[str], bool]
_Enter = Callable[[str], Coroutine[None, None, None]]


@dataclass(slots=True)
class _Waiting:
    """One caller's put, until its answers are there."""

    submissions: Sequence[Submission]
    now: float
    answers: asyncio.Future[list[Put]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Gathering:
    """The gathering of one storage. `store` is the put of a whole batch; `knows` says whether an app's number was
    learned, which `enter` does."""

    def __init__(self, store: _Store, knows: _Knows, enter: _Enter) -> None:
        self._store = store
        self._knows = knows
        self._enter = enter
        self._entering: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = 0.0

    async def put(self, submissions: Sequence[Submission], now: float) -> list[Put]:
        """Store these, with others' or alone. Raises as the put of a batch does. A caller that is cancelled before its
        transaction has begun stores nothing."""
        for app in {sub.app for sub in submissions}:
            if not self._knows(app):
                await self._entered(app)
        if not submissions or not gathered(submissions, now):
            return await self._store(submissions, now)
        mine = _Waiting(submissions, now)
        self._waiting.setdefault(submissions[0].app, deque()).append(mine)
        slow = time.monotonic() - self._begun > _SLOW and len(self._tasks) < _ABREAST
        if not self._tasks or slow:
            self._tasks.add(asyncio.get_running_loop().create_task(self._run(), context=Context()))
        return await mine.answers

    async def _entered(self, app: str) -> None:
        """Enter the app's name, once for all callers that wait for it: they share one connection, and hear of one
        error."""
        task = self._entering.get(app)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._enter(app), context=Context())
            self._entering[app] = task
            task.add_done_callback(lambda _: self._entering.pop(app, None))
        await asyncio.shield(task)

    async def _run(self) -> None:
        try:
            while batch := self._next():
                self._begun = time.monotonic()
                await self._put(batch)
        finally:
            # At once: a put that comes before the loop turns begins the next one.
            self._tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _next(self) -> list[_Waiting]:
        """The puts of the next transaction: one of each app in turn, and none whose caller has given up."""
        batch: list[_Waiting] = []
        room = MOST
        while self._waiting and room > 0:
            for app in list(self._waiting):
                queue = self._waiting.pop(app)
                first = queue.popleft()
                if queue:
                    self._waiting[app] = queue  # behind the others
                if not first.answers.done():
                    batch.append(first)
                    room -= len(first.submissions)
                if room <= 0:
                    break
        return batch

    async def _put(self, batch: Sequence[_Waiting]) -> None:
        if len(batch) == 1:
            await self._alone(batch[0])
            return
        try:
            answers = iter(
                await self._store([sub for each in batch for sub in each.submissions], max(each.now for each in batch))
            )
        except Unknown as error:
            # It may have been committed: to store it once more is for the caller to decide.
            for each in batch:
                if not each.answers.done():
                    each.answers.set_exception(Unknown(*error.args))
        except Exception:
            await asyncio.gather(*(self._alone(each) for each in batch))
        else:
            for each in batch:
                own = list(islice(answers, len(each.submissions)))
                if not each.answers.done():
                    each.answers.set_result(own)

    async def _alone(self, each: _Waiting) -> None:
        try:
            answers = await self._store(each.submissions, each.now)
        except Exception as error:
            if not each.answers.done():
                each.answers.set_exception(error)
        else:
            if not each.answers.done():
                each.answers.set_result(answers)
