"""The transports `faulty-NAME`: those that are installed, with failpoints around `send`, and with a device that is
poison."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

from fanout.core.run import Part
from fanout.plugin import Context, Delivery, Message, Outcome, Run, Transport, TransportPlugin
from fanout.registry import Registry
from fanout_kit.faulty.failpoints import armed, kill, poison, reached

__all__ = ["FaultyTransport"]


class FaultyTransport:
    """Passes everything on to `inner`."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self._poison = poison()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.inner.__aexit__(*exc)

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        """See `Transport`."""
        reached("send.before")
        if self._poison and delivery.address == self._poison:
            kill()
        if armed("send.unanswered"):
            asyncio.get_running_loop().call_soon(_later, 2)
        outcome = await self.inner.send(message, delivery)
        reached("send.after")
        return outcome

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return partial(self._start, found) if name == "start" and found is not None else found

    def _start(self, start: Callable[[Run], Sequence[int]], run: Run) -> Sequence[int]:
        """See `Transport`: a run passes the failpoints of each of its deliveries."""
        for address in run.addresses:
            reached("send.before")
            if self._poison and address == self._poison:
                kill()
        if armed("send.unanswered"):
            asyncio.get_running_loop().call_soon(_later, 2)
        return start(_FaultyRun(run, range(len(run))))


class _FaultyRun(Part):
    def accept(self, indices: Sequence[int]) -> None:
        for _ in indices:
            reached("send.after")
        super().accept(indices)

    def answer(self, index: int, outcome: Outcome | None) -> None:
        reached("send.after")
        super().answer(index, outcome)


def _later(turns: int) -> None:
    """Requests of one turn of the loop leave in the next one; no answer can have been read by the turn after that."""
    if turns:
        asyncio.get_running_loop().call_soon(_later, turns - 1)
    else:
        reached("send.unanswered")


def __getattr__(name: str) -> TransportPlugin:
    """The descriptor of the faulty transport of that name."""
    if name.startswith("_"):
        raise AttributeError(name)
    inner = Registry().transport(name)

    def make(settings: Any, context: Context) -> FaultyTransport:
        return FaultyTransport(Registry().make_transport(name, settings, context))

    # Most of the contract is passed on by `__getattr__`, which no type checker can follow.
    factory: Any = make
    return TransportPlugin(name=f"faulty-{name}", settings=inner.settings, factory=factory, extra=inner.extra)
