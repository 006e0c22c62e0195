"""What a loop of the engine does while the database is away: the same again, until it is back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fanout.engine.signal import Signal
from fanout.errors import StorageUnavailable

__all__ = ["AWAY", "patiently"]

T = TypeVar("T")

AWAY = 0.25
"""Seconds between two tries to reach a database that is away."""


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """What `call` answers, however often storage has to be asked. For what may be done more than once."""
    while True:
        try:
            return await call()
        except StorageUnavailable:
            await Signal().wait(AWAY)
