"""This worker among the others that share its database: it says that it lives, and takes over the leases of dead
workers.

beat     "I live", and until when; leases in hand count no longer than that (`Pulse`)
share    this process's parts of rates, for its transports (`FleetLink`)
follow   gates of a whole binding that another worker has closed
return   leases that name this worker and are not in its hand (`Strays`)
yield    leases that it has not begun, where others idle (`Yielding`)
bury     a worker without a heartbeat: its leases are due
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version

from fanout.core.fleet import WorkerNote
from fanout.core.records import GateNote
from fanout.core.text import cleaned
from fanout.engine.binding_state import BindingState
from fanout.engine.context import EngineContext
from fanout.engine.link import FleetLink
from fanout.engine.patience import PASSING
from fanout.engine.pulse import Pulse
from fanout.engine.signal import Signal
from fanout.engine.strays import Strays
from fanout.engine.yielding import Yielding
from fanout.errors import StorageError
from fanout.plugin import fleet_of

__all__ = ["Membership"]

_log = logging.getLogger("fanout.membership")
_BEATS = 10
"""Rounds in the time that a heartbeat lasts."""
_LOOKS = 4
"""Looks in a round whether others idle, while there is more in hand than is sent in a second."""
_IDLE = 3
"""Of so many rounds one beats, while nothing is in hand: each is a commit."""
_SOONEST = 0.1
"""The least part of a round's time before the next round, however short of its part of a rate a process is."""
_GRACE = 3
"""Rounds for which others wait after a gate's time, while the worker that closed it probes."""


_VERSION = version("fanout-push")


class Membership:
    """One engine's part in the fleet: none where the storage is not shared, or the engine does not deliver (`bindings`
    is None)."""

    def __init__(
        self,
        context: EngineContext,
        states: Sequence[BindingState],
        bindings: Iterable[str] | None,
        link: FleetLink,
    ) -> None:
        storage, clock, worker = context.storage, context.clock, context.worker
        self._storage = storage
        self._states = states
        self._active = storage.shared and bindings is not None
        if self._active:
            fleet_of(storage)  # refused here where there is none: rates and tokens are shared through it
        self._note = WorkerNote(
            id=worker,
            host=cleaned(socket.gethostname()),
            pid=os.getpid(),
            version=_VERSION,
            started_at=clock.now(),
            bindings=tuple(bindings or ()),
        )
        self._clock = clock
        self._life = context.policy.heartbeat
        self._every = self._life / _BEATS
        self._link = link
        self._strays = Strays(storage, states, worker)
        self._yielding = Yielding(storage, states, worker, clock)
        self._extend: Callable[[], Awaitable[None]] = _nothing
        self._notes: list[GateNote] = []
        """The gates of other workers."""
        self.pulse = Pulse()
        self.watch = context.watch
        self._steps = self.watch.steps
        self._steady_since = self._last = self._beaten = clock.monotonic()
        self._patient_until = float("-inf")
        self.ended = False
        self._patience = context.trouble.patience()

    async def join(self, extend: Callable[[], Awaitable[None]]) -> None:
        """The first beat, before anything is leased. On a full disk nothing is sent before there is room for it.

        `extend` extends every lease of this worker, and lets go of those that are lost.
        """
        self._extend = extend
        self.watch.begin()
        if self._active:
            self._note = replace(self._note, started_at=self._clock.now())
            self.pulse.heartbeat_deadline = self._clock.monotonic()
            await self._round()

    async def run(self) -> None:
        """Until `ended`: a round ten times a heartbeat, and sooner where a transport is short of its part of a rate."""
        # The notes that were read while it joined, before any dispatcher leases.
        self._follow()
        due = self._clock.monotonic() + self._every
        while self._active and not self.ended:
            short = await self._link.short.wait(self._every / _LOOKS)
            with contextlib.suppress(*PASSING):  # the round will say so
                await self._yielding.look(self._clock.now())
            if not short and self._clock.monotonic() < due:
                continue
            if short:
                pause = self._last + _SOONEST * self._every - self._clock.monotonic()
                if pause > 0:
                    await Signal().wait(pause)
            due = self._clock.monotonic() + self._every
            await self._round(short=short)

    def doubt(self) -> None:
        """A lease call has failed, and may have been committed: the next round asks for this worker's leases."""
        self._strays.doubtful = True

    def lapse(self) -> None:
        """No other worker there may know of this one: it says at once that it lives, and asks anew for its parts of
        rates."""
        self._link.lapse()
        self._beaten = float("-inf")
        self._link.short.set()

    async def leave(self) -> None:
        """In good order: everything has been given back."""
        if self._active:
            self.ended = True
            with contextlib.suppress(StorageError):
                await fleet_of(self._storage).leave(self._note.id)

    async def _round(self, *, short: bool = False) -> None:
        monotonic, now = self._clock.monotonic(), self._clock.now()
        self._look_at_clock(monotonic)
        try:
            if short or self._is_due(monotonic):
                await self._beat(monotonic, now)
                await self._strays.give_back(now)
                if monotonic >= self._patient_until:
                    await self._link.renew(self._note.id, now)
                self._notes = [note for note in await self._storage.gates(now) if note.worker != self._note.id]
            self._follow()
            late = self._clock.monotonic() - self._last > self._life / 4
            self._last = monotonic
            if late:
                # This worker stood still, or storage did. Then so did others, and must be heard first.
                self._steady_since = monotonic
            elif monotonic - self._steady_since >= self._life:
                await self._bury(now)
            self._patience.well()
        except PASSING as error:
            self._patience.failed(error)
            self._steady_since = monotonic

    def _look_at_clock(self, monotonic: float) -> None:
        """Where the wall clock was set anew, every worker looks dead: each says first that it lives, before any judges
        by the new time."""
        if self.watch.look() != self._steps:
            self._steps = self.watch.steps
            self._steady_since = monotonic
            self._patient_until = monotonic + self._life / 2
            self._beaten = float("-inf")

    def _is_due(self, monotonic: float) -> bool:
        busy = any(state.leases for state in self._states)
        return (
            busy
            or self._strays.doubtful
            or monotonic - self._beaten >= (_IDLE - 0.5) * self._every
            or monotonic >= self.pulse.heartbeat_deadline
        )

    async def _beat(self, monotonic: float, now: float) -> None:
        lapsed = monotonic >= self.pulse.heartbeat_deadline
        known = await fleet_of(self._storage).beat(self._note, now, now + self._life)
        self._beaten = monotonic
        if lapsed or not known:
            # Other workers may have taken over leases of this one: learn which, before any of them is believed.
            self._steady_since = monotonic
            self._link.lapse()
            await self._extend()
        self.pulse.heartbeat_deadline = monotonic + self._life
        for state in self._states:
            for lease in state.leases.values():
                lease.cap_deadline(self.pulse.heartbeat_deadline)
                state.go_on(lease)

    def _follow(self) -> None:
        now = self._clock.now()
        for state in self._states:
            mine = [note for note in self._notes if (note.app, note.binding) == (state.app, state.binding)]
            state.gates.follow(mine, now, _GRACE * self._every)

    async def _bury(self, now: float) -> None:
        """`now` is as old as this round, so that no worker is buried for a beat that came while it lasted."""
        buried = await fleet_of(self._storage).bury(now)
        for worker in buried:
            _log.warning("The worker %s has not been heard of for %g s: its leases are taken over.", worker, self._life)
        if buried:
            for state in self._states:
                state.signal.set()


async def _nothing() -> None:
    """Nothing is leased before it joins."""
