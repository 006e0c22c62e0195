"""Whether the write-ahead log grows beyond all measure, decided purely."""

from __future__ import annotations

__all__ = ["LogSize"]

_ALARM = 256 * 2**20
"""Bytes. Without a hindrance the log is moved into the file at 4 MB and cut to 64 MB (`opening`)."""
_EVERY = 1.0
"""Seconds between two looks."""


class LogSize:
    """Says when to look at the log's size and when to complain: SQLite cannot start the log over while a connection
    reads in it.

    A program that holds a read transaction open, such as a forgotten shell, makes the log grow by everything that is
    written. It is told at 256 MB, and again at each doubling. Times are seconds of a clock that never jumps.
    """

    __slots__ = ("_limit", "_next")

    def __init__(self) -> None:
        self._next = 0.0
        self._limit = _ALARM

    def due(self, now: float) -> bool:
        """Whether it is time to look; then `grown` is to be asked."""
        if now < self._next:
            return False
        self._next = now + _EVERY
        return True

    def grown(self, size: int) -> bool:
        """Whether a log of so many bytes is worth a complaint."""
        if size < _ALARM:
            self._limit = _ALARM
        if size < self._limit:
            return False
        while self._limit <= size:
            self._limit *= 2
        return True
