"""The state that the transports of this process share with those of other processes: parts of rates, and tokens."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from fanout.core.fleet import SharedToken, fair
from fanout.engine.signal import Signal
from fanout.plugin import Clock, Divided, Storage, fleet_of

__all__ = ["FleetLink"]


@dataclass(slots=True)
class _Rate:
    """One rate, and the limiters of this process that share it. `held` is the rate that all of them may use at
    present."""

    rate: float
    parts: list[weakref.ref[Divided]] = field(default_factory=list)
    held: float = 0.0

    def living(self) -> list[Divided]:
        return [part for ref in self.parts if (part := ref()) is not None]


class FleetLink:
    """`plugin.Fleetwide` over a storage. The engine's `Membership` asks for the parts; nothing here waits for anything
    but storage."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._rates: dict[str, _Rate] = {}
        self.short = Signal()
        """A process has less than it could use, and was well served with less before."""

    def divide(self, name: str, rate: float, part: Divided) -> Callable[[], None]:
        """See `Fleetwide`."""
        divided = self._rates.setdefault(name, _Rate(rate))
        divided.rate = rate
        if all(each is not part for each in divided.living()):
            divided.parts.append(weakref.ref(part))
            part.grant(0.0)
        self.short.set()
        return self.short.set

    async def token(self, name: str, *, offer: SharedToken | None = None, spacing: float = 0.0) -> SharedToken | None:
        """See `Fleetwide`."""
        now = self._clock.now()
        standing = await fleet_of(self._storage).token(name, now, offer=offer, spacing=spacing)
        if standing is None or not standing.from_the_future(now):
            return standing
        # Where there is another, that one takes its place, for all limiters.
        return None if offer is None else await fleet_of(self._storage).token(name, now, offer=offer)

    # -- the engine's side

    def lapse(self) -> None:
        """The others may have divided this process's parts among themselves: no process uses any."""
        for rate in self._rates.values():
            rate.held = 0.0
            for part in rate.living():
                part.grant(0.0)

    async def renew(self, worker: str, now: float) -> None:
        """Ask for this process's part of every rate, and hand it out. `now` is when the worker was last known to
        live."""
        for name, rate in list(self._rates.items()):
            parts = rate.living()
            rate.parts = [ref for ref in rate.parts if ref() is not None]
            demands = [part.demand() for part in parts]
            former = rate.held
            rate.held = await fleet_of(self._storage).share(
                worker, name, rate=rate.rate, held=former, demand=sum(demands), now=now
            )
            for part, share in zip(parts, fair(rate.held, demands), strict=True):
                part.grant(share)
            if not parts and not former:
                del self._rates[name]
