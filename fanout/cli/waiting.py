"""A worker or service that is started while the database is away waits for it, as it does when the database goes away
later."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeVar

from fanout.cli.shell import say
from fanout.errors import StorageRefused, StorageUnavailable

__all__ = ["entered"]

T = TypeVar("T")

_EVERY = 60.0
"""Seconds between two lines that say so."""
_PAUSE = 2.0
"""Seconds between two tries, at most; half of them at least."""


async def entered(stack: AsyncExitStack, opened: AbstractAsyncContextManager[T]) -> T:
    """Enter `opened`, with new tries while the database cannot be reached. Raises `StorageRefused` at once: an operator
    must mend that fault."""
    reported_at = float("-inf")
    while True:
        try:
            return await stack.enter_async_context(opened)
        except StorageRefused:
            raise
        except StorageUnavailable as error:
            if time.monotonic() - reported_at >= _EVERY:
                reported_at = time.monotonic()
                say(f"fanout: waits for the database. {error}", level="warning")
        await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.0))
