"""The check that a caller runs in the event loop in which the engine was entered. No part of the engine may be used
from two threads."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop  # which raises nothing where there is none

from fanout.errors import WrongLoop

__all__ = ["Door"]


class Door:
    """Knows the loop of an engine, from `enter` on. Before that, it lets every caller pass: nothing runs yet."""

    __slots__ = ("loop",)

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> None:
        """The running loop is the engine's."""
        self.loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Raise `WrongLoop` for a caller in another loop, or in none."""
        if self.loop is not None and _get_running_loop() is not self.loop:
            raise WrongLoop(
                "The engine runs in another event loop than this call, and nothing was done: call it in the loop that entered "
                "`async with fanout.open(…)`, open an engine in this loop, or from threads use fanout.sync."
            )
