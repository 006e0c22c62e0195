"""Endpoints in back-off, as far as this worker knows them: for the deliveries in hand. Storage knows them for good."""

from __future__ import annotations

import random

from fanout.core.records import EndpointRow
from fanout.core.states import Waiting
from fanout.engine.lease import HELD, Lease
from fanout.engine.ports import Binding

__all__ = ["Holds"]

_MOST = 100_000
"""Endpoints in back-off that are known without asking storage; of more, the oldest are forgotten here."""
_IN_BACKOFF = (0.0, Waiting.BACKOFF, HELD)


class Holds:
    """Of one binding. Times are UNIX seconds, but for the ends of leases."""

    def __init__(self, state: Binding, rng: random.Random) -> None:
        self._state = state
        self._rng = rng
        self._until: dict[int, float] = {}
        self._alone: dict[int, tuple[float, Waiting, str]] = {}
        """Of these, those that wait for their own word: until when leases without it were begun (`Lease.begun`), and
        why."""

    def __len__(self) -> int:
        return len(self._until)

    def add(self, endpoint: int, until: float) -> None:
        """This endpoint is in back-off: its other deliveries wait too."""
        if len(self._until) >= _MOST:
            del self._until[next(iter(self._until))]
        self._until[endpoint] = max(until, self._until.get(endpoint, 0.0))
        self._state.wary = True

    def add_alone(self, endpoint: int, until: float, waiting: Waiting, reason: str, before: float = 0.0) -> None:
        """As `add`, but storage can be told to end it (`retry_binding`): then leases that were begun later, or after
        `before`, do not wait."""
        self.add(endpoint, until)
        state = self._state
        self._alone[endpoint] = before or state.clock.monotonic() + state.policy.lease, waiting, reason

    def alone(self, endpoint: int) -> tuple[float, Waiting, str] | None:
        """The note of `add_alone` about an endpoint that waits by itself."""
        return self._alone.get(endpoint)

    def until(self, endpoint: int, now: float) -> float:
        """When the endpoint's back-off ends; 0 where it is in none."""
        until = self._until.get(endpoint, 0.0)
        return until if until > now else 0.0

    def put_down(self, lease: Lease, position: int, row: EndpointRow) -> None:
        """A delivery whose endpoint was in back-off when it was read waits for the end of that."""
        _, waiting, reason = self._alone.get(row[0], _IN_BACKOFF)
        lease.hold(position, row[7] + self._rng.uniform(0.0, self._state.policy.backoff_base), waiting, reason)

    def over(self, endpoint: int) -> None:
        """The gateway took a delivery of this endpoint."""
        self._until.pop(endpoint, None)

    def let_go(self) -> None:
        """The reason for which endpoints waited by themselves is reported as mended: they may go on."""
        for endpoint in self._alone:
            self._until.pop(endpoint, None)
        self._alone.clear()

    def tidy(self, now: float) -> None:
        """Forget those that are over."""
        self._until = {endpoint: until for endpoint, until in self._until.items() if until > now}
        self._alone = {endpoint: why for endpoint, why in self._alone.items() if endpoint in self._until}

    def forget(self) -> None:
        """Storage stands on another database, or the clock was set: storage's word is the one that counts."""
        self._until.clear()
