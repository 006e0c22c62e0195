"""Reading in turns: however many connections have much to say at once, others on the loop are not kept waiting by all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

__all__ = ["Reading"]


class Reading:
    """The readers of one event loop that still have something to read. One of them reads one slice in each turn of the
    loop.

    A slice wakes some eighty senders, and these take a millisecond or two: two connections at once would double what everybody
    else waits for a turn.
    """

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        # Without the loop itself, which is the key under which this is kept, and must be able to go.
        self._turns: deque[Callable[[], bool]] = deque()

    @staticmethod
    def on(loop: asyncio.AbstractEventLoop) -> Reading:
        """The one of that loop."""
        found = _READINGS.get(loop)
        if found is None:
            found = _READINGS[loop] = Reading()
        return found

    @property
    def busy(self) -> bool:
        """Whether somebody is reading by turns."""
        return bool(self._turns)

    def add(self, read: Callable[[], bool]) -> None:
        """Call `read` in turns, until it answers that there is nothing left."""
        if not self._turns:
            asyncio.get_running_loop().call_soon(self._turn)
        self._turns.append(read)

    def _turn(self) -> None:
        turns = self._turns
        more = True  # where it fails too: what has arrived behind that is somebody's answer
        try:
            more = turns[0]()
        finally:
            read = turns.popleft()
            if more:
                turns.append(read)
            if turns:
                asyncio.get_running_loop().call_soon(self._turn)


_READINGS: WeakKeyDictionary[asyncio.AbstractEventLoop, Reading] = WeakKeyDictionary()
