"""The callers that wait for a notification to finish, whichever process finishes it."""

from __future__ import annotations

import asyncio

from fanout.core.untraced import untraced
from fanout.plugin import Storage

__all__ = ["Waiters"]


class Waiters:
    """Futures by notification id. One question to storage serves all of them."""

    __slots__ = ("_futures",)

    def __init__(self) -> None:
        self._futures: dict[str, set[asyncio.Future[None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._futures)

    def add(self, id: str) -> asyncio.Future[None]:
        """A future that `done` or `check` resolves. Hand it to `drop` afterwards."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(id, set()).add(future)
        return future

    def drop(self, id: str, future: asyncio.Future[None]) -> None:
        """No caller waits on this future any longer."""
        futures = self._futures.get(id, set())
        futures.discard(future)
        if not futures:
            self._futures.pop(id, None)

    def done(self, id: str) -> None:
        """This notification is finished."""
        for future in self._futures.get(id, ()):
            if not future.done():
                future.set_result(None)

    async def check(self, storage: Storage) -> None:
        """Ask which of those waited for are finished."""
        if self._futures:
            for id in await storage.finished(sorted(self._futures)):
                self.done(id)

    def fail(self, error: BaseException) -> None:
        """Nothing will ever finish here: tell everyone, rather than let them wait for ever."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(untraced(error))
