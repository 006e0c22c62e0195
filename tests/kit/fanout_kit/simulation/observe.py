"""Wrappers around the production parts that record all calls: transports, storage calls, live events, critical logs."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from fanout.core.run import Part
from fanout.plugin import (
    ACCEPTED,
    Address,
    Delivery,
    Diagnosis,
    EndpointFilter,
    Message,
    Notification,
    Outcome,
    Run,
    Transport,
)
from fanout_kit.simulation.history import Attempt, History
from fanout_kit.simulation.trace import shown

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fanout_kit.simulation.disk import Call
    from fanout_kit.simulation.loop import NodeLoop
    from fanout_kit.simulation.world import World

__all__ = ["CriticalLog", "Hook", "ObservedTransport", "Recorder", "at_once"]

_QUESTIONS = frozenset(
    (
        "changes",
        "waiting",
        "status",
        "deliveries",
        "finished",
        "stopped",
        "notification",
        "outstanding",
        "events",
        "gates",
        "workers",
        "share",
        "token",
    )
)
"""Calls that change nothing and that no judge asks for."""

_HOST = socket.gethostname()
_ENROLS = frozenset(("register", "intern", "remove_endpoints", "restore_endpoints", "erase_user"))


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits: a call of a storage that runs inline."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a storage that runs inline has waited")


class Recorder:
    """Hears of every storage call once it is done. `witness` is a storage of its own on the same file, inline."""

    def __init__(self, world: World, history: History, witness: Any) -> None:
        self._world = world
        self._history = history
        self._witness = witness

    def done(self, call: Call) -> None:
        """A call was committed, answered or refused."""
        said = f"error {type(call.error).__name__}: {call.error}" if call.error is not None else shown(call.result)
        # A worker's id names the process that plays all of them.
        said = said.replace(f"{_HOST}:{os.getpid()}:", "")
        self._world.say(call.node, "storage", f"{call.name} -> {said}")
        if call.name in _QUESTIONS:
            return
        history = self._history
        history.calls.append(call)
        if call.error is None and not call.skipped and self.alone(call):
            self.look()

    @staticmethod
    def alone(call: Call) -> bool:
        """Whether the call may change the directory, so that the directory has to be read after it."""
        if call.name == "settle":
            return any(settlement.changes for settlement in call.argument(0, "settlements"))
        return call.name in _ENROLS or call.name == "expire"

    def look(self) -> None:
        """Write down the directory as it stands now."""
        found = []
        for user in (None, ""):
            which = EndpointFilter(user=user, state=None)
            found += at_once(self._witness.list_endpoints(which, limit=100_000))
        directory = {endpoint.id: endpoint for endpoint in found}
        self._history.directories.append((len(self._history.calls) - 1, directory))


class ObservedTransport:
    """A transport, and a record of each of its sends. In all else it is the transport itself."""

    def __init__(self, inner: Transport, binding: str, node: NodeLoop, history: History) -> None:
        self._inner = inner
        self._binding = binding
        self._node = node
        self._history = history
        self._prepared: dict[int, tuple[Message, str]] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(self._start, found) if name == "start" and found is not None else found

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._inner.__aexit__(*exc)

    def parse_address(self, raw: str | Mapping[str, Any]) -> Address:
        return self._inner.parse_address(raw)

    def prepare(self, notification: Notification) -> Message:
        message = self._inner.prepare(notification)
        self._prepared[id(message)] = (message, notification.id)
        return message

    def capacity(self, group: str) -> int:
        return self._inner.capacity(group)

    def _start(self, start: Callable[[Run], Sequence[int]], run: Run) -> Sequence[int]:
        attempts = [self._begun(run.message, run.delivery(index)) for index in range(len(run))]
        left = start(_ObservedRun(run, self, attempts))
        waiting = {id(attempts[index]) for index in left}  # they have not begun: that is for `send`
        self._history.attempts[:] = [each for each in self._history.attempts if id(each) not in waiting]
        return left

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        attempt = self._begun(message, delivery)
        try:
            attempt.outcome = outcome = await self._inner.send(message, delivery)
        except BaseException as error:
            attempt.raised = type(error).__name__
            raise
        finally:
            self.ended(attempt)
        return outcome

    def _begun(self, message: Message, delivery: Delivery) -> Attempt:
        world, history = self._node.world, self._history
        attempt = Attempt(
            node=self._node.name,
            binding=self._binding,
            group=delivery.group,
            notification=self._prepared[id(message)][1],
            endpoint=delivery.endpoint,
            delivery=delivery.id,
            address=delivery.address,
            attempt=delivery.attempt,
            ttl=delivery.ttl,
            begun=world.time,
            wall=world.wall,
            commits=len(history.calls),
            line=len(world.trace),
        )
        history.attempts.append(attempt)
        world.say(self._node.name, "send", f"{attempt.delivery} #{attempt.attempt} ttl {attempt.ttl} {attempt.address}")
        return attempt

    def ended(self, attempt: Attempt) -> None:
        """The attempt has its outcome."""
        if not self._node.dead:
            world = self._node.world
            attempt.ended, attempt.ended_wall, attempt.last_line = world.time, world.wall, len(world.trace)
            world.say(self._node.name, "outcome", f"{attempt.delivery} {attempt.raised or attempt.outcome!r}")

    async def check(self) -> Diagnosis:
        return await self._inner.check()


class _ObservedRun(Part):
    """A run, and a record of its answers."""

    def __init__(self, run: Run, observer: ObservedTransport, attempts: Sequence[Attempt]) -> None:
        super().__init__(run, range(len(run)))
        self._observer = observer
        self._attempts = attempts

    def accept(self, indices: Sequence[int]) -> None:
        for index in indices:
            self._note(index, ACCEPTED)
        super().accept(indices)

    def answer(self, index: int, outcome: Outcome | None) -> None:
        self._note(index, outcome)
        super().answer(index, outcome)

    def _note(self, index: int, outcome: Outcome | None) -> None:
        if not self.over(index):
            self._attempts[index].outcome = outcome
            self._observer.ended(self._attempts[index])


class Hook:
    """Writes an engine's live events down."""

    def __init__(self, node: NodeLoop, history: History) -> None:
        self._node = node
        self._history = history

    def on_event(self, event: Any) -> None:
        """See `fanout.engine.live.Hooks`."""
        self._history.live.append((len(self._node.world.trace), self._node.name, event, self._node.world.time))
        self._node.world.say(self._node.name, "event", f"{event.kind} {event.data}")


class CriticalLog(logging.Handler):
    """A critical log is an error of the run: the engine says so before it stops."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.CRITICAL)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        self._errors.append(f"logged as critical: {record.getMessage()}")
