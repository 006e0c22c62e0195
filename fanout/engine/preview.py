"""Looking ahead: the effect of a send, and the deliveries that are left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fanout.core.gate import GateState
from fanout.core.model import Notification, Target
from fanout.core.states import Waiting
from fanout.engine.binding_state import BindingState
from fanout.engine.intake import Intake
from fanout.engine.patience import Trouble, retry_while_unavailable
from fanout.engine.signal import Signal
from fanout.plugin import Storage

__all__ = ["DrainReport", "Preview", "drain", "preview"]

_LOOK_BACK = 1000
_ENOUGH = 1000


@dataclass(frozen=True, slots=True)
class Preview:
    """The effect of a send: endpoints and payload bytes per binding, and how long it would take (None: nothing to
    measure by).

    `rate` is in deliveries per second: that of the latest notification of at least 1,000 deliveries in this database.
    """

    endpoints: Mapping[str, int]
    sizes: Mapping[str, int]
    rate: float | None
    eta_s: float | None

    @property
    def total(self) -> int:
        """Endpoints over all bindings."""
        return sum(self.endpoints.values())


async def preview(
    intake: Intake, storage: Storage, notification: Notification, target: Target | str, *, app: str
) -> Preview:
    """Validate and prepare as `send` does, count, and put nothing."""
    request = intake.request(notification, target, app=app, at=None, idempotency_key=None)
    endpoints = await storage.count_endpoints(app, request.submission.target)
    for binding in endpoints:
        if binding in request.refusals:
            raise request.refusals[binding]
    rate = await _measured_rate(storage)
    total = sum(endpoints.values())
    return Preview(endpoints, intake.sizes(request, endpoints), rate, None if rate is None else total / rate)


async def _measured_rate(storage: Storage) -> float | None:
    rate: float | None = None
    after = 0
    while page := await storage.events(after=after, limit=_LOOK_BACK):
        after = page[-1].id
        for event in page:
            if event.kind != "notification.finished":
                continue
            total = sum(event.data.get("counts", {}).values())
            seconds = event.at - event.data.get("due_at", event.at)
            if total >= _ENOUGH and seconds > 0:
                rate = total / seconds
    return rate


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How a drain ended: `parked` counts, by "app/binding: reason", deliveries that only a person can set free."""

    parked: Mapping[str, int]

    @property
    def clean(self) -> bool:
        """Whether nothing is left."""
        return not self.parked


async def drain(
    storage: Storage, states: Sequence[BindingState], check: Callable[[], None], poll: float, trouble: Trouble
) -> DrainReport:
    """Wait until storage has nothing outstanding, or only parked deliveries."""
    while True:
        check()
        left = {
            reason: count
            for reason, count in (await retry_while_unavailable(storage.outstanding, trouble)).items()
            if count
        }
        if not left:
            return DrainReport({})
        broken = [
            state
            for state in states
            if state.gate.state is not GateState.OPEN and state.gate.waiting is Waiting.BREAKER
        ]
        reasons = {f"{state.app}/{state.binding}: {state.gate.reason}" for state in broken}
        # An endpoint that alone says that something is wrong is held back too, even where the others are accepted.
        loners = {f"{state.app}/{state.binding}: {reason}" for state in states for reason in state.gates.alone.values()}
        paused = left.get(Waiting.PAUSED.value, 0)
        if (broken or loners or paused) and not any(state.under_way for state in states):
            stuck = {Waiting.PAUSED.value} | ({Waiting.BREAKER.value} if loners else set())
            if broken:
                stuck |= {Waiting.BREAKER.value, Waiting.READY.value, Waiting.LANE.value}
            healthy = [state for state in states if state not in broken]
            # A delivery that one endpoint alone holds back is due again, so there it says nothing that something is
            # due.
            idle = (loners and not broken) or not any([(await _ready(storage, state, trouble)) for state in healthy])
            if left.keys() <= stuck and idle:
                rest = sum(left.values()) - paused
                parked = dict.fromkeys(sorted(reasons | loners), rest) if rest else {}
                return DrainReport(parked | ({"paused by an operator": paused} if paused else {}))
        await Signal().wait(poll)


async def _ready(storage: Storage, state: BindingState, trouble: Trouble) -> bool:
    waiting, due = await retry_while_unavailable(
        lambda: storage.waiting(state.app, state.binding, state.clock.now()), trouble
    )
    return any(waiting) or due is not None
