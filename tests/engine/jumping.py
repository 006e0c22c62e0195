"""An event loop on which nothing takes time and waiting takes none: time jumps to whatever is due next."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["JumpingLoop", "jumping"]

T = TypeVar("T")


class Jumping(selectors.DefaultSelector):
    """Waits for nothing: time passes instead."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing would ever happen"
        self.passed += max(0.0, timeout)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumping = Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.passed

    # What engines take for a clock.
    monotonic = time

    def now(self) -> float:
        return 1_800_000_000.0 + self.jumping.passed


def jumping(make: Callable[[JumpingLoop], Coroutine[Any, Any, T]]) -> T:
    """What the coroutine comes to on such a loop."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, JumpingLoop)
        return runner.run(make(loop))
