"""Send one by one: the groups of a binding with deliveries that may go by `send`, and the senders that take them.

A sender goes on in its task: a task, lock, stream or log line per delivery would each cost more than the rest of the
path together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice

from fanout.core.gate import Gate, GateState
from fanout.core.outcome import ACCEPTED, Deferred, Outcome
from fanout.engine.group import Group
from fanout.engine.lane_queue import Item
from fanout.engine.ports import Binding
from fanout.engine.send_tasks import IDLE, Attempt, SendTasks
from fanout.engine.sender import Senders

__all__ = ["GIVEN_UP", "SendLine"]

OPEN = GateState.OPEN
GIVEN_UP = Deferred("deadline of the engine", sent="unknown")
"""The outcome of an attempt that outlives the engine's deadline."""
_FIRST = 256
"""Senders that are called at once in any case: a burst leaves in few writes."""
_FEW = 8
_TURNS = 127
"""A sender lets others run after each 128 deliveries, a millisecond or so."""


class SendLine:
    """The senders of one binding at work."""

    def __init__(self, state: Binding, senders: Senders, gate: Gate, tasks: SendTasks) -> None:
        self._state = state
        self._senders = senders
        self._gate = gate
        self._tasks = tasks
        self._line: deque[Group] = deque()
        self._count = 0  # senders: tasks that send, or are about to
        self._coming = 0  # those of them that are about to
        self._under_way: set[Attempt] = set()

    def want(self, group: Group) -> None:
        """See that the group's deliveries that may go by `send` are taken soon."""
        if not group.in_line:
            if not ((group.queued and group.active < group.limit and self._state.start is None) or group.handed):
                return
            group.in_line = True
            self._line.append(group)
        if not self._coming:
            self._call()

    def _ready(self, group: Group) -> int:
        """Its deliveries that may go by `send`."""
        handed = len(group.handed)  # by the pump
        if self._state.start is None and group.queued:
            return handed + max(0, min(group.queued, group.limit - group.active))
        return handed

    def _call(self) -> None:
        """Call as many senders as there are, or `_FIRST`, and at most as many as there is work for; the last of them
        calls again. A transport that answers at once needs no more; one that takes its time soon has them all."""
        line = self._line
        # A lower bound: the deliveries of the first groups in line, and one of each other.
        work = sum(map(self._ready, islice(line, _FEW))) + max(0, len(line) - _FEW)
        count = min(work, max(self._count, _FIRST))
        self._coming += count
        self._count += count
        self._tasks.begin(self._run, count)

    def _next(self, now: float) -> tuple[Group, Item, bool] | None:
        """The next delivery of the groups in line, and whether it was claimed already."""
        state, line = self._state, self._line
        while line:
            group = line.popleft()
            if claimed := bool(group.handed):
                item = group.handed.popleft()
            elif not group.queued or state.start is not None or (item := group.take(now)) is None:  # type: ignore[assignment]
                group.in_line = False
                state.changed[group] = None
                continue
            if group.queued or group.handed:
                line.append(group)
            else:
                group.in_line = False
            if line and not self._coming:
                self._call()
            return group, item, claimed
        return None

    async def _run(self, attempt: Attempt) -> None:
        """One sender: take, send and settle, until nothing of any group may go."""
        state, senders, line = self._state, self._senders, self._line
        now = state.clock.now
        monotonic = state.clock.monotonic
        self._under_way.add(attempt)
        self._coming -= 1
        group: Group | None = None
        turns = 0
        try:
            while True:
                turns += 1
                if turns & _TURNS == 0:
                    # A transport that answers without waiting would keep the loop to itself.
                    self._coming += 1
                    await asyncio.sleep(0)
                    self._coming -= 1
                    if line and not self._coming:
                        self._call()
                moment = now()
                claimed = False
                if group is None or not group.queued or state.start is not None or (item := group.take(moment)) is None:
                    if not line or (found := self._next(moment)) is None:
                        return
                    group, item, claimed = found
                lease, position = item
                prepared = lease.prepared
                begun = monotonic()
                try:
                    if prepared.stopped or moment >= prepared.expires_at or begun >= lease.until:
                        senders.withhold(lease, position)
                        group.no_verdict()
                    elif (lease.careful or state.wary) and senders.waits(
                        group, lease, position, moment, begun, asked=claimed
                    ):
                        group.no_verdict()
                    else:
                        delivery = lease.delivery(position, moment)
                        if lease.fresh:
                            delivery.fresh = lease.asks_fresh(position)
                        attempt.group = group
                        attempt.item = item
                        attempt.begun = begun
                        try:
                            outcome = await state.send(prepared.message, delivery)
                        except (Exception, asyncio.CancelledError) as error:
                            if not attempt.given_up and attempt.task.cancelling():
                                raise  # the engine ends
                            outcome = self._raised(attempt, error)
                        if attempt.given_up:
                            outcome = self._too_late(attempt, outcome)
                            if attempt.abandoned:
                                return
                        group.answers = answers = group.answers + 1
                        if answers % group.sampled == 0 and not isinstance(outcome, Deferred):
                            group.limiter.answered(monotonic() - begun, group.sampled)
                        if outcome is ACCEPTED and group.gate.state is OPEN and self._gate.state is OPEN:
                            senders.accept(group, lease, (position,))
                        else:
                            senders.settle(group, lease, position, outcome, begun)
                finally:
                    attempt.begun = IDLE
                    if not attempt.abandoned:
                        group.end(1)
                senders.after(group, lease)
        finally:
            self._under_way.discard(attempt)
            self._count -= 1
            attempt.group = attempt.item = None
            attempt.abandoned = False

    def _raised(self, attempt: Attempt, error: BaseException) -> Outcome:
        """The outcome of a send that raised: a cancellation may be the plugin's own, of something that it shares."""
        if attempt.given_up and isinstance(error, asyncio.CancelledError):
            return GIVEN_UP
        return self._senders.fault(error, "send")

    def _too_late(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """A send has ended that was given up: it has no outcome but that, and the task goes on."""
        attempt.task.uncancel()
        attempt.given_up = False
        if outcome is not GIVEN_UP:
            self._state.pump.late += 1
        return GIVEN_UP

    def watch(self, deadline: float) -> None:
        """Cancel each attempt that began before `deadline` (monotonic seconds): a transport that hangs is a fault of
        its own. One that does not end by that is left to itself at the next call."""
        for attempt in [*self._under_way]:
            if attempt.begun >= deadline or attempt.abandoned:
                continue
            if not attempt.given_up:
                attempt.given_up = True
                self._state.fault("A send outlived its deadline and was cancelled; the transport hangs.")
                attempt.task.cancel()
            else:
                attempt.abandoned = True
                self._abandon(attempt)

    def _abandon(self, attempt: Attempt) -> None:
        assert attempt.item is not None
        assert attempt.group is not None
        (lease, position), group = attempt.item, attempt.group
        self._state.fault("A send went on although it was cancelled; its task is lost until it ends.")
        group.answers += 1
        self._senders.settle(group, lease, position, GIVEN_UP, attempt.begun)
        group.end(1)
        self._senders.after(group, lease)
        self._state.wake(group)
