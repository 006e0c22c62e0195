"""The parts of a binding at work, as its lower modules use one another: evidence, gates, senders, pump, settler,
tally."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from fanout.core.gate import Gate
from fanout.core.outcome import Scope
from fanout.core.policy import Policy
from fanout.core.rescheduling import Rescheduling
from fanout.core.settlement import Park
from fanout.core.standing import Standing
from fanout.core.states import Waiting
from fanout.core.witness import Witness
from fanout.engine.group import Group
from fanout.engine.lease import Hand, Lease, Prepared
from fanout.engine.signal import Signal
from fanout.plugin import Clock, Transport

__all__ = ["Binding", "EvidencePort", "GatesPort", "HoldsPort", "PumpPort", "SendersPort", "SettlerPort"]


class EvidencePort(Protocol):
    """`Evidence`, for gates and the settler."""

    standing: Standing
    unread: list[Lease]

    def read(self, *, settled: bool = False) -> None:
        """Learn from the acceptances since the last call."""


class SendersPort(Protocol):
    """`Senders`, for gates and the settler."""

    @property
    def evidence(self) -> EvidencePort:
        """The proofs in the binding's answers."""
        ...


class GatesPort(Protocol):
    """`Gates`, for evidence and senders."""

    uncertain: Gate

    @property
    def narrow(self) -> bool: ...

    def parked_alone(self, name: str, park: Park, now: float, until: float) -> None: ...

    def loners_asked(self, now: float) -> None: ...

    def heard(self, endpoint: int) -> bool: ...

    def blamed(self) -> set[str]: ...

    def of_scope(self, scope: Scope, group: Group, topic: str) -> Gate: ...

    def around(self, group: Group, prepared: Prepared) -> Iterator[Gate]: ...

    def shut(self, park: Park, group: Group, topic: str, now: float, *, unconnected: bool = False) -> None: ...

    def failed(
        self, group: Group, prepared: Prepared, witness: Witness, now: float, reason: str, others: bool
    ) -> None: ...

    def succeeded(self, group: Group, prepared: Prepared, now: float) -> None: ...

    def shut_uncertain(self, now: float, reason: str) -> None: ...

    def removals_stopped(self, reason: str, now: float) -> None: ...

    def removals_resumed(self, now: float) -> None: ...


class SettlerPort(Protocol):
    """`Settler`, for gates and senders."""

    awake: bool

    def wake(self) -> None:
        """There is something to settle."""

    def answered(self) -> None:
        """A group has no answer to wait for."""


class HoldsPort(Protocol):
    """`Holds`, for senders."""

    def add(self, endpoint: int, until: float) -> None: ...

    def add_alone(self, endpoint: int, until: float, waiting: Waiting, reason: str, before: float = 0.0) -> None: ...

    def alone(self, endpoint: int) -> tuple[float, Waiting, str] | None: ...

    def until(self, endpoint: int, now: float) -> float: ...


class PumpPort(Protocol):
    """`Pump`, for senders."""

    late: int
    """Answers that came after their delivery was given up, or twice."""

    def soon(self, group: Group) -> None:
        """Start the deliveries that the group may start, in a turn of the loop."""


class Binding(Protocol):
    """`BindingState`, for the modules that it is made of. The docstring of each is there."""

    app: str
    binding: str
    transport: Transport
    send: Callable[..., Any]
    start: Callable[..., Iterable[int]] | None
    clock: Clock
    policy: Policy
    wary: bool
    signal: Signal
    groups: dict[str, Group]
    changed: dict[Group, None]
    leases: dict[int, Lease]
    hand: Hand
    parts: list[Lease]
    ended: list[str]
    gate: Gate
    rescheduling: Rescheduling

    @property
    def gates(self) -> GatesPort: ...

    @property
    def senders(self) -> SendersPort: ...

    @property
    def settler(self) -> SettlerPort: ...

    @property
    def holds(self) -> HoldsPort: ...

    @property
    def pump(self) -> PumpPort: ...

    def adjust(self, group: Group) -> None: ...

    def wake(self, group: Group) -> None: ...

    def fail(self, error: Exception) -> None: ...

    def fault(self, text: str, error: Exception | None = None) -> None: ...

    def put_back(self, group: Group, lease: Lease, position: int) -> None: ...

    def let_go(self) -> None: ...

    def hold(self) -> None: ...

    def resume(self) -> None: ...

    def tick(self, now: float) -> None: ...

    def set_back(self, seconds: float) -> None: ...

    def proven(self, group: Group, lease: Lease, position: int, now: float) -> None: ...
