"""One binding at work: its transport, groups, gate and senders, and the window of leases they draw from."""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import takewhile
from typing import Any

from fanout.core.gate import GateState
from fanout.core.model import LANES
from fanout.core.rescheduling import Rescheduling
from fanout.core.run import Run
from fanout.core.shorten import fitted
from fanout.core.states import Waiting
from fanout.engine.context import EngineContext
from fanout.engine.gates import Gates
from fanout.engine.group import FEW, Group
from fanout.engine.holds import Holds
from fanout.engine.lease import Hand, Lease, group_of
from fanout.engine.pump import Pump
from fanout.engine.send_line import SendLine
from fanout.engine.send_tasks import SendTasks
from fanout.engine.sender import Senders
from fanout.engine.settler import Settler
from fanout.engine.signal import Signal
from fanout.plugin import Transport

__all__ = ["BindingState"]

_log = logging.getLogger("fanout.work")
_OPEN = GateState.OPEN
_SHUT = 0.5
"""Seconds between two looks whether a gateway that allows no request allows one again."""
_IDLE_GROUP = 30.0
_LOOK = 0.05
"""Seconds for which a group's limit holds: for as long as from one checkpoint to the next, as while it has work."""
Start = Callable[[Run], Iterable[int]]
URGENT = LANES.index("urgent")
_PAUSED = (Waiting.PAUSED, "binding paused")


class BindingState:
    """The state that the dispatcher, the senders and the settler of one binding share."""

    def __init__(
        self,
        app: str,
        binding: str,
        transport: Transport,
        context: EngineContext,
        *,
        settler: Settler,
        news: Signal,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        tasks: SendTasks,
    ) -> None:
        rng, live = context.rng, context.live
        self.app = app
        self.binding = binding
        self.transport = transport
        self.send = transport.send
        self.start: Start | None = getattr(transport, "start", None)
        self.clock = context.clock
        self.policy = context.policy
        self.settler = settler
        self.groups: dict[str, Group] = {}
        self.limit = 0
        """The sum of all groups' limits."""
        self.changed: dict[Group, None] = {}
        """Groups that had work or answers since the last tick, or whose work waits although none of it is under way."""
        self._busy: dict[Group, None] = {}
        """Groups that had work at the last tick or since: all others have none."""
        self._resting: dict[Group, float] = {}
        """Groups without work and since when (UNIX seconds), those first that had none for the longest."""
        self._sizes = [0] * len(LANES)
        self.leases: dict[int, Lease] = {}
        self.hand = Hand()
        self.asked = 0
        """How many leases have been asked for."""
        self.asking = False
        """Whether the last of them is under way still, or its answer is not in hand yet."""
        self.faults = 0
        self.paused = False
        self._surrendered = False
        self.wary = False
        """Whether anything narrower than a group may hold a delivery back: an endpoint in back-off, a topic's gate."""
        self.fresh: set[int] = set()
        """Lanes of which this process has just put something that is due."""
        self.parts: list[Lease] = []
        """Suspected chunks whose next part is to be marked and sent."""
        self.ended: list[str] = []
        """Notifications that have finished with the deliveries that this worker sent."""
        self.replaced = 0
        """How many times its transport was replaced."""
        self.rescheduling = Rescheduling()
        self.holds = Holds(self, rng)
        self.signal = Signal()  # wakes the dispatcher
        self._live = live
        self._spawn = spawn
        self.gates = Gates(self, rng, live, news)
        self.gate = self.gates.binding
        self.senders = Senders(self, self.gate, rng)
        self.sends = SendLine(self, self.senders, self.gate, tasks)
        self.pump = Pump(self, self.senders, self.sends)

    # -- the queue's side

    def queued(self, lane: int) -> int:
        """Deliveries of this lane that are leased and that no sender has taken."""
        return self._sizes[lane]

    def waiting(self, lane: int) -> tuple[list[int], int]:
        """Deliveries of this lane by gateway, of those that answer and have any to send; and how many wait for gateways
        that do not answer."""
        monotonic = self.clock.monotonic()
        waiting: list[int] = []
        stuck = 0
        for group in self._busy:
            size = group.queues[lane].size
            if group.stuck(monotonic):
                stuck += size
            elif size or group.active:
                waiting.append(size)
        return waiting, stuck

    def enqueue(self, lease: Lease, positions: Sequence[int]) -> None:
        """Hand these deliveries of a lease to their groups, and see that there are senders."""
        now = self.clock.now()
        closed = self.gate.shut(now)
        lease.claim(len(positions))
        group = group_of(lease.rows, now)
        if group is not None:
            # Handed over without a step of Python for each delivery.
            lease.group = group
            self._hand(lease, group, [*reversed(positions)], now, closed)
        else:
            for name, own in self._sort(lease, positions, now).items():
                if len(own) > 1:
                    own.reverse()
                self._hand(lease, name, own, now, closed)
        if closed:
            self.gates.park_behind(arriving=True)
        if self.paused:
            self._put_down(*_PAUSED)
        self.settler.wake()

    def _hand(self, lease: Lease, name: str, waiting: list[int], now: float, closed: bool) -> None:
        """Deliveries, the last first, to their group, which sends them in its turn. `closed`: the binding's gate is
        shut, and they are about to be put down."""
        group = self.groups.get(name) or self._new_group(name)
        group.queues[lease.chunk.lane].add(lease, waiting)
        self._busy[group] = None
        if group.gate.state is not _OPEN and group.gate.shut(now) and not self.gates.relents(group, lease, now):
            self.gates.park_behind(group, arriving=True)
            self.changed[group] = None
        elif closed:
            self.changed[group] = None
        elif (
            group.pumping
            or group.in_line
            or (group.limit >= FEW and (group.active or 0.0 <= now - group.adjusted_at < _LOOK))
        ):
            self.wake(group)  # it was adjusted when it got the first of its work, and is at each checkpoint
        else:
            group.adjusted_at = now
            self.adjust(group)

    def go_on(self, lease: Lease) -> None:
        """The lease may have been extended: stalled deliveries go on then."""
        if lease.stalled and lease.until > self.clock.monotonic():
            self.enqueue(lease, lease.unstall())

    def _sort(self, lease: Lease, positions: Iterable[int], now: float) -> dict[str, list[int]]:
        """Deliveries of a chunk by group; those of endpoints that are gone or held have been told their end, or where
        to wait."""
        rows, urgent = lease.rows, lease.chunk.lane == URGENT
        by_group: defaultdict[str, list[int]] = defaultdict(list)
        for position in positions:
            row = rows[position]
            if row is None or row[6] != "active":
                lease.unreachable(position)
            elif row[7] <= now or urgent:
                by_group[row[3]].append(position)
            else:
                self.holds.put_down(lease, position, row)
        return by_group

    def _new_group(self, name: str) -> Group:
        probe_free, rank = self.gates.probe_free, self.senders.evidence.rank
        group = self.groups[name] = Group(name, self.policy, self.gate, probe_free, rank, self._sizes)
        self.limit += group.limit
        return group

    def adjust(self, group: Group, capacity: int | None = None) -> None:
        """Match the group's senders to its connections (`capacity`, where that is known) and its work."""
        if self.settler.stuck or self.paused or self._surrendered:
            limit = 0
        else:
            limit = self.capacity(group) if capacity is None else capacity
            if group.limiter.limit < limit or group.gate.ramp_since or self.gate.ramp_since:
                limit = self._narrowed(group, limit)
            if not limit and group.queued:
                self._stand_back(group)
        if limit != group.limit:
            self.limit += group.allow(limit)
        if self.start is not None:
            self.pump.soon(group)
        else:
            self.sends.want(group)
        if not (group.active or group.pumping or group.in_line):
            self.changed[group] = None  # no answer is to come that would say so

    def _narrowed(self, group: Group, capacity: int) -> int:
        """The part of the capacity that the group's limiter, and an outage that is over, leave to it."""
        left = min(capacity, group.limiter.limit)
        if not (group.gate.ramp_since or self.gate.ramp_since):
            return int(left)
        share = int(left * self.gates.share(group, self.clock.now()))
        return max(1, share) if left > 0 else 0

    def capacity(self, group: Group) -> int:
        """The requests that the connections of the group take by the word of the transport; 1 where that is no
        number."""
        try:
            capacity = int(self.transport.capacity(group.name))
            return capacity if capacity > 0 else 0
        except Exception as error:
            self.fault(f"{type(error).__name__} escaped from capacity; a transport returns a number.", error)
            return 1

    def wake(self, group: Group) -> None:
        """There may be room for the deliveries that wait in the group."""
        if self.start is not None:
            self.pump.soon(group)
        else:
            self.sends.want(group)

    def put_back(self, group: Group, lease: Lease, position: int) -> None:
        """It was taken and is to go again: it waits in its queue, or where it has been put down meanwhile."""
        now = self.clock.now()
        if lease.prepared.stopped:
            lease.stop(position, now)
        elif self.paused:
            lease.keep_open(position, now, *_PAUSED)
        elif (gate := next((gate for gate in (group.gate, self.gate) if gate.shut(now)), None)) is not None:
            lease.keep_open(position, gate.resumes_at(now), gate.waiting, gate.reason)
        else:
            group.queues[lease.chunk.lane].put_back(lease, position)

    def fail(self, error: Exception) -> None:
        """The engine itself is wrong: it stops, as it does when one of its loops fails."""
        self._spawn(_raise(error))

    def watch(self, deadline: float) -> None:
        """Give up each attempt that began before `deadline` (monotonic seconds)."""
        self.sends.watch(deadline)
        self.pump.watch(deadline)

    def _stand_back(self, group: Group) -> None:
        """The gateway allows no request at present: deliveries that wait for it go back to storage for a moment, under
        that reason."""
        until = self.clock.now() + _SHUT
        for lease, position in group.drain():
            lease.keep_open(position, until, Waiting.LIMITER, "the gateway allows no requests at present")
        self.settler.wake()

    def tick(self, now: float) -> None:
        """Every checkpoint: connections may have come or gone; twice a minute, groups without work are let go."""
        if self.wary:
            self.holds.tidy(now)
            self.gates.tidy(now)
            self.wary = bool(self.holds or self.gates.narrow)
        changed, self.changed = self.changed, {}
        for group in changed:
            if not (group.queued or group.active):
                self._busy.pop(group, None)
                self._resting.setdefault(group, now)
                group.seen = -1  # when it has work again, how long it has not answered begins anew
                continue
            self._resting.pop(group, None)
            if not group.active and (group.pumping or group.in_line):
                continue  # no answer since
            capacity = self.capacity(group)
            limit = group.end_window(capacity)
            group.adjusted_at = now
            self.adjust(group, capacity)
            self.gates.narrowed(group, limit < capacity // 2 and group.queued > 0, now)
        self._let_go_of_idle(now)

    def _let_go_of_idle(self, now: float) -> None:
        for group, _ in [*takewhile(lambda item: now - item[1] > _IDLE_GROUP, self._resting.items())]:
            del self._resting[group]
            if group in self._busy:
                continue
            if group.gate.is_open:
                self.limit -= group.limit
                del self.groups[group.name]
            else:
                self._resting[group] = now  # looked at again as late

    def hold(self) -> None:
        """Results cannot be stored: nothing more is sent until `resume`."""
        self.limit = 0
        for group in self.groups.values():
            group.hold()

    def resume(self) -> None:
        """Results can be stored again."""
        for group in list(self.groups.values()):
            self.adjust(group)

    def forget(self) -> None:
        """Storage stands on another database: its numbers may be other endpoints'."""
        self.holds.forget()

    def let_go(self) -> None:
        """The reason for which endpoints waited by themselves is reported as mended: they may go on."""
        self.holds.let_go()
        for lease in self.leases.values():
            lease.hurry(self.clock.now())

    def proven(self, group: Group, lease: Lease, position: int, now: float) -> None:
        """The gateway took this delivery: every trouble of its endpoint, topic or notification is over."""
        endpoint = lease.chunk.ids[position]
        self.holds.over(endpoint)
        self.senders.evidence.loners.accepted(endpoint)
        if not self.gates.uncertain.is_open:
            self.gates.accepted(now)
        if self.gates.narrow:
            self.gates.succeeded(group, lease.prepared, now)

    def fault(self, text: str, error: Exception | None = None) -> None:
        """A plugin broke its contract: counted apart and named."""
        self.faults += 1
        if self.faults <= 10 or self.faults % 1000 == 0:
            # Where it happened, but not its message: a plugin's text may hold an address.
            origin = "".join(traceback.format_tb(error.__traceback__)[-1:]) if error else ""
            _log.error("%s/%s: %s (fault %d)\n%s", self.app, self.binding, text, self.faults, origin)
        self._live.emit("fault", self.clock.now(), app=self.app, binding=self.binding, text=text, count=self.faults)

    # -- pause and the end

    def pause(self, paused: bool) -> None:
        """An operator holds this binding, or lets it go on."""
        if paused == self.paused:
            return
        self.paused = paused
        if paused:
            self._put_down(*_PAUSED)
        for group in list(self.groups.values()):
            self.adjust(group)
        self.signal.set()

    def replace(self, transport: Transport) -> None:
        """From now on send through this one; deliveries under way end with the old. The messages of leases in hand are
        encoded anew, for the old one's messages may name its topic, or be of its kind."""
        self.transport = transport
        self.send = transport.send
        self.start = getattr(transport, "start", None)
        self.senders.evidence.renew()
        self.replaced += 1
        for prepared in {id(lease.prepared): lease.prepared for lease in self.leases.values()}.values():
            try:
                prepared.message, _ = fitted(transport.prepare, prepared.notification)
            except Exception as error:
                self.fault(
                    f"{type(error).__name__} escaped from prepare, for a notification that was prepared before.", error
                )

    def retry_now(self) -> None:
        """An operator says that the cause is mended: probe every closed gate, and believe the gateway again."""
        now = self.clock.now()
        self._tell("mended")
        self.senders.retry_now(now)
        self.gates.retry_now(now)

    def set_back(self, seconds: float) -> None:
        """The clock was set back by so much: times that are not stored yet were made by the clock as it was."""
        for lease in self.leases.values():
            lease.set_back(seconds)
        self.gates.set_back(seconds)

    def clock_was_set(self) -> None:
        """Back-offs are known here by a clock that was: storage knows them for good. A refused token may be right now,
        or wrong."""
        self.holds.forget()
        self._tell("mended")

    def woke(self) -> None:
        """The machine was suspended: connections from before are not sent over unproven."""
        self._tell("woke")

    def _tell(self, what: str) -> None:
        """Call an optional method of the transport (see `plugin.Transport`)."""
        method: Callable[[], None] | None = getattr(self.transport, what, None)
        try:
            if method is not None:
                method()
        except Exception as error:
            self.fault(f"{type(error).__name__} escaped from {what}.", error)

    def surrender(self) -> None:
        """Nothing more is begun: deliveries that no sender has taken go back to storage, due at once."""
        self._surrendered = True
        for group in self.groups.values():
            self.limit += group.allow(0)
        self._put_down(Waiting.READY, "")

    def end(self) -> None:
        """No answer is waited for any more."""
        self.surrender()
        self.pump.end()

    def _put_down(self, waiting: Waiting, reason: str) -> None:
        now = self.clock.now()
        for group in self.groups.values():
            for lease, position in group.drain():
                lease.keep_open(position, now, waiting, reason)
        for lease in self.leases.values():
            for position in lease.unstall():
                lease.claim(1)
                lease.keep_open(position, now, waiting, reason)
            lease.give_up_later(now, waiting)
        self.settler.wake()

    @property
    def under_way(self) -> int:
        """Sends without an outcome."""
        return sum(group.active for group in self.groups.values())


async def _raise(error: Exception) -> None:
    raise error
