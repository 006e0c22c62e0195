"""Settle: the results of all leases, in batches, each batch one commit; then live events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import fields

import anyio

from fanout.core.records import EndpointGone, Settled, Settlement, Status
from fanout.core.refusal import UNSTORABLE, condemned, halves, joined
from fanout.core.states import DOUBT
from fanout.engine.context import EngineContext
from fanout.engine.counters import Tally
from fanout.engine.lease import Lease
from fanout.engine.live import SettledDelivery
from fanout.engine.ports import Binding
from fanout.engine.signal import Signal
from fanout.errors import StorageFull, StorageUnavailable, UsageError

__all__ = ["Settler"]

_log = logging.getLogger("fanout.settler")
OVERDUE = 1.0
"""Seconds for which a settlement may be under way before nothing more is sent."""


class Settler:
    """The only writer of results. `awake` says that a settlement is due already, so that the hot path need not ask
    twice."""

    def __init__(
        self,
        context: EngineContext,
        states: Sequence[Binding],
        finished: Callable[[str, Status | None], None],
    ) -> None:
        self._storage = context.storage
        self._clock = context.clock
        self._policy = context.policy
        self._live = context.live
        self._finished = finished
        self._signal = Signal()
        self._answered = Signal()
        self.trouble = context.trouble
        self._patience = self.trouble.patience()
        self.states = states
        self.watch = context.watch
        self.watch.heard.append(self._set_back)
        self.tally = Tally()
        self.awake = False
        self.dropped: set[tuple[int, int]] = set()
        """Leases (chunk, epoch) that are left to run out, because their results cannot be stored."""
        self.idle = Signal()
        self.stuck = False
        """Storage refuses results at present: nothing more may be sent, for nothing could be remembered."""
        self.suspect: tuple[Binding, Lease] | None = None
        """The suspected chunk of a single delivery that is under way. One in a process at a time: a crash counts
        against every delivery that is marked alone, and so would condemn the innocent beside the guilty."""

    def wake(self) -> None:
        """There is something to settle."""
        if not self.awake:
            self.awake = True
            self._signal.set()

    async def run(self) -> None:
        """Settle at once the leases to which no answer is to be added, and the others once a checkpoint. Raises
        `StorageError` when storage is lost."""
        begun = -self._policy.checkpoint
        while True:
            await self._signal.wait()
            while not self._complete() and (pause := begun + self._policy.checkpoint - self._clock.monotonic()) > 0:
                await self._answered.wait(pause)
            begun = self._clock.monotonic()
            self.awake = False
            await self.settle()

    def answered(self) -> None:
        """A group has no answer to wait for: a settlement that waits for its checkpoint may go, if no other group has
        one either."""
        if self._complete():
            self._answered.set()

    def _complete(self) -> bool:
        """Whether there are results, and no delivery in hand without one: no other settlement can be made together with
        this one."""
        if any(state.hand.left for state in self.states):
            return False
        # The newest lease first: that is where an answer has just come.
        return any(lease.dirty for state in self.states for lease in reversed(state.leases.values()))

    async def settle(self) -> None:
        """One batch: everything that is dirty now."""
        taken: list[tuple[Binding, Lease, Settlement]] = []
        self.watch.look()
        now = self._clock.now()
        for state in self.states:
            if state.senders.evidence.unread:
                state.senders.evidence.read(settled=True)
            if state.leases:
                state.tick(now)
                leases = state.leases.values()
                taken += [(state, lease, lease.take()) for lease in leases if lease.accepted or lease.dirty]
        if taken:
            begun = self._clock.monotonic()
            results = await self.store([settlement for _, _, settlement in taken])
            self.tally.commits.observe(self._clock.monotonic() - begun)
            for (state, lease, settlement), settled in zip(taken, results, strict=True):
                self._conclude(state, lease, settlement, settled)
            if self._live.wants_deliveries:
                self._live.settled(_deliveries(taken, results))
        for state in self.states:
            for id, lease in list(state.leases.items()):
                if lease.left:
                    continue
                if lease.spent and not lease.dirty:
                    del state.leases[id]
                elif lease.part_over and lease not in state.parts:
                    state.parts.append(lease)
                    state.signal.set()
        self.clear_suspect()
        self.idle.set()

    def clear_suspect(self) -> None:
        """Let the next part go, if the one that was under way is settled or its lease is lost."""
        if self.suspect is None:
            return
        state, lease = self.suspect
        if state.leases.get(lease.chunk.id) is not lease or lease.part_over:
            self.suspect = None
            for each in self.states:
                if each.parts:
                    each.signal.set()

    async def store(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Store them. Of one that the database refuses for its content, the delivery that it is about ends as dead, and
        the others as they did; the settlement then says so. Holds everything back while the database cannot be used.
        """
        try:
            return await self._stored(settlements)
        except UsageError as error:
            if len(settlements) > 1:
                half = len(settlements) // 2
                return await self.store(settlements[:half]) + await self.store(settlements[half:])
            return [await self._refused(settlements[0], error)]

    async def _refused(self, settlement: Settlement, error: UsageError) -> Settled:
        """The part of a refused settlement that can be stored, which it becomes; stale where there is none: its lease
        is left to run out."""
        lease = next(
            (found for state in self.states if (found := state.leases.get(settlement.chunk)) is not None), None
        )
        parts = halves(settlement, () if lease is None else lease.chunk.ids)
        if parts is not None:
            answers = [(await self.store([part]))[0] for part in parts]
            _become(settlement, joined(parts))
            return Settled(any(answer.stale for answer in answers), "".join(answer.finished for answer in answers))
        instead = condemned(settlement)
        if instead is None:
            _log.error(
                "A result cannot be stored, nor that it cannot: another worker tries its delivery again. %s", error
            )
            self.dropped.add((settlement.chunk, settlement.epoch))
            return Settled(True)
        _log.error("A result cannot be stored, so its delivery ends as dead (%s): %s", UNSTORABLE, error)
        _become(settlement, instead)
        return (await self.store([settlement]))[0]

    async def _stored(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """Store, holding everything back while the disk is full or the database away: sent deliveries must be recorded
        before more are sent."""
        loop = asyncio.get_running_loop()
        back = self.watch.back
        while True:
            self.watch.look()
            if self.watch.back != back:
                for settlement in settlements:
                    settlement.set_back(self.watch.back - back)
                back = self.watch.back
            overdue = loop.call_later(OVERDUE, self._hold, "Sending stops: storage has not answered for a second.")
            try:
                # A sent delivery must be remembered, even if the engine is being closed at this moment.
                with anyio.CancelScope(shield=True):
                    results = await self._storage.settle(settlements, self._clock.now())
            except StorageUnavailable as error:
                self.trouble.told |= not self.stuck  # `_hold`, below, writes the cause into the log
                pause = self._patience.failed(error)
                if isinstance(error, StorageFull):
                    self._hold("The disk is full: sending stops until results can be stored.")
                else:
                    self._hold("Sending stops until results can be stored: %s", error)
                await Signal().wait(pause)
                continue
            finally:
                overdue.cancel()
            self._patience.well()
            if self.stuck:
                self.stuck = False
                _log.warning("Results can be stored again: sending goes on.")
                for state in self.states:
                    state.resume()
            return results  # pyright: ignore[reportPossiblyUnboundVariable]  # the scope is never cancelled, so it swallows nothing

    def _hold(self, text: str, *arguments: object) -> None:
        """Nothing more is sent: its results could not be recorded. Senders are held a second after a settlement
        was asked for, even while storage hangs, so that a worker that silently loses its database repeats no
        more than it sends in that time."""
        if not self.stuck:
            self.stuck = True
            for state in self.states:
                state.hold()
            _log.error(text, *arguments)

    def _set_back(self, seconds: float) -> None:
        for state in self.states:
            state.set_back(seconds)

    def _conclude(self, state: Binding, lease: Lease, settlement: Settlement, settled: Settled) -> None:
        now = self._clock.now()
        self.tally.settled(state, lease, settlement, stale=settled.stale)
        if settled.stale:
            if not lease.lost:
                lease.lose()
                if state.leases.get(lease.chunk.id) is lease:
                    del state.leases[lease.chunk.id]
                _log.warning("A lease of %s/%s was taken over: its results are dropped.", state.app, state.binding)
            return
        if settlement.retries or settlement.release is not None:
            state.signal.set()  # a delivery is due again, sooner perhaps than the work that the dispatcher waits for
        if settled.finished:
            state.ended.append(settled.finished)
            self._finished(settled.finished, settled.status)
        if self._live.heard:
            self._tell(state, lease, settlement, settled, now)

    def _tell(self, state: Binding, lease: Lease, settlement: Settlement, settled: Settled, now: float) -> None:
        counts: dict[str, int] = {}
        for (final, _), positions in settlement.results.items():
            counts[final] = counts.get(final, 0) + len(positions)
        data = {"app": state.app, "binding": state.binding, "notification": lease.chunk.notification}
        self._live.emit("settled", now, counts=counts, retries=len(settlement.retries), **data)
        for change in settlement.changes:
            kind = "endpoint.gone" if isinstance(change, EndpointGone) else "endpoint.moved"
            self._live.emit(kind, now, endpoint=change.endpoint, **data)
        if settled.finished:
            self._live.emit("finished", now, **(data | {"notification": settled.finished}))


def _become(settlement: Settlement, other: Settlement) -> None:
    """The caller that took it from its lease tells the stored results, and not those that were to be."""
    for each in fields(Settlement):
        setattr(settlement, each.name, getattr(other, each.name))


def _deliveries(
    taken: Sequence[tuple[Binding, Lease, Settlement]], results: Sequence[Settled]
) -> list[SettledDelivery]:
    return [
        SettledDelivery(lease.chunk.notification, state.app, state.binding, lease.chunk.ids[position], final, reason)
        for (state, lease, settlement), settled in zip(taken, results, strict=True)
        if not settled.stale
        for (final, reason), positions in settlement.results.items()
        if final != DOUBT
        for position in positions
    ]
