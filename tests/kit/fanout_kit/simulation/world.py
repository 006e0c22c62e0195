"""Virtual time, and whose turn it is: the one scheduler of a simulated set of processes.

Each process is a `NodeLoop`. The world runs one iteration of one loop at a time, then the next; when no loop has
anything to do it moves the clock to the next thing that is due. Which of several comes first is drawn from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from fanout_kit.simulation.trace import Trace

if TYPE_CHECKING:
    from fanout_kit.simulation.loop import NodeLoop

__all__ = ["EPOCH", "NodeClock", "Stuck", "World"]

EPOCH = 1_800_000_000.0
"""The wall clock at the start, UNIX seconds: a moment in January 2027."""

_AT_ONE_MOMENT = 50_000


class Stuck(Exception):
    """The simulated processes do something for ever without any time passing."""


class World:
    """The clock, the nodes and the events due. `wall_offset` is by how much an operator has set the machine's clock."""

    def __init__(self, rng: random.Random, trace: Trace) -> None:
        self.time = 0.0
        self.wall_offset = 0.0
        self.trace = trace
        self.nodes: list[NodeLoop] = []
        self.born: list[NodeLoop] = []
        """Every node there ever was: a dead one is kept whole until the run is over, so that nothing of it is ever
        finished."""
        self.errors: list[str] = []
        """Exceptions that escaped from callbacks and tasks, and critical logs."""
        self._rng = rng
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def wall(self) -> float:
        """UNIX seconds by this machine's clock."""
        return EPOCH + self.wall_offset + self.time

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Do this at the virtual time `when`, outside of every node: an act of a network, a kernel or a fault."""
        self._count += 1
        heappush(self._events, (when, self._count, action, arguments))

    def after(self, delay: float, action: Callable[..., None], *arguments: Any) -> None:
        """The same, `delay` seconds from now."""
        self.at(self.time + delay, action, *arguments)

    def run(self, until: Callable[[], bool], *, limit: float) -> bool:
        """Let time pass until `until()` holds, or the virtual time `limit` is reached: then False. Raises `Stuck`."""
        here = 0
        while not until():
            when, node = self._next()
            if when > limit:
                self.time = max(self.time, limit)
                return False
            if when > self.time:
                self.time = when
                here = 0
            here += 1
            if here > _AT_ONE_MOMENT:
                raise Stuck(f"{here} steps at the virtual time {self.time:.6f} without an end.")
            if node is None:
                _, _, action, arguments = heappop(self._events)
                action(*arguments)
            else:
                node.iterate()
        return True

    def _next(self) -> tuple[float, NodeLoop | None]:
        events = self._events
        when, chosen = (events[0][0] if events else float("inf")), None
        for node in self.nodes:
            at = node.due
            if at < when or (at == when and chosen is not None and self._rng.random() < 0.5):
                when, chosen = at, node
        return when, chosen

    def say(self, who: str, what: str, text: str = "", blob: bytes = b"") -> None:
        """A line of the trace, now."""
        self.trace.add(self.time, who, what, text, blob)


class NodeClock:
    """The `Clock` of every process: one machine, so one wall clock, and a monotonic one that no program can set."""

    __slots__ = ("_world",)

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        """UNIX seconds, as this machine believes."""
        return self._world.wall

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._world.time
