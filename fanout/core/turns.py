"""Turns of one event loop: reading, starting and encrypting take a bounded part of each, so that other tasks on the
loop do not wait long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol
from weakref import WeakKeyDictionary

__all__ = ["PIECE", "Turns"]

PIECE = 128
"""Deliveries that a piece of work may have: a millisecond or so."""


class Loop(Protocol):
    """As much of an event loop as is needed here."""

    def call_soon(self, callback: Callable[..., object], /, *args: Any, context: Context | None = None) -> object:
        """Call it in the next turn."""
        ...


class Turns:
    """Long tasks of one event loop, in pieces: one piece, of at most a millisecond or so, in each turn of the loop.

    Connections that have more to read than a slice, bindings that have deliveries to start, and other long work (an
    encryption for each of many browsers) stand in one line. Were there a line for each, that many pieces would
    stand between two looks of the loop at its sockets.
    """

    __slots__ = ("_context", "_line", "reading")

    def __init__(self) -> None:
        # Without the loop itself, which is the key under which this is kept, and must be able to go.
        self._line: deque[tuple[Callable[[], bool], bool]] = deque()
        self._context = Context()
        self.reading = 0
        """How many of those in line read from a connection."""

    @property
    def busy(self) -> bool:
        """Whether a piece of work is in line, or being done."""
        return bool(self._line)

    @staticmethod
    def on(loop: Loop) -> Turns:
        """The one of that loop.

        Args:
            loop: The event loop.

        Returns:
            Its turns, the same at each call.
        """
        found = _TURNS.get(loop)
        if found is None:
            found = _TURNS[loop] = Turns()
        return found

    def add(self, loop: Loop, piece: Callable[[], bool], *, reads: bool = False) -> None:
        """Call `piece` once in each of its turns, until it answers that nothing is left. Nothing of the caller's
        context goes along.

        Args:
            loop: The event loop, the one that these turns are of.
            piece: Does at most a millisecond or so of the work, and returns whether more is left.
            reads: Whether it reads from a connection.
        """
        if not self._line:
            loop.call_soon(self._turn, loop, context=self._context)
        self._line.append((piece, reads))
        self.reading += reads

    def _turn(self, loop: Loop) -> None:
        piece, reads = self._line[0]
        more = True  # where it fails too: the bytes behind that are other requests' answers
        try:
            more = piece()
        finally:
            self._line.popleft()
            if more:
                self._line.append((piece, reads))
            else:
                self.reading -= reads
            if self._line:
                loop.call_soon(self._turn, loop, context=self._context)


_TURNS: WeakKeyDictionary[Loop, Turns] = WeakKeyDictionary()
