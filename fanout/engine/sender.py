"""Send: one attempt, from the group's queue to the outcome's consequence. The hot path of the whole engine.

A sender goes on in its task: a task, lock, stream or log line per delivery would each cost more than the rest of the
path together.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from fanout.core.budget import RetryBudget
from fanout.core.gate import Gate, GateState
from fanout.core.model import LANES
from fanout.core.outcome import (
    ACCEPTED,
    Accepted,
    Deferred,
    Misconfigured,
    Outcome,
    Scope,
    Throttled,
    Unavailable,
    flaw,
)
from fanout.core.purge import PurgeGuard
from fanout.core.records import AddressMoved, EndpointGone, EndpointRow
from fanout.core.settlement import Again, Attempted, Decision, Final, Park, Relocate, Retry, Wait, charge, decide
from fanout.core.states import DeliveryState, Waiting
from fanout.core.witness import FAULT
from fanout.engine.evidence import Evidence
from fanout.engine.group import FEW, Group
from fanout.engine.lease import Lease
from fanout.engine.ports import Binding

__all__ = ["Senders"]

OPEN = GateState.OPEN
URGENT = LANES.index("urgent")
_HEARD = 0.5
"""Seconds after which `retry_binding` of another process has been heard of here, several times over."""
_BUDGET_PAUSE = 5.0
"""Seconds for which a chunk of retries waits when the budget is empty; jittered by half."""


class Senders:
    """The senders of one binding."""

    def __init__(self, state: Binding, gate: Gate, rng: random.Random) -> None:
        self._state = state
        self._gate = gate
        self._rng = rng
        self._guard = PurgeGuard()
        policy = state.policy
        self.budget = RetryBudget(ratio=policy.retry_ratio, burst=policy.retry_burst, floor=policy.retry_floor)
        self.evidence = Evidence(state, rng)
        self._cause = ""  # of the latest failure that one event had in common with others
        self._counted = 0  # accepted, as guard and budget were last told

    def accept(self, group: Group, lease: Lease, positions: Sequence[int]) -> None:
        """The usual outcome, where no gate has anything to learn of it."""
        if not lease.accepted:
            self.evidence.unread.append(lease)
        lease.accept(positions)
        group.gate.streak = 0
        if self._state.wary:
            now = self._state.clock.now()
            for position in positions:
                self._state.proven(group, lease, position, now)

    def after(self, group: Group, lease: Lease) -> None:
        """Deliveries of a lease have ended: callers that wait for that go on."""
        state = self._state
        state.changed[group] = None
        if not state.settler.awake:
            state.settler.wake()
        elif not (group.active or lease.left):
            state.settler.answered()
        if not group.queued:
            return
        if group.limit < FEW:
            state.adjust(group)
        elif state.start is not None:
            state.pump.soon(group)

    def settle(self, group: Group, lease: Lease, position: int, outcome: Outcome, begun: float) -> None:
        """Carry out the decision of `decide` on an outcome. `begun` is when the attempt began, in monotonic seconds."""
        state = self._state
        if outcome is not ACCEPTED and (wrong := flaw(outcome)):
            state.fault(f"A transport's answer is no outcome: {wrong}.")
            outcome = Unavailable("unknown", Scope.ENDPOINT, f"plugin fault: {wrong}", cause=FAULT)
        if isinstance(outcome, Misconfigured) and begun < self.evidence.renewed_at:
            outcome = Deferred(f"{outcome.reason}, before the credential was replaced")
        now = state.clock.now()
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
        self._feel(group, lease, position, row, outcome, now)
        decision = decide(outcome, tried, state.policy, now, self._rng)
        if isinstance(decision, Park):
            decision = self.evidence.weigh(decision, group, lease, row, outcome, tried, now)
        decision = self._guarded(decision, group, row, tried, now)
        match decision:
            case Final(final, reason, endpoint_gone):
                if endpoint_gone:
                    lease.changed(EndpointGone(row.id, row.generation, now, reason))
                lease.finish(position, final, reason, attempted=True)
            case Retry(due_at, attempt, reason, waiting, alone):
                holds = alone or waiting is Waiting.BACKOFF
                if alone:
                    state.holds.add_alone(row.id, due_at, waiting, reason)
                elif holds:
                    state.holds.add(row.id, due_at)
                lease.retry(position, due_at, attempt, waiting, reason, holds=holds)
            case Relocate(address, retry):
                lease.changed(AddressMoved(row.id, row.generation, now, address))
                lease.retry(position, retry.due_at, retry.attempt, retry.waiting, retry.reason)
            case Again():
                lease.free[position] = tried.free + 1
                lease.tried()
                state.put_back(group, lease, position)
            case Wait(due_at, reason, waiting):
                lease.keep_open(position, due_at, waiting, reason)
            case Park(scope):
                lease.tried()
                gate = state.gates.of_scope(scope, group, lease.prepared.message.topic)
                lease.keep_open(position, gate.opens_at(now), gate.waiting, gate.reason)

    def waits(
        self, group: Group, lease: Lease, position: int, now: float, begun: float, *, asked: bool = False
    ) -> bool:
        """Whether something narrower than the gates keeps this delivery from going now; it has then been told where to
        wait. `asked`: it was allowed to go by gates and budget already."""
        state = self._state
        if position in lease.outdated:
            lease.finish(position, DeliveryState.SUPERSEDED, "", attempted=False)
            return True
        if position in lease.renewed and self._left(group, lease, position):
            return True
        if asked:
            return False
        row = lease.rows[position]
        assert row is not None
        probed: list[Gate] = []
        for gate in state.gates.around(group, lease.prepared):
            if not gate.admits(now):
                self._park_at(gate, lease, position, now)
                return _unused(probed)
            probed.append(gate)
        gate = state.gates.uncertain
        if not gate.is_open and lease.chunk.lane != URGENT and not self.evidence.known(row.id):
            if not gate.admits(now):
                self._park_at(gate, lease, position, now)
                return _unused(probed)
            probed.append(gate)
        held_until = state.holds.until(row.id, now)
        if held_until and lease.chunk.lane != URGENT:
            due_at = held_until + self._rng.uniform(0.0, state.policy.backoff_base)
            alone = state.holds.alone(row.id)
            if alone is None:
                lease.hold(position, due_at)
                return _unused(probed)
            before, waiting, reason = alone
            if lease.begun < before:
                lease.hold(position, due_at, waiting, reason)
            else:
                # Storage does not say so: `retry_binding` ended it elsewhere, of which this worker is about to hear, or
                # the notification whose retry it was has been cancelled.
                state.holds.add_alone(row.id, held_until, waiting, reason, math.inf)
                lease.keep_open(position, now + _HEARD, waiting, reason)
            return _unused(probed)
        if lease.chunk.attempt > 1:
            self.budget.deposit(self._count_alive())
            if not self.budget.take(begun):
                until = now + _BUDGET_PAUSE * self._rng.uniform(0.75, 1.25)
                lease.keep_open(position, until, Waiting.BUDGET, "retry budget")
                return _unused(probed)
        return False

    def _left(self, group: Group, lease: Lease, position: int) -> bool:
        """Whether the endpoint, which has changed since it was read, is no longer one of this group; a new address
        there is taken over."""
        row = lease.take_over(position)
        if row is None or row[6] != "active":
            lease.unreachable(position)
        elif row[3] != group.name:
            lease.keep_open(position, self._state.clock.now(), Waiting.READY)
        else:
            return False
        return True

    def _park_at(self, gate: Gate, lease: Lease, position: int, now: float) -> None:
        until = gate.opens_at(now)
        if not gate.shut(now):
            # A probe is out: where it opens the gate, this one may go soon.
            until = min(until, now + self._state.policy.backoff_base)
        lease.keep_open(position, until, gate.waiting, gate.reason)

    def _count_alive(self) -> int:
        """Tell the purge guard the acceptances since it was last told; their number."""
        self.evidence.read()
        alive, self._counted = self.evidence.accepted - self._counted, self.evidence.accepted
        self._guard.saw_alive(alive)
        return alive

    def withhold(self, lease: Lease, position: int) -> None:
        prepared = lease.prepared
        if prepared.stopped:
            lease.stop(position, self._state.clock.now())
        elif self._state.clock.now() >= prepared.expires_at:
            lease.finish(position, DeliveryState.EXPIRED, "ttl", attempted=False)
        else:
            lease.stall(position)

    def _feel(self, group: Group, lease: Lease, position: int, row: EndpointRow, outcome: Outcome, now: float) -> None:
        """Let the gates learn whether the gateway answers at all, and the limiter whether it keeps up."""
        if isinstance(outcome, Deferred):
            self._no_verdict(group, lease)
            return
        if isinstance(outcome, Throttled):
            if outcome.scope is not Scope.ENDPOINT:
                group.limiter.dropped()
        elif isinstance(outcome, Unavailable):
            self._feel_failure(group, lease, row, outcome, now)
            self._no_verdict(group, lease)
            return
        if getattr(outcome, "scope", Scope.ENDPOINT) is not Scope.ENDPOINT:
            self._no_verdict(group, lease)
            return
        if isinstance(outcome, Accepted):
            self.evidence.accept(lease, position, now)
            self._state.proven(group, lease, position, now)
        else:
            self._state.gates.uncertain.unused()
        self._state.gates.succeeded(group, lease.prepared, now)

    def _no_verdict(self, group: Group, lease: Lease) -> None:
        """The deliveries that were sent tell nothing of the gates that they passed: where one was a probe, another may
        go."""
        group.no_verdict()
        gates = self._state.gates
        if gates.narrow:
            for gate in (*gates.around(group, lease.prepared), gates.uncertain):
                gate.unused()

    def _feel_failure(self, group: Group, lease: Lease, row: EndpointRow, outcome: Unavailable, now: float) -> None:
        evidence, gates = self.evidence, self._state.gates
        if not outcome.cause or outcome.cause not in (FAULT, self._cause):
            # All requests that one connection ended are one failure: else 200 under way on it would empty the budget
            # and shrink the limit.
            self._cause = outcome.cause
            group.limiter.dropped()
            self.budget.failed()
        if outcome.sent == "no":
            return
        if outcome.scope is Scope.ENDPOINT:
            others = evidence.others(group, lease, now)
            gates.failed(group, lease.prepared, evidence.witness(lease, row, outcome), now, outcome.reason, others)
        else:
            evidence.accuse(charge(outcome, self._state.policy, self._rng), group, lease, row, outcome, now)

    def _guarded(self, decision: Decision, group: Group, row: EndpointRow, tried: Attempted, now: float) -> Decision:
        """The decision that the evidence and the purge guard make of a verdict of death."""
        if not isinstance(decision, Final) or not decision.endpoint_gone:
            return decision
        self._count_alive()
        guard, gates, evidence = self._guard, self._state.gates, self.evidence
        stopped = guard.stopped
        removed = guard.saw_death() if decision.certain else guard.saw_uncertain_death()
        if guard.stopped and not stopped:
            gates.removals_stopped(f"most deliveries end as {decision.reason}: endpoints are no longer removed", now)
        elif stopped and not guard.stopped:
            gates.removals_resumed(now)
        if decision.certain:
            return decision if removed else replace(decision, endpoint_gone=False)
        if removed and not guard.doubts and evidence.vouched(group):
            evidence.say_dead(row, decision.reason)
            return decision
        # Also the answer to every token where our topic or environment is wrong: the endpoint stays.
        why = "too many are" if guard.doubts or not removed else "nothing was accepted there yet"
        evidence.say_not_believed(row, decision.reason, why)
        if guard.holds and not evidence.known(row.id):
            reason = f"{decision.reason} (held by the purge guard)"
            had_closed = not gates.uncertain.is_open
            gates.shut_uncertain(now, reason)
            policy = self._state.policy
            if had_closed and tried.attempt < policy.attempts and now + policy.probe < tried.expires_at:
                # It was under way when nothing but such answers came back: tried again behind that gate, or all in
                # flight would be lost.
                return Retry(now + policy.probe, tried.attempt + 1, reason, Waiting.BREAKER)
        return Final(DeliveryState.REJECTED, f"{decision.reason} (not believed)")

    def retry_now(self, now: float) -> None:
        """An operator says that the cause of held-back deliveries is mended."""
        if self._guard.stopped:
            self._state.gates.removals_resumed(now)
        self._guard.reset()
        self.evidence.mended()

    def fault(self, error: BaseException, what: str) -> Outcome:
        """The outcome of an exception that escaped from the transport's method `what`."""
        name = type(error).__name__
        text = f"{name} escaped from {what}; a transport returns outcomes and raises nothing."
        self._state.fault(text, error if isinstance(error, Exception) else None)
        return Unavailable("unknown", Scope.ENDPOINT, f"plugin fault: {name}", cause=FAULT)


def _unused(probed: list[Gate]) -> bool:
    """True: a delivery waits after all, and was no probe of the gates that had admitted it."""
    for gate in probed:
        gate.unused()
    return True
