"""Connecting where several hosts are named: overlapping, so that one that is dark does not delay the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import asyncpg

from fanout.errors import StorageError

__all__ = ["race"]

STAGGER = 0.25
"""Seconds after which the next host is tried too (RFC 8305, section 5, for addresses)."""

_PASSES = 16
"""Passes of the loop before an attempt is cancelled. asyncpg leaves a future with an error that is never fetched where
it is cancelled between the connection and the question for TLS: an attempt that has just begun gets past that point
first."""

T = TypeVar("T")


async def race(
    hosts: Sequence[str],
    connect: Callable[[str], Awaitable[T]],
    discard: Callable[[T], None],
    *,
    limit: float,
) -> tuple[str, T]:
    """The first of `places` that `connect` comes through to, and the connection that it made. Raises the most telling
    of its errors, or `TimeoutError`.

    They are begun in their order, each a quarter of a second after the one before or as soon as that has failed, all
    within `limit` seconds. A connection that another attempt makes later is handed to `discard`.
    """
    waiting = list(hosts)
    under_way: dict[asyncio.Task[T], str] = {}
    errors: list[BaseException] = []
    won: list[T] = []
    cancelled: list[BaseException] = []
    try:
        async with asyncio.timeout(limit):
            while waiting or under_way:
                if waiting:
                    host = waiting.pop(0)
                    under_way[asyncio.ensure_future(connect(host))] = host
                done, _ = await asyncio.wait(
                    under_way, timeout=STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    host = under_way.pop(task)
                    error = task.exception()
                    if error is None:
                        won.append(task.result())
                        return host, won[0]
                    errors.append(error)
    except TimeoutError as late:
        errors.append(late)
    finally:
        for _ in range(_PASSES if under_way else 0):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as again:  # at each pass, for a caller in a task group of anyio
                cancelled.append(again)
        for task in under_way:
            task.add_done_callback(lambda task: _unwanted(task, discard))
            task.cancel()
        if cancelled:
            for made in won:
                discard(made)
            raise cancelled[0]
    # A server's own error tells more than that another was not to be reached.
    raise max(errors, key=lambda error: (isinstance(error, asyncpg.PostgresError), isinstance(error, StorageError)))


def _unwanted(task: asyncio.Task[T], discard: Callable[[T], None]) -> None:
    """The caller waits for this attempt no longer: close what it made."""
    if not task.cancelled() and task.exception() is None:
        discard(task.result())
