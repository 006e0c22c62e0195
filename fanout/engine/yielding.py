"""Give back the leases that this worker has not begun, where other workers of the binding idle."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.states import Waiting
from fanout.core.window import excess
from fanout.engine.binding_state import BindingState
from fanout.engine.lease import Lease
from fanout.plugin import Clock, Storage, fleet_of

__all__ = ["Yielding"]

YIELDED = "left to an idle worker"


class Yielding:
    """Storage is asked which workers idle only while more is in hand than this worker sends in a second."""

    def __init__(self, storage: Storage, states: Sequence[BindingState], worker: str, clock: Clock) -> None:
        self._storage = storage
        self._states = states
        self._worker = worker
        self._clock = clock
        self._looked = clock.monotonic()
        self._answers: dict[str, int] = {}

    async def look(self, now: float) -> None:
        """One look. A worker idles that lives, serves the binding and holds no lease."""
        over = self._over()
        if not over:
            return
        others = [
            each for each in await fleet_of(self._storage).workers(now) if each.id != self._worker and each.until > now
        ]
        for state, count in over:
            if any(f"{state.app}/{state.binding}" in each.bindings and not each.leases for each in others):
                give_back(state, count)

    def _over(self) -> list[tuple[BindingState, int]]:
        monotonic = self._clock.monotonic()
        took, self._looked = monotonic - self._looked, monotonic
        before, self._answers = self._answers, {}
        over: list[tuple[BindingState, int]] = []
        for state in self._states:
            name = f"{state.app}/{state.binding}"
            answers = self._answers[name] = sum(group.answers for group in state.groups.values())
            queued = sum(group.queued for group in state.groups.values())
            if queued and took > 0:
                sent = max(0, answers - before.get(name, 0)) / took
                limit = sum(group.limit for group in state.groups.values())
                if count := excess(queued, limit, sent):
                    over.append((state, count))
        return over


def give_back(state: BindingState, count: int) -> None:
    """So many deliveries that no sender has taken go back, the last to be sent first. A lease of which nothing was
    begun goes as a whole; of another they become rows that any workers can divide among them."""
    found: dict[Lease, list[int]] = {}
    for group in state.groups.values():
        for queue in reversed(group.queues):
            for lease, position in queue.give_up(count):
                found.setdefault(lease, []).append(position)
                count -= 1
    now = state.clock.now()
    for lease, positions in found.items():
        whole = len(positions) == lease.left == lease.chunk.states.count(0)
        for position in positions:
            if whole:
                lease.keep_open(position, now, Waiting.READY, YIELDED)
            else:
                lease.hold(position, now, Waiting.READY, YIELDED)
    state.settler.wake()
