"""This process's part of the project's rate: the fleet's exchange, about once a second, and the shaper that keeps to
it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from weakref import WeakValueDictionary

from fanout.plugin import Context
from fanout_fcm.settings import FcmSettings
from fanout_fcm.shaper import Shaper

__all__ = ["Portion", "portion_of"]


class Portion:
    """One project's shaper in this process. Without a fleet it has the whole rate, and no grant is asked for."""

    def __init__(self, shaper: Shaper, monotonic: Callable[[], float]) -> None:
        self.shaper = shaper
        self._monotonic = monotonic
        self._since = monotonic()
        self._wanted = math.inf
        self._ask: Callable[[], None] | None = None
        self._granted: asyncio.Event | None = None

    def join(self, context: Context, name: str, rate: float) -> None:
        """Share the rate with all processes that name it so."""
        if context.fleet is not None:
            self._ask = context.fleet.divide(name, rate, self)

    def demand(self) -> float:
        """See `Divided`."""
        now = self._monotonic()
        self._wanted = self.shaper.demand(now - self._since)
        self._since = now
        return self._wanted

    def grant(self, share: float) -> None:
        """See `Divided`."""
        self.shaper.resize(share)
        if self._granted is not None:
            self._granted.set()
            self._granted = None

    def short(self) -> bool:
        """Something has to wait for its turn. Whether more may be granted soon: all that is to be had has not been
        asked for before."""
        if self._ask is None:
            return False
        if self._wanted < math.inf:
            self._wanted = math.inf
            self._ask()
            self._granted = self._granted or asyncio.Event()
        elif not self.shaper.rate:
            self._granted = self._granted or asyncio.Event()
        return self._granted is not None

    async def granted(self, longest: float) -> None:
        """Wait for the next grant, for `longest` seconds at most."""
        if self._granted is not None:
            try:
                async with asyncio.timeout(longest):
                    await self._granted.wait()
            except TimeoutError:
                return


_portions: WeakValueDictionary[tuple[object, ...], Portion] = WeakValueDictionary()


def portion_of(settings: FcmSettings, context: Context) -> Portion | None:
    """The project's portion: bindings of one project share it where they name the same rate, and live by the same clock
    and fleet."""
    if not settings.rate_per_minute:
        return None
    project = (settings.gateway, settings.project)
    key = (*project, settings.rate_per_minute, settings.ramp, id(context.clock), id(context.fleet))
    portion = _portions.get(key)
    if portion is None:
        monotonic, rate = context.clock.monotonic, settings.rate_per_minute / 60
        portion = _portions[key] = Portion(Shaper(rate, settings.ramp, monotonic()), monotonic)
        portion.join(context, f"fcm {settings.project} {settings.gateway}", rate)
    return portion
