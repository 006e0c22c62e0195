"""Evidence before a verdict: when the answers for some endpoints are enough to hold back others.

One answer may be about its endpoint, its notification or its connection alone. A scope that is wider is held only when
two witnesses that have nothing in common say the same, with no acceptance in that scope between them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

__all__ = ["FAULT", "Loners", "Witness", "Witnesses", "independent"]

FAULT = "plugin fault"
"""The cause of an outcome that is an exception of the plugin: it says nothing of the gateway, and is no witness."""

_KEPT = 16
"""Testimonies kept for each scope; of more, the oldest are forgotten."""
_LONERS = 10_000
_LONG_AGO = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Witness:
    """One attempt's word against a scope. `cause` names the one event that ended several attempts, else "". `name` is
    for people: a short hash of the address."""

    endpoint: int
    notification: str
    cause: str = ""
    name: str = ""


def independent(one: Witness, two: Witness, *, others: bool) -> bool:
    """Whether these are two witnesses.

    The same endpoint is one, and so are the failures at one connection's end. Endpoints of one notification are one
    where `others`: another notification waits, or was accepted lately, so that this one may be at fault.
    """
    if FAULT in (one.cause, two.cause) or one.endpoint == two.endpoint:
        return False
    if one.cause and one.cause == two.cause:
        return False
    return one.notification != two.notification or not others


class Witnesses:
    """The accusations against one scope since it last accepted anything."""

    __slots__ = ("_about", "_said", "agreed")

    def __init__(self) -> None:
        self._said: OrderedDict[int, Witness] = OrderedDict()
        self._about: set[str] = set()  # notifications: two at most, for more make no difference
        self.agreed = False
        """Whether two independent witnesses have said the same."""

    def hear(self, witness: Witness, *, others: bool) -> bool:
        """Whether two independent witnesses agree, this one included."""
        if witness.cause != FAULT:
            if any(independent(witness, said, others=others) for said in self._said.values()):
                self.agreed = True
            if len(self._about) < 2:
                self._about.add(witness.notification)
            self._said.pop(witness.endpoint, None)
            self._said[witness.endpoint] = witness
            while len(self._said) > _KEPT:
                self._said.popitem(last=False)
        return self.agreed

    def clear(self) -> None:
        """The scope accepted something, or an operator says that the cause is mended."""
        self._said.clear()
        self._about.clear()
        self.agreed = False

    def heard(self, endpoint: int) -> bool:
        """Whether this endpoint is among the witnesses: asked again, it has nothing new to say."""
        return endpoint in self._said

    @property
    def sole(self) -> str:
        """The notification that all testimonies are about, where it is one; else empty."""
        return next(iter(self._about)) if len(self._about) == 1 else ""

    @property
    def names(self) -> list[str]:
        """The witnesses, for people, in the order in which they spoke."""
        return [said.name for said in self._said.values() if said.name]


class Loners:
    """How often each endpoint has accused alone since it was last accepted: each time it waits longer. Times are UNIX
    seconds."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: OrderedDict[int, tuple[int, float, int]] = OrderedDict()

    def again(self, endpoint: int, now: float, accepted: int = 0) -> int:
        """One time more; how many that makes. An accusation of long ago does not count. `accepted` counts the binding's
        acceptances."""
        times, at, _ = self._times.pop(endpoint, (0, now, 0))
        times = times + 1 if now - at < _LONG_AGO else 1
        self._times[endpoint] = times, now, accepted
        while len(self._times) > _LONERS:
            self._times.popitem(last=False)
        return times

    def accepted(self, endpoint: int) -> None:
        """The gateway took a delivery for it."""
        self._times.pop(endpoint, None)

    def refuted(self, endpoint: int, accepted: int) -> bool:
        """Whether others were accepted since it accused alone: its accusation then concerns itself, and counts for
        nothing."""
        return endpoint in self._times and accepted > self._times[endpoint][2]

    def known(self, endpoint: int) -> bool:
        """Whether it has accused alone since it was last accepted."""
        return endpoint in self._times

    def clear(self) -> None:
        """An operator says that the cause is mended."""
        self._times.clear()
