"""Give back the leases of this worker that it does not know of: storage made the lease, and its answer was lost."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set

from fanout.core.fleet import strays
from fanout.core.records import Release, Settlement
from fanout.core.states import Waiting
from fanout.engine.binding_state import BindingState
from fanout.plugin import Storage, fleet_of

__all__ = ["Strays"]

_log = logging.getLogger("fanout.membership")


class Strays:
    """Compares the leases that storage has under this worker's name with those in its hand. `doubtful`: a lease call
    has failed since the last look."""

    def __init__(self, storage: Storage, states: Sequence[BindingState], worker: str) -> None:
        self._storage = storage
        self._states = states
        self._worker = worker
        self._awaited: Mapping[tuple[int, int], Set[tuple[int, int]]] = {}
        self.doubtful = False

    async def give_back(self, now: float) -> None:
        """One look. A delivery that is given back is due at once, and counts as no crash: none of it was sent."""
        self.doubtful = False
        try:
            await self._look(now)
        except BaseException:
            self.doubtful = True
            raise

    async def _look(self, now: float) -> None:
        before = self._in_hand()
        named = await fleet_of(self._storage).holdings(self._worker, now)
        calls = {(number, state.asked) for number, state in enumerate(self._states) if state.asking}
        lost, self._awaited = strays(named, before | self._in_hand(), self._awaited, calls)
        for state in self._states:
            state.settler.dropped.intersection_update(named)
        if not lost:
            return
        release = Release(now, Waiting.READY.value, "")
        # By epoch, as any settlement: a lease that has ended meanwhile, or is another worker's, stays as it is.
        answers = await self._storage.settle([Settlement(*lease, release=release) for lease in lost], now)
        if given := sum(not answer.stale for answer in answers):
            _log.warning("%d leases whose answers were lost are given back.", given)
            for state in self._states:
                state.signal.set()

    def _in_hand(self) -> set[tuple[int, int]]:
        """Also leases dropped because their results cannot be stored: given back, they would be sent again at once."""
        found: set[tuple[int, int]] = set()
        for state in self._states:
            found.update((lease.chunk.id, lease.chunk.epoch) for lease in state.leases.values())
            found |= state.settler.dropped
        return found
