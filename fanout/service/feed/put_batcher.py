"""Posts that arrive while one is being stored are stored together: one put, whose statements cost once for all of
them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fanout.core.records import Put
from fanout.engine import Engine
from fanout.engine.intake import Request

__all__ = ["PutBatcher"]

_MOST = 64
"""Posts in one put: the wait of each caller must stay short."""

_Post = tuple[str, Sequence[Request], "asyncio.Future[list[Put]]"]


class PutBatcher:
    """`accept` as the engine's, for callers that come at once. A post that is refused spoils no other: then each goes
    alone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[_Post] = []
        self._task: asyncio.Task[None] | None = None

    async def accept(self, app: str, requests: Sequence[Request]) -> list[Put]:
        """The result of each request. Raises as `Engine.accept` does.

        A caller that is cancelled while it waits does not learn whether its post was stored.
        """
        future: asyncio.Future[list[Put]] = asyncio.get_running_loop().create_future()
        self._waiting.append((app, requests, future))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            return await future
        finally:
            del future  # its error's traceback holds this frame: kept here, it would be a cycle

    async def stop(self) -> None:
        """Wait until everything that was begun is stored."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                app = self._waiting[0][0]
                batch = [post for post in self._waiting if post[0] == app][:_MOST]
                taken = {id(post) for post in batch}
                self._waiting = [post for post in self._waiting if id(post) not in taken]
                await self._store(app, batch)
        finally:
            self._task = None
            for _, _, future in self._waiting:
                future.cancel()
            self._waiting = []

    async def _store(self, app: str, batch: Sequence[_Post]) -> None:
        if len(batch) > 1:
            try:
                puts = await self._engine.accept([request for _, part, _ in batch for request in part], app=app)
            except Exception:
                await asyncio.gather(*(self._alone(*post) for post in batch))
                return
            for _, part, future in batch:
                mine, puts = puts[: len(part)], puts[len(part) :]
                if not future.done():
                    future.set_result(mine)
            return
        await self._alone(*batch[0])

    async def _alone(self, app: str, requests: Sequence[Request], future: asyncio.Future[list[Put]]) -> None:
        try:
            puts = await self._engine.accept(requests, app=app)
        except Exception as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(puts)
        finally:
            del future
