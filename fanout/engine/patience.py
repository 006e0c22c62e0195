"""The reaction of a loop of the engine while the database cannot be used. The call is repeated after a pause until it
succeeds; `Trouble` shows the state meanwhile."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fanout.engine.signal import Signal
from fanout.errors import ContentRefused, StorageFull, StorageRefused, StorageUnavailable
from fanout.plugin import Clock

__all__ = ["PASSING", "Patience", "Trouble", "retry_while_unavailable"]

T = TypeVar("T")

PASSING = (StorageUnavailable, ContentRefused)
"""The errors that end no loop: the database takes it again, or takes something else."""
_PAUSE = (0.25, 2.0)
"""Seconds before the first repeat, and at most; doubled in between. Half of it is drawn, so that no two processes ask
in step."""


_APART = 60.0
"""Seconds between two causes in the log, where storage fails again and again."""
_log = logging.getLogger("fanout.engine")


class Trouble:
    """The refusal of storage at present, over all loops of the engine: for the log, for `/ready` and for a metric."""

    __slots__ = ("_clock", "_met", "_next", "_rng", "_said", "told")

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self.told = self._said = False
        """Whether the log has a cause of the present refusal, and whether it was said here."""
        self._next = float("-inf")
        self._met: dict[Patience, tuple[float, Exception]] = {}

    def patience(self) -> Patience:
        """For one loop."""
        return Patience(self)

    def begin(self, loop: Patience, error: Exception) -> None:
        """A loop has met an error, or another one."""
        now = self._clock.monotonic()
        since = self._met[loop][0] if loop in self._met else now
        self._met[loop] = since, error
        if not self.told and now >= self._next and isinstance(error, StorageUnavailable):
            self.told = self._said = True
            self._next = now + _APART
            _log.error("Work waits for the database: %s", error)

    def end(self, loop: Patience) -> None:
        """That loop goes on."""
        self._met.pop(loop, None)
        if self.told and not self._met:
            if self._said:
                _log.warning("The database does its work again.")
            self.told = self._said = False

    def pause(self, tries: int) -> float:
        """Seconds until the next try, after so many failed ones."""
        first, most = _PAUSE
        return min(most, first * 2.0 ** min(tries - 1, 10)) * self._rng.uniform(0.5, 1.0)

    @property
    def problem(self) -> str:
        """The last refusal of storage to a loop that still waits; empty while it refuses nothing."""
        error = self._error
        return "" if error is None else str(error)

    @property
    def kind(self) -> str:
        """`full`, `refused` (an operator mends it), `content` or `unavailable`; empty while storage refuses nothing."""
        match self._error:
            case None:
                return ""
            case StorageFull():
                return "full"
            case StorageRefused():
                return "refused"
            case ContentRefused():
                return "content"
            case _:
                return "unavailable"

    @property
    def seconds(self) -> float:
        """For how long the first of the loops that wait has been waiting; 0 while none does."""
        return max((self._clock.monotonic() - since for since, _ in self._met.values()), default=0.0)

    @property
    def _error(self) -> Exception | None:
        return next((error for _, error in reversed(self._met.values())), None)


class Patience:
    """One loop's part of it."""

    __slots__ = ("_tries", "_trouble")

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self._tries = 0

    def failed(self, error: Exception) -> float:
        """Storage did not do it; seconds until it is to be asked again."""
        self._tries += 1
        self._trouble.begin(self, error)
        return self._trouble.pause(self._tries)

    @property
    def first(self) -> bool:
        """Whether the latest failure came after a success."""
        return self._tries == 1

    def well(self) -> None:
        """Storage did it."""
        if self._tries:
            self._tries = 0
            self._trouble.end(self)


async def retry_while_unavailable(call: Callable[[], Awaitable[T]], trouble: Trouble) -> T:
    """The answer of `call`, however often storage has to be asked. For calls that may be repeated."""
    patience = trouble.patience()
    try:
        while True:
            try:
                return await call()
            except StorageUnavailable as error:
                await Signal().wait(patience.failed(error))
    finally:
        patience.well()
