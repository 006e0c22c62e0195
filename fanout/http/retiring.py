"""The end of connections: those that a pool replaces, for their age or because they answer nothing, and the wait until
closed ones have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from fanout.http.connection import Connection

__all__ = ["ageing", "all_ended", "idle", "useless"]

_DNS_MISSES = 3
"""Looks in a row without a connection's address before it is replaced: large services answer with changing subsets."""


def ageing(connection: Connection, now: float) -> bool:
    """Whether another is to take its place: it is old, its stream ids run low, or its address left the DNS."""
    return now >= connection.retire_at or connection.ids_run_low or connection.missed_dns >= _DNS_MISSES


def useless(ready: Sequence[Connection], now: float, patience: float) -> Iterator[tuple[Connection, str]]:
    """The connections that answer no requests, although they may answer PINGs, or allow none for as long as one may
    take; and why.

    Where one is mute, the others that have not answered since its request was sent are believed no more than it.
    `patience` is the time that a request may take, in seconds.
    """
    mute = any(connection.mute for connection in ready)
    for connection in [*ready]:
        if mute and (connection.mute or now - connection.served_at >= patience):
            yield connection, "a connection answered no request in time and was replaced"
        elif connection.shut_at is not None and now - connection.shut_at >= patience:
            yield connection, "the gateway allowed no requests on a connection (SETTINGS_MAX_CONCURRENT_STREAMS 0)"


def idle(ready: Sequence[Connection], now: float, after: float | None) -> Sequence[Connection]:
    """The connections without a request under way that have been silent for `after` seconds; None: no connection."""
    if after is None:
        return ()
    return [each for each in ready if not each.codec.streams and each.silence(now) >= after]


async def all_ended(connections: Sequence[Connection]) -> None:
    """Return when these connections, which are closed, have closed their sockets. After a second they are aborted."""
    ended = [connection.ended for connection in connections]
    if ended:
        _, late = await asyncio.wait(ended, timeout=1.0)
        if late:
            for connection in connections:
                connection.abort()
            await asyncio.wait(late, timeout=1.0)
    # A transport closes its socket in the iteration after it was aborted; a connect that was cut short leaves one too.
    for _ in range(3):
        await asyncio.sleep(0)
