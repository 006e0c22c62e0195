"""The loops beside the path: leases kept alive, other processes noticed, time limits enforced, old rows deleted."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from fanout.core.records import Control, GateNote
from fanout.engine.binding_state import BindingState
from fanout.engine.context import EngineContext
from fanout.engine.counters import Tally
from fanout.engine.dispatcher import Dispatcher
from fanout.engine.membership import Membership
from fanout.engine.patience import PASSING, retry_while_unavailable
from fanout.engine.send_tasks import SendTasks
from fanout.engine.signal import Signal
from fanout.engine.waiters import Waiters
from fanout.errors import ContentRefused
from fanout.plugin import Inbox

__all__ = ["Upkeep"]

_log = logging.getLogger("fanout.upkeep")
_POLL = 0.05
"""Seconds between two looks at the commits of other processes; half as often while there is work in hand.

A worker notices another's work, and a cancellation, within 100 ms."""
_GATES_EVERY = 0.05
_UNASKED = Control()
_EXPIRE_EVERY = 1.0
_PRUNE_EVERY = 60.0
_BATCH = 1000


class Upkeep:
    """The periodic duties of one engine."""

    def __init__(
        self,
        context: EngineContext,
        states: Sequence[BindingState],
        dispatchers: Sequence[Dispatcher],
        waiters: Waiters,
        member: Membership,
        send_tasks: SendTasks,
        *,
        renew: Callable[[], Awaitable[object]],
        tally: Tally,
    ) -> None:
        self._tally = tally
        self._send_tasks = send_tasks
        self._worker = context.worker
        self._pulse = member.pulse
        self._renew = renew
        self._nudges: dict[tuple[str, str], int] = {}
        self.news = Signal()
        self._storage = context.storage
        self._states = states
        self._dispatchers = dispatchers
        self._waiters = waiters
        self._clock = context.clock
        self._policy = context.policy
        self._seen = -1
        self._others = -1
        self._watch = context.watch
        self._steps, self._suspends = self._watch.steps, self._watch.suspends
        self._ahead = False  # the clock was set back, and storage has not been told yet
        self.look = Signal()
        self.arrived = Signal()
        self._trouble = context.trouble
        self._lapse = member.lapse
        self._incarnation: int | None = None

    async def keep_leases(self) -> None:
        """Three times a lease: extend all, drop the lost, put back those that stood still; cancel sends that hang."""
        patience = self._trouble.patience()
        pause = self._policy.lease / 3
        while True:
            await Signal().wait(pause)
            pause = self._policy.lease / 3
            try:
                await self.extend()
                patience.well()
            except PASSING as error:
                pause = min(pause, patience.failed(error))
            for state in self._states:
                state.tick(self._clock.now())
                state.watch(self._clock.monotonic() - 2 * self._policy.request_timeout)
            self._send_tasks.trim()

    async def extend(self) -> None:
        """Extend every lease of this worker."""
        leases = [(state, lease) for state in self._states for lease in state.leases.values() if not lease.lost]
        if not leases:
            return
        until, ends = self._clock.monotonic() + self._policy.lease, self._clock.now() + self._policy.lease
        lost = set(await self._storage.extend([(lease.chunk.id, lease.chunk.epoch, ends) for _, lease in leases]))
        for state, lease in leases:
            if lease.chunk.id in lost:
                lease.lose()
                if state.leases.get(lease.chunk.id) is lease:
                    del state.leases[lease.chunk.id]
                continue
            lease.granted = until
            lease.cap_deadline(self._pulse.heartbeat_deadline)
            state.go_on(lease)

    async def watch(self) -> None:
        """Notice the commits, here or elsewhere: new work, cancellations, finished notifications.

        A process without workers looks only while a caller waits.
        """
        if (listen := getattr(self._storage, "listen", None)) is not None:
            listen(self.look.set)
        await retry_while_unavailable(self._look_at_controls, self._trouble)
        self._incarnation = getattr(self._storage, "incarnation", 0)
        await retry_while_unavailable(self._retime, self._trouble)
        patience = self._trouble.patience()
        while True:
            # Where a later notification may supersede one in hand, or a caller has just put one, no time is lost.
            if any(state.leases for state in self._states):
                busy = 1 if any(dispatcher.collapsible for dispatcher in self._dispatchers) else 2
                await self.look.wait(busy * _POLL)
            elif self._states or self._waiters:
                await self.look.wait(_POLL)
            else:
                await self.look.wait()
            try:
                await self._look_around()
                patience.well()
            except PASSING as error:
                # Changes that were missed are looked at when the database is back, even where its number of changes
                # is the same.
                self._seen = self._others = -1
                await Signal().wait(patience.failed(error))

    def awaited(self) -> None:
        """A caller has begun to wait for a notification. A process with workers looks often enough without being
        told."""
        if not self._states:
            self.look.set()
        if (hurry := getattr(self._storage, "hurry", None)) is not None:
            hurry()

    def _forget(self) -> None:
        """Storage stands on another database than before: facts learned of that one say nothing of this."""
        _log.warning("The database is another than before: its cached state is dropped, and everything is read anew.")
        self._seen = self._others = -1
        self._nudges.clear()
        self._waiters.forget()
        self._lapse()
        for state in self._states:
            state.forget()
            state.signal.set()

    async def _look_around(self) -> None:
        await self._look_at_clock()
        for dispatcher in self._dispatchers:
            await dispatcher.rereading.look()
        changes = await self._storage.changes()
        inbox: Inbox | None = getattr(self._storage, "inbox", None)
        if inbox is not None and inbox.pending:
            self.arrived.set()
        incarnation = getattr(self._storage, "incarnation", 0)
        if incarnation != self._incarnation:
            self._incarnation = incarnation
            self._forget()
        if changes == self._seen:
            if self._waiters.unasked:
                await self._waiters.check(self._storage)
            return
        self._seen = changes
        await self._waiters.check(self._storage)
        # An engine tells its dispatchers of its own commits itself: a worker that looked around after each commit of
        # its own would do little else.
        if (others := await self._storage.changes(others=True)) != self._others:
            self._others = others
            await self._look_at_others()
        for dispatcher in self._dispatchers:
            if dispatcher.collapsible:
                await dispatcher.look_for_later()
        await self._look_at_controls()

    async def _look_at_clock(self) -> None:
        """Where the wall clock was set anew, other workers are about to think that our leases have run out: extend them
        first.

        The dispatchers are woken: they are patient for a while too, and deliveries that were due later may be due now,
        though nothing was committed.
        """
        self._watch.look()
        if self._watch.suspends != self._suspends:
            self._suspends = self._watch.suspends
            for state in self._states:
                state.woke()
        if self._watch.steps != self._steps:
            self._steps = self._watch.steps
            for state in self._states:
                state.clock_was_set()
            try:
                await self.extend()
            except PASSING as error:
                _log.error("Leases cannot be extended; sending stops when they run out: %s", error)
            self._ahead = self._ahead or self._watch.set_back
            for dispatcher in self._dispatchers:
                dispatcher.state.signal.set()
        if self._ahead:
            await self._retime(stepped=True)
            self._ahead = False

    async def _retime(self, *, stepped: bool = False) -> None:
        """A time that was written while the clock was ahead waits no longer than it was to (`Storage.retime`)."""
        if self._states and await self._storage.retime(self._clock.now(), stepped=stepped):
            _log.warning("The clock was set back: its waiting times keep their length.")
            for dispatcher in self._dispatchers:
                dispatcher.state.signal.set()

    async def _look_at_others(self) -> None:
        """Another process has committed: work for any worker, or an end to deliveries in hand."""
        for dispatcher in self._dispatchers:
            dispatcher.state.signal.set()
        in_hand = set().union(*(dispatcher.stops.asked() for dispatcher in self._dispatchers))
        if in_hand and (stopped := await self._storage.stopped(sorted(in_hand))):
            for dispatcher in self._dispatchers:
                dispatcher.stops.tell(stopped)

    async def _look_at_controls(self) -> None:
        """The requests of operators for bindings: to hold, to go on, to try again at once."""
        if not self._states:
            return
        controls = await self._storage.controls()
        for state in self._states:
            control = controls.get((state.app, state.binding), _UNASKED)
            state.pause(control.paused)
            if control.nudge != self._nudges.setdefault((state.app, state.binding), control.nudge):
                self._nudges[state.app, state.binding] = control.nudge
                await self._renew()
                state.retry_now()

    async def post_gates(self) -> None:
        """Tell other processes which gates have closed and opened here."""
        while True:
            await self.news.wait()
            # Gates that close one after the other are told together.
            await Signal().wait(_GATES_EVERY)
            await self.tell_gates()

    async def tell_gates(self) -> None:
        """The notes that have not been told yet."""
        self._watch.look()  # they say until when by the clock as it was when they were written
        notes = [note for state in self._states for note in state.gates.notes.values()]
        for state in self._states:
            state.gates.notes = {}
        if notes:
            await self._post(notes, self._watch.back)

    async def _post(self, notes: Sequence[GateNote], back: float) -> None:
        """All of them; where one cannot be stored, the others. They were made when the clock had been set back by
        `back` in all."""

        async def post() -> None:
            self._watch.look()
            moved = [note.set_back(self._watch.back - back) for note in notes]
            await self._storage.post_gates(self._worker, moved, self._clock.now())

        try:
            await retry_while_unavailable(post, self._trouble)
        except ContentRefused as error:
            if len(notes) == 1:
                _log.error("Others are not told of a gate of %s/%s: %s", notes[0].app, notes[0].binding, error)
                return
            half = len(notes) // 2
            await self._post(notes[:half], back)
            await self._post(notes[half:], back)

    async def tidy(self) -> None:
        """Each second end deliveries past their time; each minute delete rows past their retention. In bounded
        batches."""
        pruned = self._clock.monotonic()
        patience = self._trouble.patience()
        pause = _EXPIRE_EVERY
        while True:
            await Signal().wait(pause)
            pause = _EXPIRE_EVERY
            try:
                while True:
                    expired = await self._storage.expire(self._clock.now(), limit=_BATCH)
                    unexpanded = getattr(
                        expired, "unexpanded", {}
                    )  # a storage of an earlier version answers a bare number
                    self._tally.expired(unexpanded)
                    if not expired and not unexpanded:
                        break
                if self._clock.monotonic() - pruned >= _PRUNE_EVERY:
                    pruned = self._clock.monotonic()
                    while await self._storage.prune(self._clock.now(), limit=_BATCH):
                        pass
                patience.well()
            except PASSING as error:
                pause = patience.failed(error)
