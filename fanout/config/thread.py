"""A call that may block, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["in_thread"]

T = TypeVar("T")


async def in_thread(function: Callable[[], T]) -> T:
    """Call a function off the loop, in a thread that ends with it: a pool's idle threads would outlive the engine. An
    error of the function passes through.

    Args:
        function: The function.

    Returns:
        Its result.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def resolve(result: T | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as failure:
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, and nothing waits
            loop.call_soon_threadsafe(resolve, result, error)

    thread = threading.Thread(target=run, name="fanout configuration", daemon=True)
    thread.start()
    try:
        return await done
    finally:
        if done.done() and not done.cancelled():  # one that still waits for a disk or a network would hold up the loop
            thread.join()
