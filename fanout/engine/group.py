"""A group: the endpoints of one binding that share connections and fate, its queue, its gate and its senders."""

from __future__ import annotations

import asyncio
from collections import deque

from fanout.core.gate import Gate, GateState
from fanout.core.model import LANES
from fanout.core.policy import Policy
from fanout.engine.lease import Lease

__all__ = ["Group", "Item"]

Item = tuple[Lease, int]


class Group:
    """Deliveries that are ready to go, by lane, and the senders that pull them. A hung host occupies only its own group."""

    __slots__ = (
        "active",
        "binding_gate",
        "closing",
        "gate",
        "idle",
        "idle_since",
        "limit",
        "name",
        "queues",
        "senders",
    )

    def __init__(self, name: str, policy: Policy, binding_gate: Gate) -> None:
        self.name = name
        self.gate = Gate(policy)
        self.binding_gate = binding_gate
        self.queues: tuple[deque[Item], ...] = tuple(deque() for _ in LANES)
        self.limit = 1
        self.active = 0  # senders with a delivery in hand
        self.senders = 0
        self.idle: deque[asyncio.Future[None]] = deque()
        self.idle_since = 0.0
        self.closing = False

    @property
    def queued(self) -> int:
        """Deliveries that no sender has taken."""
        return sum(map(len, self.queues))

    def take(self, now: float) -> Item | None:
        """The next delivery, if there is one, the connections have room and both gates admit it."""
        if self.active >= self.limit or self.closing:
            return None
        for queue in self.queues:
            if queue:
                break
        else:
            return None
        gate = self.gate
        if gate.state is not GateState.OPEN or self.binding_gate.state is not GateState.OPEN:
            if not (gate.ready(now) and self.binding_gate.ready(now)):
                return None
            gate.admits(now)
            self.binding_gate.admits(now)
        self.active += 1
        return queue.popleft()

    def wake(self) -> None:
        """Wake as many parked senders as there is work and room for."""
        count = min(self.queued, self.limit - self.active, len(self.idle))
        for _ in range(count):
            sender = self.idle.popleft()
            if not sender.done():
                sender.set_result(None)

    def drain(self) -> list[Item]:
        """Take everything that waits: its gate has closed, or the engine is closing."""
        items = [item for queue in self.queues for item in queue]
        for queue in self.queues:
            queue.clear()
        return items

    def dismiss(self) -> None:
        """Let every parked sender end."""
        self.closing = True
        while self.idle:
            sender = self.idle.popleft()
            if not sender.done():
                sender.set_result(None)
