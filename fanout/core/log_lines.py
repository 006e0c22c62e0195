"""How many lines about one matter the log takes. A fault of a million devices is a few lines and a number, and no
million lines: each costs more than the delivery that it speaks of."""

from __future__ import annotations

__all__ = ["LogLines"]


class LogLines:
    """At most `most` lines within `window` seconds; the first line after that says how many were left out.

    The time is monotonic, given by the caller.
    """

    __slots__ = ("_began", "_left_out", "_most", "_taken", "_window")

    def __init__(self, most: int = 100, window: float = 60.0) -> None:
        self._most = most
        self._window = window
        self._began = float("-inf")
        self._taken = 0
        self._left_out = 0

    def take(self, now: float) -> int | None:
        """One more line is to be written.

        Args:
            now: The time, in monotonic seconds.

        Returns:
            None where it is left out; else the number of lines that were left out since the last one, 0 as a rule.
        """
        if now - self._began >= self._window:
            self._began, self._taken = now, 0
        if self._taken >= self._most:
            self._left_out += 1
            return None
        self._taken += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
