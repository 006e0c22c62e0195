"""Send in runs: deliveries of one lease that are checked together, started by one call and settled by index.

A run begins and ends in callbacks of the loop: no task, future or call per delivery. Where each delivery must be asked
about (a gate that is not open, a scope narrower than a group in back-off, a second attempt) a run has one delivery. A
delivery that a transport cannot start at once goes to a sender, with its place among those under way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from threading import get_ident

from fanout.core.gate import GateState
from fanout.core.outcome import ACCEPTED, Deferred, Outcome
from fanout.core.run import Run
from fanout.core.turns import PIECE, Turns
from fanout.engine.group import Group, GroupRun
from fanout.engine.ports import Binding
from fanout.engine.send_line import GIVEN_UP, SendLine
from fanout.engine.sender import Senders

__all__ = ["Pump"]

_OPEN = GateState.OPEN


class Pump:
    """The runs of one binding."""

    def __init__(self, state: Binding, senders: Senders, sends: SendLine) -> None:
        self._state = state
        self._senders = senders
        self._sends = sends
        self._groups: deque[Group] = deque()  # those that have something to start, in the order of their turns
        self._in_line = False
        self._ended = False
        self._starting = False
        self._meanwhile: list[tuple[Run, list[int], list[tuple[int, Outcome | None]]]] = []
        """Answers to other runs that came in a call of `start`: they are settled behind it."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self.thread = get_ident()
        self.late = 0
        """Answers that came after their delivery was given up, or twice."""

    def soon(self, group: Group) -> None:
        """Start the group's waiting deliveries that may go, in a turn of the binding's."""
        if group.pumping or not group.queued or group.active >= group.limit or self._ended:
            return
        group.pumping = True
        self._groups.append(group)
        if not self._in_line:
            self._in_line = True
            loop = self._loop = self._loop or asyncio.get_running_loop()
            Turns.on(loop).add(loop, self._piece)

    def _piece(self) -> bool:
        """Runs of the groups in turn, as many as a turn of the loop may have; whether there are more."""
        groups, taken = self._groups, 0
        try:
            while groups and taken < PIECE:
                group = groups.popleft()
                group.pumping = False
                count = self._next(group)
                if count:
                    self.soon(group)
                taken += count or 1
        except Exception as error:
            self._state.fail(error)
        self._in_line = bool(groups)
        return self._in_line

    def _next(self, group: Group) -> int:
        """Take a run, check it once and start it; how many deliveries it had."""
        state = self._state
        moment, begun = state.clock.now(), state.clock.monotonic()
        if self._ended or (taken := group.take_run(moment, wary=state.wary)) is None:
            state.changed[group] = None
            return 0
        lease, positions = taken
        prepared = lease.prepared
        if prepared.stopped or moment >= prepared.expires_at or begun >= lease.until:
            for position in positions:
                self._senders.withhold(lease, position)
        elif not ((lease.careful or state.wary) and self._senders.waits(group, lease, positions[0], moment, begun)):
            self._start(GroupRun(self, group, lease, positions, moment, begun))
            return len(positions)
        group.no_verdict()
        group.end(len(positions))
        self._senders.after(group, lease)
        return len(positions)

    def _start(self, run: GroupRun) -> None:
        group = run.of
        group.runs[run] = None
        start = self._state.start
        assert start is not None
        self._starting = True
        try:
            indices = start(run)
            left = run.give_up(indices) if indices != () else []
        except (Exception, asyncio.CancelledError) as error:
            left = []
            outcome = self._senders.fault(error, "start")
            for index in run.pending():
                run.answer(index, outcome)
        finally:
            self._starting = False
        if left:
            self._hand_over(run, left)
        if run.ended:
            group.runs.pop(run, None)
        run.release()
        if self._meanwhile:
            meanwhile, self._meanwhile = self._meanwhile, []
            for answered in meanwhile:
                self.settle(*answered)

    def _hand_over(self, run: GroupRun, left: Sequence[int]) -> None:
        """To the senders, with their place among the deliveries under way."""
        run.of.hand_over((run.lease, run.positions[index]) for index in left)
        self._sends.want(run.of)

    def _again(self, run: GroupRun, left: Sequence[int]) -> None:
        """To the senders, for they were under way and must wait for something; but nothing goes that would not be begun
        now."""
        state, group, now = self._state, run.of, self._state.clock.now()
        if group.limit and not (group.gate.shut(now) or state.gate.shut(now)):
            self._hand_over(run, left)
            return
        for index in left:
            state.put_back(group, run.lease, run.positions[index])
        group.no_verdict()
        group.end(len(left))

    def settle(self, run: Run, accepted: list[int], others: list[tuple[int, Outcome | None]]) -> None:
        """Answers to a run, in a call of the transport's: an error here is no fault of the transport."""
        assert isinstance(run, GroupRun)
        if self._starting:
            self._meanwhile.append((run, accepted, others))
            return
        try:
            self._settle(run, accepted, others)
        except Exception as error:
            self._state.fail(error)

    def _settle(self, run: GroupRun, accepted: list[int], others: list[tuple[int, Outcome | None]]) -> None:
        state, group, lease, positions = self._state, run.of, run.lease, run.positions
        if others and (left := [index for index, outcome in others if outcome is None]):
            others = [other for other in others if other[1] is not None]
            self._again(run, left)
        count = len(accepted) + len(others)
        asked = count - sum(isinstance(outcome, Deferred) for _, outcome in others) if others else count
        if (samples := group.samples(count)) and asked:
            group.limiter.answered(state.clock.monotonic() - run.begun, group.sampled, min(samples, asked))
        try:
            if accepted and group.gate.state is _OPEN and state.gate.state is _OPEN:
                whole = len(accepted) == len(positions)
                self._senders.accept(group, lease, positions if whole else [positions[index] for index in accepted])
            else:
                others = [*((index, ACCEPTED) for index in accepted), *others]
            for index, outcome in others:
                assert outcome is not None
                self._senders.settle(group, lease, positions[index], outcome, run.begun)
        finally:
            group.end(count)
            if run.ended:
                group.runs.pop(run, None)
        self._senders.after(group, lease)

    def take_over(self, call: Callable[..., None], *arguments: object) -> None:
        """See `RunOwner`."""
        assert self._loop is not None  # a run was started
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all that this could change
            self._loop.call_soon_threadsafe(call, *arguments)

    def watch(self, deadline: float) -> None:
        """Give up the attempts that began before `deadline` (monotonic seconds): a transport that hangs is a fault of
        its own."""
        for group in list(self._state.groups.values()):
            for run in [*takewhile(lambda run: run.begun < deadline, group.runs)]:
                given_up = run.give_up(run.pending())
                for _ in given_up:
                    self._state.fault(
                        "A delivery of a run outlived its deadline and was given up; the transport hangs."
                    )
                self._settle(run, [], [(index, GIVEN_UP) for index in given_up])

    def end(self) -> None:
        """Nothing more is started, and no answer is waited for: deliveries under way are left to their lease."""
        self._ended = True
        for group in self._state.groups.values():
            for run in group.runs:
                group.end(len(run.give_up(run.pending())))
            group.runs.clear()
