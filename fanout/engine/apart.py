"""The engine's own work, apart from the caller that happened to start it. The context of a request (a span, a tenant)
does not apply to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["apart", "begin_apart"]

T = TypeVar("T")


async def apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Await it in an empty context: tasks that it starts, and callbacks that it leaves, keep that one."""
    return await asyncio.get_running_loop().create_task(coroutine, context=Context())


def begin_apart(start: Callable[..., object], *arguments: object) -> None:
    """Call `start` in an empty context: the task that it starts has that one."""
    Context().run(start, *arguments)
