"""Sharing the event loop: encryption is done in slices, so that answers, timers and other work never wait long for it.

Encryption is the one thing here that takes real time (some 90 us each), and hundreds of senders become ready at once when their
answers come in one read. Threads were measured to gain nothing (the library holds the GIL for most of it), and a process pool
costs more than it saves below about 10,000 a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Turns"]

_MOST = 64
"""Turns in a slice at most, whatever the clock says: a virtual one shows no cost."""


class Turns:
    """Gives turns in the order of asking, `slice` seconds' worth for each iteration of the event loop.

    What a turn costs is measured, by `clock` (monotonic seconds); the first guess is 150 us.
    """

    __slots__ = ("_call_soon", "_clock", "_cost", "_left", "_new_future", "_scheduled", "_slice", "_waiting", "_woken")

    def __init__(self, *, clock: Callable[[], float], slice: float = 0.004) -> None:
        loop = asyncio.get_running_loop()
        self._clock = clock
        self._slice = slice
        self._cost = 0.000_150
        self._call_soon = loop.call_soon
        self._new_future = loop.create_future
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._left = 0
        self._woken = 0
        self._scheduled = False

    def wait(self) -> asyncio.Future[None] | None:
        """None: go ahead now. Otherwise await this first; cancelling it gives the turn to the next."""
        if not self._scheduled:
            self._scheduled = True
            self._left = self._per_slice()
            self._call_soon(self._next)
        if self._left > 0:
            self._left -= 1
            return None
        future = self._new_future()
        self._waiting.append(future)
        return future

    def took(self, begun: float) -> None:
        """A turn that began at `begun` is over."""
        took = self._clock() - begun
        # Capped, so that one turn in which the process was suspended does not make all slices short for long.
        self._cost += (min(took, 0.001) - self._cost) * 0.05

    def _per_slice(self) -> int:
        return max(1, min(_MOST, int(self._slice / max(self._cost, 1e-6))))

    def _next(self) -> None:
        """Once per iteration while there is demand: those woken now run in the next one, beside those woken before in this one."""
        most = self._per_slice()
        before, woken = self._woken, 0
        waiting = self._waiting
        while waiting and woken < most:
            future = waiting.popleft()
            if not future.done():
                future.set_result(None)
                woken += 1
        self._woken = woken
        self._left = 0 if waiting else max(0, most - before)
        self._scheduled = woken > 0 or before > 0
        if self._scheduled:
            self._call_soon(self._next)
