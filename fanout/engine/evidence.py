"""The proofs in one binding's answers: endpoints that have been accepted, and whether an accusation has a second
witness."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

from fanout.core.log_lines import LogLines
from fanout.core.outcome import Outcome, Scope, Unavailable
from fanout.core.records import EndpointRow
from fanout.core.settlement import Attempted, Decision, Park, Retry, by_connection, by_itself
from fanout.core.standing import Standing
from fanout.core.witness import Loners, Witness
from fanout.engine.group import Group
from fanout.engine.lease import Lease
from fanout.engine.ports import Binding

__all__ = ["Evidence", "short_hash"]

_log = logging.getLogger("fanout.evidence")


def short_hash(address: str) -> str:
    """The short hash of an address in logs and reports: the same for the same address, and no way back."""
    return blake2b(address.encode(), digest_size=4).hexdigest()


class Evidence:
    """The acceptances of one binding, kept up without a step for each delivery, and the accusations of its
    endpoints."""

    def __init__(self, state: Binding, rng: random.Random) -> None:
        self._state = state
        self._rng = rng
        self.standing = Standing()
        self._one_gateway = bool(getattr(state.transport, "one_gateway", False))
        self.loners = Loners()
        self._lines: dict[str, LogLines] = {}
        self.renewed_at = float("-inf")
        """When the credential was last replaced, in monotonic seconds: answers to attempts that began before speak of
        the old one."""
        self.accepted = 0
        """Deliveries accepted since ever, as far as they were read."""
        self.unread: list[Lease] = []
        """Leases with acceptances that `read` has not been told of. The senders enter one at its first acceptance."""

    # -- acceptances

    def read(self, *, settled: bool = False) -> None:
        """Learn from the acceptances since the last call. `settled`: the leases are about to hand them over."""
        now = self._state.clock.now()
        for lease in self.unread:
            positions = lease.accepted[lease.read :] if lease.read else lease.accepted
            if positions:
                self._learn(lease, positions, now)
            lease.read = 0 if settled else len(lease.accepted)
        if settled:
            self.unread = []

    def accept(self, lease: Lease, position: int, now: float) -> None:
        """One delivery was accepted, and did not take the senders' short way."""
        self._learn(lease, [position], now)
        self.loners.accepted(lease.chunk.ids[position])

    def _learn(self, lease: Lease, positions: Sequence[int], now: float) -> None:
        ids, rows, id = lease.chunk.ids, lease.rows, lease.prepared.notification.id
        self.accepted += len(positions)
        self.standing.know([ids[position] for position in positions])
        groups = {rows[position][3] for position in positions} if lease.group is None else {lease.group}  # type: ignore[index]
        self.standing.accepted(groups, {""} if self._one_gateway else groups, id, now)

    def _name(self, group: str) -> str:
        """The authority that vouches for an uncertain death in this group: its host, or the one gateway of all
        groups."""
        return "" if self._one_gateway else group

    def vouched(self, group: Group) -> bool:
        """Whether the gateway of this group has accepted the credential since it was loaded."""
        self.read()
        return self.standing.vouched(self._name(group.name))

    def known(self, endpoint: int) -> bool:
        """Whether this endpoint is among the last that were accepted."""
        self.read()
        return self.standing.knows(endpoint)

    # -- accusations

    def witness(self, lease: Lease, row: EndpointRow, outcome: Outcome) -> Witness:
        """The outcome as the word of a witness."""
        cause = getattr(outcome, "cause", "")
        return Witness(row.id, lease.prepared.notification.id, cause, short_hash(row.address))

    def others(self, group: Group | None, lease: Lease, now: float) -> bool:
        """Whether another notification waits in the group (None: any), or was accepted there lately."""
        self.read()
        groups = self._state.groups.values() if group is None else [group]
        if any(each.other_waits(lease) for each in groups):
            return True
        return self.standing.lately(group.name if group else None, now, but=lease.prepared.notification.id)

    def weigh(
        self, park: Park, group: Group, lease: Lease, row: EndpointRow, outcome: Outcome, tried: Attempted, now: float
    ) -> Decision:
        """Hold the scope that was accused, where that is proven, and else the endpoint alone."""
        if self.accuse(park, group, lease, row, outcome, now):
            return park
        if isinstance(outcome, Unavailable) and outcome.cause:
            return by_connection(park, tried, self._state.policy, now, self._rng)
        decision = by_itself(
            park, self.loners.again(row.id, now, self.accepted), tried, self._state.policy, now, self._rng
        )
        said = "%s/%s: endpoint %d (%s) alone says of the %s: %s. It waits by itself."
        self._say(logging.WARNING, said, row, park.scope.value, park.reason)
        if park.alarm and isinstance(decision, Retry):
            self._state.gates.parked_alone(short_hash(row.address), park, now, decision.due_at)
        return decision

    def accuse(self, park: Park, group: Group, lease: Lease, row: EndpointRow, outcome: Outcome, now: float) -> bool:
        """Whether the scope is held: on the word of two independent witnesses, or where no endpoint has a part in
        it."""
        gates = self._state.gates
        if park.scope is Scope.ENDPOINT:
            return False
        after = park.after
        topic = lease.prepared.message.topic
        if park.named:
            if self.loners.refuted(row.id, self.accepted):
                return False
            gate = gates.of_scope(park.scope, group, topic)
            self.read()
            if gate is not group.gate and gate.mark != self.accepted:
                gate.mark, gate.streak = self.accepted, 0  # accepted since the last accusation
            where = group if gate is group.gate else None
            others = self.others(where, lease, now)
            if not gate.accused(now, self.witness(lease, row, outcome), others=others):
                return False
            if park.alarm and not gate.closures and self.standing.lately(where.name if where else None, now):
                after = None  # contradicted lately: the first probe comes soon
        if park.alarm:
            gates.loners_asked(now)
        unconnected = isinstance(outcome, Unavailable) and outcome.sent == "no" and not outcome.named and after is None
        gates.shut(replace(park, after=after), group, topic, now, unconnected=unconnected)
        return True

    # -- deaths

    def say_dead(self, row: EndpointRow, reason: str) -> None:
        """An uncertain death is believed."""
        self._say(logging.INFO, "%s/%s: endpoint %d (%s) is removed: %s", row, reason)

    def say_not_believed(self, row: EndpointRow, reason: str, why: str) -> None:
        """An uncertain death is not believed."""
        said = "%s/%s: that endpoint %d (%s) is dead (%s) is not believed: %s. It stays."
        self._say(logging.WARNING, said, row, reason, why)

    def _say(self, level: int, text: str, row: EndpointRow, *more: str) -> None:
        """A line in the log about one endpoint, as long as there are not too many of its kind."""
        left_out = self._lines.setdefault(text, LogLines()).take(self._state.clock.monotonic())
        if left_out is not None:
            text += f" ({left_out} more such lines were left out.)" if left_out else ""
            _log.log(level, text, self._state.app, self._state.binding, row.id, short_hash(row.address), *more)

    # -- probes

    def rank(self, lease: Lease, position: int) -> int:
        """How good a probe this delivery is, from 0: best is an endpoint that was accepted, worst one that has
        accused."""
        id = lease.chunk.ids[position]
        if self.loners.known(id) or self._state.gates.heard(id):
            return 0
        if self.standing.knows(id):
            return 3
        return 1 if lease.prepared.notification.id in self._state.gates.blamed() else 2

    def mended(self) -> None:
        """An operator says that the fault is mended: endpoints that waited by themselves may be asked at once."""
        self.loners.clear()
        self._state.let_go()
        self._state.gates.loners_asked(self._state.clock.now())

    def renew(self) -> None:
        """The credential is another: its acceptances begin anew."""
        self.read()
        self.standing.forget()
        self._one_gateway = bool(getattr(self._state.transport, "one_gateway", False))
        self.renewed_at = self._state.clock.monotonic()
        self.mended()
