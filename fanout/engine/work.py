"""One binding at work: its transport, groups, gate and senders, and the window of leases they draw from."""

from __future__ import annotations

import logging
import random
import traceback
from collections.abc import Callable, Coroutine, Iterable
from itertools import repeat
from typing import Any

from fanout.core.gate import Gate
from fanout.core.outcome import Scope
from fanout.core.policy import Policy
from fanout.core.states import DeliveryState, Waiting
from fanout.engine.group import Group
from fanout.engine.lease import Lease
from fanout.engine.live import Live
from fanout.engine.sender import Senders
from fanout.engine.settler import Settler
from fanout.engine.signal import Signal
from fanout.plugin import Clock, Transport

__all__ = ["Work"]

_log = logging.getLogger("fanout.work")
_IDLE_GROUP = 30.0
_NOWHERE = ("", "removed")


class Work:
    """What the dispatcher, the senders and the settler of one binding share."""

    def __init__(
        self,
        app: str,
        binding: str,
        transport: Transport,
        *,
        clock: Clock,
        rng: random.Random,
        policy: Policy,
        settler: Settler,
        live: Live,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.app = app
        self.binding = binding
        self.transport = transport
        self.clock = clock
        self.policy = policy
        self.settler = settler
        self.gate = Gate(policy)
        self.groups: dict[str, Group] = {}
        self.leases: dict[int, Lease] = {}
        self.faults = 0
        self.signal = Signal()  # wakes the dispatcher
        self._live = live
        self._spawn = spawn
        self.senders = Senders(self, self.gate, rng)

    # -- the queue's side

    def queued(self, lane: int) -> int:
        """Deliveries of this lane that are leased and that no sender has taken."""
        return sum(len(group.queues[lane]) for group in self.groups.values())

    def enqueue(self, lease: Lease, positions: Iterable[int]) -> None:
        """Hand these deliveries of a lease to their groups, and see that there are senders."""
        lane = lease.chunk.lane
        rows = lease.rows
        now = self.clock.now()
        kinds = {(row[3], row[6]) if row is not None else _NOWHERE for row in rows}
        touched: dict[str, Group] = {}
        if len(kinds) == 1 and (kind := kinds.pop())[1] == "active":
            # The usual chunk: one group, nobody gone. Handed over without a step of Python for each delivery.
            group = touched[kind[0]] = self._group(kind[0], now)
            queue = group.queues[lane]
            before = len(queue)
            queue.extend(zip(repeat(lease), positions))
            lease.left += len(queue) - before
        else:
            self._sort(lease, positions, touched, now)
        for group in touched.values():
            if group.gate.shut(now) or self.gate.shut(now):
                self.park_queued(group, group.gate if group.gate.shut(now) else self.gate)
            else:
                self.adjust(group)
        self.settler.wake()

    def _sort(self, lease: Lease, positions: Iterable[int], touched: dict[str, Group], now: float) -> None:
        """Deliveries of a chunk one by one, to their groups or to their end."""
        lane = lease.chunk.lane
        for position in positions:
            row = lease.rows[position]
            lease.left += 1
            if row is None or row[6] != "active":
                lease.finish(position, *_unreachable(row[6] if row else ""), attempted=False)
                continue
            group = touched.get(row[3])
            if group is None:
                group = touched[row[3]] = self._group(row[3], now)
            group.queues[lane].append((lease, position))

    def _group(self, name: str, now: float) -> Group:
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(name, self.policy, self.gate)
            group.idle_since = now
        return group

    def adjust(self, group: Group) -> None:
        """Match the group's senders to its connections and its work."""
        group.limit = 0 if self.settler.stuck else max(1, self.transport.capacity(group.name))
        group.wake()
        wanted = min(group.limit, group.queued + group.active)
        for _ in range(wanted - group.senders):
            self._spawn(self.senders.run(group))
            group.senders += 1

    def tick(self, now: float) -> None:
        """Every checkpoint: connections may have come or gone; twice a minute, groups without work are let go."""
        for group in list(self.groups.values()):
            if group.queued or group.active:
                group.idle_since = now
                self.adjust(group)
            elif now - group.idle_since > _IDLE_GROUP and group.gate.is_open:
                group.dismiss()
                del self.groups[group.name]

    def hold(self) -> None:
        """Results cannot be stored: nothing more is sent until `resume`."""
        for group in self.groups.values():
            group.limit = 0

    def resume(self) -> None:
        """Results can be stored again."""
        for group in list(self.groups.values()):
            self.adjust(group)

    # -- gates

    def park_queued(self, group: Group, gate: Gate) -> None:
        """A gate has closed: what waits behind it goes back to storage with its reason, until it opens."""
        groups = [group] if gate is not self.gate else list(self.groups.values())
        for each in groups:
            for lease, position in each.drain():
                lease.park(position, gate.until, gate.waiting)
        self.settler.wake()

    def gate_closed(self, group: Group | None, gate: Gate, scope: Scope, *, alarm: bool) -> None:
        """Say so."""
        now = self.clock.now()
        name = group.name if group else ""
        _log.log(
            logging.ERROR if alarm else logging.WARNING,
            "%s/%s: gate of %s %s closed for %.1f s: %s",
            self.app,
            self.binding,
            scope.value,
            name,
            gate.until - now,
            gate.reason,
        )
        data = {"app": self.app, "binding": self.binding, "group": name, "scope": scope.value, "until": gate.until}
        self._live.emit("gate.closed", now, reason=gate.reason, **data)
        if alarm:
            self._live.emit("alarm", now, reason=gate.reason, **data)

    def gate_opened(self, group: Group) -> None:
        """Say so, and let the rest follow the probe."""
        _log.info("%s/%s: gate of %s opened", self.app, self.binding, group.name or "the binding")
        self._live.emit("gate.opened", self.clock.now(), app=self.app, binding=self.binding, group=group.name)
        for each in list(self.groups.values()):
            self.adjust(each)
        self.signal.set()

    def fault(self, text: str, error: Exception | None = None) -> None:
        """A plugin did what its contract forbids: counted apart and named."""
        self.faults += 1
        if self.faults <= 10 or self.faults % 1000 == 0:
            # Where it happened, but not its message: what a plugin writes there may hold an address.
            place = "".join(traceback.format_tb(error.__traceback__)[-1:]) if error else ""
            _log.error("%s/%s: %s (fault %d)\n%s", self.app, self.binding, text, self.faults, place)
        self._live.emit("fault", self.clock.now(), app=self.app, binding=self.binding, text=text, count=self.faults)

    # -- the end

    def surrender(self) -> None:
        """Nothing more is begun: what no sender has taken goes back to storage, due at once."""
        now = self.clock.now()
        for group in self.groups.values():
            for lease, position in group.drain():
                lease.park(position, now, Waiting.READY)
        for lease in self.leases.values():
            while lease.stalled:
                lease.left += 1
                lease.park(lease.stalled.pop(), now, Waiting.READY)
        self.settler.wake()

    @property
    def under_way(self) -> int:
        """Sends without an outcome."""
        return sum(group.active for group in self.groups.values())


def _unreachable(state: str) -> tuple[DeliveryState, str]:
    """How a delivery ends whose endpoint was not active when its chunk was read."""
    if state == "gone":
        return DeliveryState.GONE, "endpoint gone before"
    return DeliveryState.CANCELLED, f"endpoint {state or 'removed'}"
