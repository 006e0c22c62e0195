"""The operations of an engine on notifications that it has accepted, on bindings and on users."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fanout.core import given
from fanout.core.records import Status
from fanout.engine.acting import audit
from fanout.engine.dispatcher import Dispatcher
from fanout.engine.exporting import erase
from fanout.engine.halting import until_held, until_put_down
from fanout.engine.inspecting import Inspection
from fanout.engine.upkeep import Upkeep
from fanout.engine.waiters import Waiters

__all__ = ["Operations"]

_LATE: Any = object()
"""The result of a future that is waited for no longer: a timer costs a third of `asyncio.timeout`."""


class Operations(Inspection):
    """The base of `Engine`, which makes these parts and opens them."""

    _waiters: Waiters
    _upkeep: Upkeep
    _dispatchers: list[Dispatcher]

    async def wait(self, id: str, timeout: float | None = None) -> Status:
        """Wait until every delivery has ended, whichever process sends it.

        Args:
            id: The notification's id, as `Receipt.id` has it.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The final status.

        Raises:
            TimeoutError: Deliveries are left after `timeout` seconds. Nothing is cancelled.
            NotFound: The id is wrong, or its history has been deleted (`[retention] notifications`).
            UsageError: `id` is no text.
            EngineClosed: The engine is not open, or was closed meanwhile: the deliveries go on in another process, or
                later.
            StorageError: The database cannot be read, or the engine has failed.

        Example:
            ```python
            status = await engine.wait(receipt.id, timeout=10)
            ```
        """
        self.ensure_open()
        if (status := self._waiters.final(given.text("id", id))) is not None:
            return status
        future = self._waiters.add(id)
        self._upkeep.awaited()
        try:
            new = self._waiters.is_new(id)
            if not new and (status := await self._status(id)).finished_at is not None:
                return status
            timer = None if timeout is None else asyncio.get_running_loop().call_later(timeout, _expire, future)
            try:
                status = await future
            finally:
                if timer is not None:
                    timer.cancel()
            if status is _LATE and (not new or (status := await self._status(id)).finished_at is None):
                raise TimeoutError
            return await self._status(id) if status is None else status
        finally:
            self._waiters.drop(id, future)

    async def cancel(self, id: str) -> Status:
        """Stop the deliveries that have not been sent.

        Args:
            id: The notification's id, as `Receipt.id` has it.

        Returns:
            The status, once every worker has confirmed or its lease has ended: only a push in flight can still arrive.

        Raises:
            NotFound: The id is wrong, or its history has been deleted (`[retention] notifications`).
            UsageError: `id` is no text.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The request is not stored.

        Example:
            ```python
            status = await engine.cancel(receipt.id)
            ```
        """
        return await self._stop_sending(id, "cancelled", self.storage.cancel)

    async def pause(self, id: str) -> Status:
        """Hold a notification: nothing more of it is sent until `resume`, while its time to live runs on. Idempotent.

        Args:
            id: The notification's id, as `Receipt.id` has it.

        Returns:
            The status, once every worker has put it down or its lease has ended: only a push in flight can still
            arrive.

        Raises:
            NotFound: The id is wrong, or its history has been deleted (`[retention] notifications`).
            UsageError: `id` is no text.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The request is not stored.

        Example:
            ```python
            await engine.pause(receipt.id)
            ```
        """
        return await self._stop_sending(id, "paused", self.storage.pause)

    async def _stop_sending(self, id: str, how: str, store: Callable[..., Awaitable[int]]) -> Status:
        of = await self.status(id)
        await until_put_down(
            [each.stops for each in self._dispatchers], self._settler.idle, self._clock, of, how, store
        )
        return await self.status(id)

    async def resume(self, id: str) -> Status:
        """Let a paused notification go on where it was. Idempotent.

        Args:
            id: The notification's id, as `Receipt.id` has it.

        Returns:
            The status afterwards.

        Raises:
            NotFound: The id is wrong, or its history has been deleted (`[retention] notifications`).
            UsageError: `id` is no text.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The request is not stored.

        Example:
            ```python
            await engine.resume(receipt.id)
            ```
        """
        status = await self.status(id)
        line = audit("notification.resumed", notification=id)
        await self.storage.resume(status.app, id, self._clock.now(), audit=line)
        for dispatcher in self._dispatchers:
            dispatcher.stops.resume(id)
        return await self.status(id)

    async def pause_binding(self, binding: str, *, app: str = "default") -> None:
        """Hold all deliveries of one binding, in every process. Returns once every worker has confirmed or its lease
        has ended.

        Args:
            binding: The binding's name in the configuration.
            app: Its app.

        Raises:
            UsageError: The app has no such binding.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The request is not stored.

        Example:
            ```python
            await engine.pause_binding("pigeon")
            ```
        """
        self.ensure_open()
        self._intake.check_binding(app, binding)
        for dispatcher in self._dispatchers:
            if (dispatcher.state.app, dispatcher.state.binding) == (app, binding):
                dispatcher.state.pause(True)
        await until_held(self.storage, self._settler.idle, self._clock, app, binding)

    async def resume_binding(self, binding: str, *, app: str = "default") -> None:
        """Lift a binding's pause. Where a gate is closed or removals have stopped, the workers try again at once, with
        a credential that was replaced meanwhile. Every worker hears of it within 100 ms.

        Args:
            binding: The binding's name in the configuration.
            app: Its app.

        Raises:
            UsageError: The app has no such binding.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The request is not stored.

        Example:
            ```python
            await engine.resume_binding("pigeon")
            ```
        """
        self.ensure_open()
        self._intake.check_binding(app, binding)
        await self.storage.resume_binding(
            app, binding, self._clock.now(), audit=audit("binding.resumed", binding=binding)
        )
        self._upkeep.look.set()

    async def erase_user(self, user: str, *, app: str = "default") -> int:
        """Forget a user at once, everywhere: endpoints, feed, and the deliveries queued for the user alone.

        Args:
            user: The user's id, as it was registered.
            app: The user's app.

        Returns:
            The number of endpoints that there were.

        Raises:
            UsageError: `user` is empty or no text.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing was erased.

        Example:
            ```python
            await engine.erase_user("alice")
            ```
        """
        self.ensure_open()
        return await erase(self.storage, self._clock, app, user)


def _expire(future: asyncio.Future[Status | None]) -> None:
    if not future.done():
        future.set_result(_LATE)
