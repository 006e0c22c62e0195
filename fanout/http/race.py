"""Attempts that overlap (RFC 8305, "Happy Eyeballs"): a slow one goes on while the next is tried, and the first success
counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

__all__ = ["STAGGER", "first_of", "interleaved"]

T = TypeVar("T")

STAGGER = 0.25
"""Seconds between the beginnings of two attempts (RFC 8305, section 5); the next begins at once where one has
failed."""


def interleaved(addresses: Sequence[str]) -> list[str]:
    """The addresses with the two families in turns, beginning with that of the first (RFC 8305, section 4)."""
    if not addresses:
        return []
    leading = ":" in addresses[0]
    first = [address for address in addresses if (":" in address) == leading]
    other = [address for address in addresses if (":" in address) != leading]
    turns: list[str] = []
    while first or other:
        turns += first[:1] + other[:1]
        first, other = first[1:], other[1:]
    return turns


async def first_of(
    attempts: Sequence[Callable[[], Awaitable[T]]], discard: Callable[[T], None], *, stagger: float = STAGGER
) -> T:
    """The result of the first attempt to succeed; the others are cancelled, and a later result of theirs is given to
    `discard`.

    Each attempt has a deadline of its own, and cleans up after itself when it fails or is cancelled. Raises an
    `ExceptionGroup` of all failures, in the order in which they happened, where none succeeds; `attempts` must not be
    empty.
    """
    left = list(attempts)
    running: set[asyncio.Task[T]] = set()
    failures: list[Exception] = []

    async def run(attempt: Callable[[], Awaitable[T]]) -> T:
        return await attempt()

    won: asyncio.Task[T] | None = None
    try:
        while left or running:
            if left:
                running.add(asyncio.ensure_future(run(left.pop(0))))
            done, _ = await asyncio.wait(
                running, timeout=stagger if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            running -= done
            for task in done:
                if task.cancelled():
                    continue
                error = task.exception()
                if error is None and won is None:
                    won = task
                elif error is None:
                    discard(task.result())
                elif isinstance(error, Exception):
                    failures.append(error)
                else:
                    raise error
            if won is not None:
                return won.result()
        raise ExceptionGroup("no attempt succeeded", failures)
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for task in running:
            if not task.cancelled() and task.exception() is None:
                discard(task.result())
