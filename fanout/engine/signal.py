"""A signal that wakes all that wait for it, with or without a time limit."""

from __future__ import annotations

import asyncio

__all__ = ["Signal"]


class Signal:
    """Something happened. A `set` before a `wait` is remembered once, so that no wake-up falls between a look and a
    wait."""

    __slots__ = ("_set", "_waiters")

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[bool]] = set()
        self._set = False

    def set(self) -> None:
        """Wake all waiters; if there is none, the next one will not wait."""
        if not self._waiters:
            self._set = True
            return
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(True)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for `set`, for `timeout` seconds at most; whether it came."""
        if self._set:
            self._set = False
            # A loop whose signal is always set must still let others run.
            await asyncio.sleep(0)
            return True
        if timeout is not None and timeout <= 0:
            await asyncio.sleep(0)
            return False
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters.add(waiter)
        timer = None if timeout is None else loop.call_later(timeout, _expire, waiter)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


def _expire(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
