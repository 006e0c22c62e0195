"""Live events: reports to the listeners of this moment. They are a convenience: events that must not be missed stand
in the durable log."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol, Self
from weakref import WeakSet

from fanout.core import given
from fanout.engine.door import Door
from fanout.errors import UsageError

__all__ = ["Hooks", "Listener", "Live", "LiveEvent", "SettledDelivery"]

_log = logging.getLogger("fanout.live")
_BUFFER = 10_000
_HOOKS = ("on_settled", "on_event")
_PLAIN = {name.replace("_", ""): name for name in _HOOKS}


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """One event of this process, told as it happens.

    Attributes:
        kind: `put`, `settled` (counts of one commit by state), `finished`, `endpoint.gone`, `endpoint.moved`,
            `gate.closed`, `gate.opened`, `alarm`, `fault`; to a listener that fell behind also `lost`, with the number
            of events that it missed.
        at: The time, in UNIX seconds.
        data: The app, binding, group, endpoint or notification concerned, and never a device address.
    """

    kind: str
    at: float
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SettledDelivery:
    """One delivery that has ended, as batch hooks are told of it, after the commit that stored it."""

    notification: str
    app: str
    binding: str
    endpoint: int
    state: str
    reason: str


class Hooks(Protocol):
    """The events that a host may be told in batches. Each method is optional, plain (not `async def`), and called in
    the engine's loop; one that raises is logged and harms nothing. An object with neither, or with a misspelt one, is
    refused when the engine is made."""

    def on_settled(self, batch: Sequence[SettledDelivery]) -> None:
        """These deliveries have ended, and it is stored."""
        ...

    def on_event(self, event: LiveEvent) -> None:
        """A live event."""
        ...


class Live:
    """Hands live events to listeners and hooks. A listener that falls 10,000 behind loses the oldest, and is told how
    many."""

    def __init__(self, hooks: Sequence[object] = ()) -> None:
        hooks = [_checked(hook) for hook in given.collection("hooks", hooks)]
        self._settled: list[Callable[[Sequence[SettledDelivery]], None]] = _methods(hooks, "on_settled")
        self._events: list[Callable[[LiveEvent], None]] = _methods(hooks, "on_event")
        self._listeners: WeakSet[Listener] = WeakSet()
        self.heard = bool(self._events)
        """Whether a live event may have a listener: where there is none, none need be made."""

    @property
    def wants_deliveries(self) -> bool:
        """Whether any hook asks for single deliveries; building them costs, so none is built unasked."""
        return bool(self._settled)

    def settled(self, batch: Sequence[SettledDelivery]) -> None:
        """Tell the batch hooks."""
        for hook in self._settled:
            _call(hook, batch)

    def emit(self, kind: str, at: float, **data: Any) -> None:
        """Tell hooks and listeners."""
        if not self.heard:
            return
        self.heard = bool(self._events or self._listeners)
        event = LiveEvent(kind, at, data)
        for hook in self._events:
            _call(hook, event)
        for listener in tuple(self._listeners):
            listener.push(event)

    def listen(self) -> Listener:
        """Events from now on, for as long as the returned iterator is kept."""
        listener = Listener()
        self._listeners.add(listener)
        self.heard = True
        return listener

    def close(self) -> None:
        """End every listener's iteration at its next step."""
        for listener in tuple(self._listeners):
            listener.close()


class Listener:
    """An async iterator over live events."""

    def __init__(self) -> None:
        self._buffer: deque[LiveEvent] = deque(maxlen=_BUFFER)
        self._wake: asyncio.Future[None] | None = None
        self._lost = 0
        self._closed = False
        self._door = Door()
        self._door.enter()

    def push(self, event: LiveEvent) -> None:
        """One more, in place of the oldest if there are too many."""
        if len(self._buffer) == _BUFFER:
            self._lost += 1
        self._buffer.append(event)
        self._ring()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._ring()

    def _ring(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LiveEvent:
        self._door.check()
        while not self._buffer:
            if self._closed:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        if self._lost:
            lost, self._lost = self._lost, 0
            return LiveEvent("lost", self._buffer[0].at, {"events": lost})
        return self._buffer.popleft()


def _checked(hook: object) -> object:
    """A hook object with at least one method of `Hooks`, plain functions all, and none that is misspelt. Raises
    `UsageError`."""
    name = type(hook).__name__
    if isinstance(hook, type):
        raise UsageError(f"hooks holds the class {hook.__name__}: give an object of it.")
    for called in dir(hook):
        if called in _HOOKS or not called.lower().startswith("on") or not callable(getattr(hook, called, None)):
            continue
        near = get_close_matches(called.lower().replace("_", ""), _PLAIN, n=1, cutoff=0.8)
        if not near and not called.startswith("on_"):
            continue
        meant = f"did you mean {_PLAIN[near[0]]}?" if near else f"there is {' and '.join(_HOOKS)}."
        raise UsageError(f"{name}.{called} is no hook, so it would never be called: {meant}")
    methods = [(called, getattr(hook, called)) for called in _HOOKS if hasattr(hook, called)]
    if not methods:
        raise UsageError(f"hooks holds a {name}, which has neither {' nor '.join(_HOOKS)}.")
    for called, method in methods:
        if not callable(method):
            raise UsageError(f"{name}.{called} is no method.")
        if any(map(_awaited, (method, getattr(method, "__call__", None)))):  # noqa: B004
            raise UsageError(
                f"{name}.{called} is `async def`, and a hook is called, not awaited: start a task in a plain method."
            )
    return hook


def _awaited(method: object) -> bool:
    return inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)


def _methods(hooks: Sequence[object], name: str) -> list[Any]:
    return [getattr(hook, name) for hook in hooks if hasattr(hook, name)]


def _call(hook: Callable[[Any], None], details: object) -> None:
    try:
        hook(details)
    except Exception:
        _log.exception("A hook raised; it is called again next time.")
