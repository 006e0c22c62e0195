"""Send: one attempt, from the group's queue to the outcome's consequence. The hot path of the whole engine.

Senders are long-lived: a task, lock, stream or log line per delivery would each cost more than the rest of the path together.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING

from fanout.core.gate import Gate, GateState
from fanout.core.outcome import ACCEPTED, Outcome, Scope, Unavailable
from fanout.core.purge import PurgeGuard
from fanout.core.records import AddressMoved, EndpointGone
from fanout.core.settlement import Again, Attempted, Decision, Final, Park, Relocate, Retry, decide
from fanout.core.states import DeliveryState, Waiting
from fanout.engine.group import Group
from fanout.engine.lease import Lease

if TYPE_CHECKING:
    from fanout.engine.work import Work

__all__ = ["Senders"]

OPEN = GateState.OPEN
_IDLE, _CANCELLED = math.inf, -math.inf
_TURNS = 127
"""A sender lets others run after each 128 deliveries, a millisecond or so."""


class Senders:
    """The senders of one binding."""

    def __init__(self, work: Work, gate: Gate, rng: random.Random) -> None:
        self._work = work
        self._gate = gate
        self._rng = rng
        self._guard = PurgeGuard()
        self._alive = 0  # accepted since the guard was last told
        self._under_way: dict[asyncio.Task[None], list[float]] = {}
        """For each sender, when its attempt began (monotonic seconds), `_IDLE` between attempts, `_CANCELLED` by the watchdog."""

    async def run(self, group: Group) -> None:
        """One sender: pull, send, settle, until the group is dismissed."""
        work = self._work
        now = work.clock.now
        monotonic = work.clock.monotonic
        send = work.transport.send
        begun_at = [_IDLE]
        task = asyncio.current_task()
        assert task is not None
        self._under_way[task] = begun_at
        loop = asyncio.get_running_loop()
        turns = 0
        try:
            while True:
                turns += 1
                if turns & _TURNS == 0:
                    # A transport that answers without waiting would keep the loop to itself.
                    await asyncio.sleep(0)
                moment = now()
                item = group.take(moment)
                if item is None:
                    if group.closing:
                        return
                    parked = loop.create_future()
                    group.idle.append(parked)
                    await parked
                    continue
                lease, position = item
                prepared = lease.prepared
                begun = monotonic()
                try:
                    if prepared.stopped or moment >= prepared.expires_at or begun >= lease.until:
                        self._withhold(lease, position)
                    else:
                        delivery = lease.delivery(position, moment)
                        begun_at[0] = begun
                        try:
                            outcome = await send(prepared.message, delivery)
                        except asyncio.CancelledError:
                            if begun_at[0] != _CANCELLED:
                                raise
                            task.uncancel()  # the watchdog's doing, not the engine's: this attempt alone is over
                            outcome = Unavailable("unknown", Scope.ENDPOINT, "deadline of the engine")
                        except Exception as error:
                            outcome = self._fault(error)
                        if outcome is ACCEPTED and group.gate.state is OPEN and self._gate.state is OPEN:
                            lease.accept(position)
                            self._alive += 1
                            group.gate.streak = 0
                        else:
                            self.settle(group, lease, position, outcome)
                finally:
                    begun_at[0] = _IDLE
                    group.active -= 1
                if not work.settler.awake:
                    work.settler.wake()
                if group.limit < 8:
                    # Few are under way: the connection may just have been proven, and its capacity grown.
                    work.adjust(group)
        finally:
            del self._under_way[task]
            group.senders -= 1

    def settle(self, group: Group, lease: Lease, position: int, outcome: Outcome) -> None:
        """Carry out what `decide` makes of an outcome."""
        work = self._work
        now = work.clock.now()
        row = lease.rows[position]
        assert row is not None
        tried = Attempted(
            attempt=lease.chunk.attempt,
            free=lease.free.get(position, 0),
            expires_at=lease.prepared.expires_at,
            registered_at=row.registered_at,
            repeat=lease.prepared.notification.repeat,
            once=lease.prepared.once,
            group_failing=not group.gate.is_open,
        )
        self._feel(group, outcome, now)
        decision = self._guarded(decide(outcome, tried, work.policy, now, self._rng), tried, now)
        match decision:
            case Final(state, reason, endpoint_gone):
                if endpoint_gone:
                    lease.changed(EndpointGone(row.id, row.generation, now, reason))
                lease.finish(position, state, reason, attempted=True)
            case Retry(due_at, attempt, reason, waiting):
                lease.retry(position, due_at, attempt, waiting, reason)
            case Relocate(address, retry):
                lease.changed(AddressMoved(row.id, row.generation, now, address))
                lease.retry(position, retry.due_at, retry.attempt, retry.waiting, retry.reason)
            case Again():
                lease.free[position] = tried.free + 1
                lease.tried()
                group.queues[lease.chunk.lane].appendleft((lease, position))
            case Park(scope, after, reason, waiting, alarm):
                gate = group.gate if scope is Scope.GROUP else self._gate
                if gate.close(now, self._rng, reason=reason, after=after, waiting=waiting):
                    work.gate_closed(group, gate, scope, alarm=alarm)
                lease.tried()
                lease.park(position, gate.until, gate.waiting)
                work.park_queued(group, gate)

    def watch(self, deadline: float) -> None:
        """Cancel each attempt that began before `deadline` (monotonic seconds): a transport that hangs is a fault of its own."""
        for task, begun_at in self._under_way.items():
            if _CANCELLED < begun_at[0] < deadline:
                begun_at[0] = _CANCELLED
                self._work.fault("A send outlived its deadline and was cancelled; the transport hangs.")
                task.cancel()

    def _withhold(self, lease: Lease, position: int) -> None:
        prepared = lease.prepared
        if prepared.stopped:
            lease.finish(position, DeliveryState(prepared.stopped), "", attempted=False)
        elif self._work.clock.now() >= prepared.expires_at:
            lease.finish(position, DeliveryState.EXPIRED, "ttl", attempted=False)
        else:
            lease.stalled.append(position)  # the lease has run out: the keeper extends it, or finds it lost
            lease.left -= 1

    def _feel(self, group: Group, outcome: Outcome, now: float) -> None:
        """Let the gates learn whether the gateway answers at all."""
        if isinstance(outcome, Unavailable):
            if outcome.sent == "unknown" and group.gate.failed(now, self._rng, outcome.reason):
                self._work.gate_closed(group, group.gate, Scope.GROUP, alarm=False)
                self._work.park_queued(group, group.gate)
            return
        if getattr(outcome, "scope", Scope.ENDPOINT) is not Scope.ENDPOINT:
            return
        opened = group.gate.succeeded()
        if self._gate.succeeded() or opened:
            self._work.gate_opened(group)

    def _guarded(self, decision: Decision, tried: Attempted, now: float) -> Decision:
        if not isinstance(decision, Final):
            return decision
        if decision.endpoint_gone and not decision.certain:
            self._guard.saw_alive(self._alive)
            self._alive = 0
            if self._guard.saw_uncertain_death():
                return decision
            # Most of what this binding sends is refused so: our topic or environment is wrong, not every device dead.
            # This delivery waits its turn elsewhere, so that the next probe tries another.
            reason = f"{decision.reason} (held by the purge guard)"
            if self._gate.close(now, self._rng, reason=reason, after=self._work.policy.probe, waiting=Waiting.BREAKER):
                self._work.gate_closed(None, self._gate, Scope.BINDING, alarm=True)
            if tried.attempt >= self._work.policy.attempts:
                return Final(DeliveryState.DEAD, reason)
            return Retry(now + self._work.policy.probe, tried.attempt + 1, reason, Waiting.BREAKER)
        if decision.state in (DeliveryState.ACCEPTED, DeliveryState.GONE):
            self._alive += 1
        return decision

    def _fault(self, error: Exception) -> Outcome:
        name = type(error).__name__
        self._work.fault(f"{name} escaped from send; a transport returns outcomes and raises nothing.", error)
        return Unavailable("unknown", Scope.ENDPOINT, f"plugin fault: {name}")
