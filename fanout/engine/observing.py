"""An engine as plain numbers, at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fanout.core.gate import Gate, GateState
from fanout.core.model import LANES
from fanout.core.states import Waiting
from fanout.engine.binding_state import BindingState
from fanout.engine.counters import BindingView, EngineView, Tally, due_at
from fanout.engine.engine import Engine

__all__ = ["observe"]


def observe(engine: Engine) -> EngineView:
    """How the engine stands at this moment. Asks no storage and no gateway; as many steps as there are groups and
    leases."""
    settler = engine._settler
    now = engine._clock.now()
    return EngineView(
        now=now,
        apps=engine.apps,
        bindings=[_binding(state, settler.tally, now) for state in engine._states],
        accepted=settler.tally.accepted,
        unexpanded=settler.tally.unexpanded,
        commits=settler.tally.commits,
        stuck=settler.stuck,
        trouble=engine.trouble.kind,
        trouble_seconds=engine.trouble.seconds,
        config=engine.configuration,
    )


def _binding(state: BindingState, tally: Tally, now: float) -> BindingView:
    groups = list(state.groups.values())
    topics = state.gates.topics.values()
    oldest = [0.0] * len(LANES)
    for lease in state.leases.values():
        if lease.left:
            lane = lease.chunk.lane
            oldest[lane] = max(oldest[lane], now - due_at(state, lease))
    return BindingView(
        app=state.app,
        binding=state.binding,
        gate=state.gate.state.value,
        group_gates=_states(group.gate for group in groups),
        topic_gates=_states(topics),
        breakers=sum(map(_broken, [state.gate, *topics, *(group.gate for group in groups)])),
        paused=state.paused,
        queued=[state.queued(lane) for lane in range(len(LANES))],
        oldest=oldest,
        under_way=sum(group.active for group in groups),
        limit=sum(group.limit for group in groups),
        capacity=sum(state.capacity(group) for group in groups),
        budget=state.senders.budget.tokens,
        leases=len(state.leases),
        faults=state.faults,
        late=state.pump.late,
        counters=tally.of(state.app, state.binding),
        connections=_connections(state),
    )


def _states(gates: Iterable[Gate]) -> Mapping[str, int]:
    counts = dict.fromkeys([state.value for state in GateState], 0)
    for gate in gates:
        counts[gate.state.value] += 1
    return counts


def _broken(gate: Gate) -> bool:
    return gate.state is not GateState.OPEN and gate.waiting is Waiting.BREAKER


def _connections(state: BindingState) -> Mapping[str, float] | None:
    """The transport's figures of its connections, if it gives any (`fanout.plugin.Transport`)."""
    stats: Callable[[], Mapping[str, float]] | None = getattr(state.transport, "stats", None)
    try:
        return stats() if stats is not None else None
    except Exception as error:
        state.fault(f"{type(error).__name__} escaped from stats.", error)
        return None
