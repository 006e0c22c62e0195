"""The callers that wait for a notification to finish, whichever process finishes it; and the answers that need no
question to storage."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

from fanout.core.records import Status
from fanout.core.untraced import untraced
from fanout.plugin import Storage

__all__ = ["Waiters"]

_KNOWN = 4096
"""Notifications accepted here that are remembered until they have finished, and then with their final status."""


class Waiters:
    """Futures by notification id. One question to storage serves all of them."""

    __slots__ = ("_futures", "_known", "unasked")

    def __init__(self) -> None:
        self._futures: dict[str, set[asyncio.Future[Status | None]]] = {}
        # A plain dict would look for its first key behind the places of all that were taken from it before.
        self._known: OrderedDict[str, Status | None] = OrderedDict()
        self.unasked = False
        """Whether a caller waits for a notification of which storage was not asked whether it has finished already."""

    def __bool__(self) -> bool:
        return bool(self._futures)

    def accepted(self, ids: Iterable[str]) -> None:
        """These are new, and stored: a wait for one of them need not ask whether there is such a notification."""
        known = self._known
        for id in ids:
            known[id] = None
        while len(known) > _KNOWN:
            known.popitem(last=False)

    def is_new(self, id: str) -> bool:
        """Whether it was accepted here, and its end has not been told: then `check` has to ask for it once."""
        new = self._known.get(id, self) is None
        self.unasked = self.unasked or new
        return new

    def final(self, id: str) -> Status | None:
        """The final status of a notification, where it is known here."""
        return self._known.get(id)

    def forget(self) -> None:
        """Storage stands on another database: accepted notifications may be missing there."""
        self._known.clear()

    def add(self, id: str) -> asyncio.Future[Status | None]:
        """A future that `done` or `check` resolves, to the final status where that is known. Hand it to `drop`
        afterwards."""
        future: asyncio.Future[Status | None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(id, set()).add(future)
        return future

    def drop(self, id: str, future: asyncio.Future[Status | None]) -> None:
        """No caller waits on this future any longer."""
        futures = self._futures.get(id, set())
        futures.discard(future)
        if not futures:
            self._futures.pop(id, None)

    def done(self, id: str, status: Status | None = None) -> None:
        """This notification is finished, with that status if it is known."""
        if id in self._known:
            if status is None:
                del self._known[id]
            else:
                self._known[id] = status
        for future in self._futures.get(id, ()):
            if not future.done():
                future.set_result(status)

    async def check(self, storage: Storage) -> None:
        """Ask which of those waited for are finished."""
        self.unasked = False
        if self._futures:
            for id in await storage.finished(sorted(self._futures)):
                self.done(id)

    def fail(self, error: BaseException) -> None:
        """Nothing will ever finish here: tell all waiters, rather than let them wait for ever."""
        for futures in self._futures.values():
            for future in futures:
                if not future.done():
                    future.set_exception(untraced(error))
