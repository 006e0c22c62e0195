"""Stopping and pausing: repeated in storage until no worker holds a lease, and written to the audit log once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol

from fanout.core.audit import Audit
from fanout.core.records import Status
from fanout.engine.acting import audit
from fanout.engine.signal import Signal
from fanout.plugin import Clock, Storage

__all__ = ["until_held", "until_put_down"]


class _Stops(Protocol):
    def tell(self, stopped: dict[str, str], /) -> None: ...

    def storing(self, id: str, how: str, /) -> AbstractContextManager[None]: ...


async def until_put_down(
    workers: Sequence[_Stops],
    idle: Signal,
    clock: Clock,
    of: Status,
    how: str,
    store: Callable[..., Awaitable[int]],
) -> None:
    """Said again while something is held: a lease that was granted before may have been on its way into hand."""
    with ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker.storing(of.id, how))
        left = await store(of.app, of.id, clock.now(), audit=audit(f"notification.{how}", notification=of.id))
    while left:
        await idle.wait(0.05)
        for worker in workers:
            worker.tell({of.id: how})
        left = await store(of.app, of.id, clock.now(), audit=None)


async def until_held(storage: Storage, idle: Signal, clock: Clock, app: str, binding: str) -> None:
    """Until nothing more of the binding is leased."""
    line: Audit | None = audit("binding.paused", binding=binding)
    while await storage.pause_binding(app, binding, clock.now(), audit=line):
        line = None
        await idle.wait(0.05)
