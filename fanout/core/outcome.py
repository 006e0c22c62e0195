"""The answer of a gateway to one attempt, as a value, and the scope that the answer speaks of.

A transport *returns* one of these eight for everything that the gateway said and for connection trouble that it
recognises. An exception that escapes from a transport is a fault of the plugin, not an outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from types import NoneType
from typing import Literal, TypeAlias

from fanout.core.address import Address
from fanout.core.text import REASON_LIMIT, cleaned, storable

__all__ = [
    "ACCEPTED",
    "Accepted",
    "Deferred",
    "Gone",
    "Misconfigured",
    "Moved",
    "Outcome",
    "Rejected",
    "Scope",
    "Sent",
    "Throttled",
    "Unavailable",
    "flaw",
]


class Scope(StrEnum):
    """The reach of an answer: the deliveries that it holds back."""

    ENDPOINT = "endpoint"
    GROUP = "group"
    TOPIC = "topic"
    QUOTA = "quota"
    RATE = "rate"
    """This process's own part of a quota, as its transport keeps to it: no gateway has spoken, and no other process
    need wait."""
    BINDING = "binding"
    APP = "app"


class _Worded:
    """An outcome with a reason in the words of a gateway or a plugin, which are made fit to be stored."""

    __slots__ = ()
    reason: str

    def __post_init__(self) -> None:
        reason = self.reason
        if type(reason) is not str or len(reason) > REASON_LIMIT or not storable(reason):
            object.__setattr__(self, "reason", cleaned(reason))


Sent = Literal["no", "unknown"]
"""Whether an attempt that got no answer may have reached the gateway: `no` is certain, `unknown` is not."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The gateway took responsibility. It never means that the device showed anything.

    `id` is the gateway's own name for the message; empty where it is the delivery id that we gave.
    """

    id: str = ""


ACCEPTED = Accepted()
"""The usual answer, made once: the gateway took the message under the delivery id that it was given."""


@dataclass(frozen=True, slots=True)
class Rejected(_Worded):
    """This message will never pass, for a `reason` in the gateway's own word; the endpoint stays."""

    reason: str


@dataclass(frozen=True, slots=True)
class Gone(_Worded):
    """The endpoint is dead.

    Attributes:
        reason: The gateway's own word.
        since: The time at which the gateway learned it, in UNIX seconds: a registration after it is kept. None where it
            names none.
        certain: False where a wrong configuration of ours gives the same answer, so that a purge guard must watch it.
    """

    reason: str
    since: float | None = None
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Moved(_Worded):
    """The endpoint has a new address, to be used from now on, for this message too.

    Attributes:
        address: The new address.
        reason: The gateway's own word.
    """

    address: Address
    reason: str = "moved"


@dataclass(frozen=True, slots=True)
class Throttled(_Worded):
    """Over a rate: wait `after` seconds (None: the gateway named no time) before anything more in this scope.

    `named` is False where no endpoint had a part in it, such as a rate of our own: then the scope is held on this word
    alone. Else a scope wider than the endpoint is held when a second, independent endpoint says the same; until then
    this one waits alone.

    Attributes:
        reason: The gateway's own word.
    """

    after: float | None = None
    scope: Scope = Scope.ENDPOINT
    reason: str = "throttled"
    named: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Unavailable(_Worded):
    """No verdict: refused connection, reset, time-out, 5xx. `sent` says whether the gateway may have taken the message.

    `named` is False where no endpoint had a part in it (no connection came about, a token endpoint did not answer); see
    `Throttled`. `cause` is any text that is the same for all attempts that one event ended (one connection's loss):
    they are one witness. Empty: an event of this attempt alone.

    Attributes:
        scope: The reach of the trouble.
        reason: The word for it, of the gateway or of the transport.
        after: The seconds that the gateway asks to wait; None where it names no time.
    """

    sent: Sent = "unknown"
    scope: Scope = Scope.ENDPOINT
    reason: str = "unavailable"
    after: float | None = None
    named: bool = field(default=True, compare=False)
    cause: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Misconfigured(_Worded):
    """A credential, topic or project of ours is wrong: the scope is parked and probed, no delivery is lost or counted.

    `named` is False where no endpoint had a part in it (a token endpoint refused the credential); see `Throttled`.

    Attributes:
        reason: The gateway's own word.
        scope: The reach of the fault.
    """

    reason: str
    scope: Scope = Scope.BINDING
    named: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Deferred(_Worded):
    """An event of our own ended the attempt: the gateway was not asked, or its answer was not awaited.

    Examples: too many requests wait here (overload), a pool that we close, time or a token used up while waiting here.
    The delivery goes back to the queue. No gate, attempt, budget or limiter is touched. It waits at least `after`
    seconds (None: a moment, with jitter), reported under `reason`.

    `sent` is `unknown` only where the request may have left before we ended it. Such a try counts as one attempt of
    this delivery, and `repeat` decides whether there is another: else a hanging transport would push to one device
    without limit.
    """

    reason: str
    after: float | None = None
    sent: Sent = "no"


Outcome: TypeAlias = Accepted | Rejected | Gone | Moved | Throttled | Unavailable | Misconfigured | Deferred

_TYPES: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("after", (int, float, NoneType)),
    ("since", (int, float, NoneType)),
    ("scope", (Scope,)),
    ("sent", (str,)),
    ("cause", (str,)),
    ("address", (Address,)),
)


_LONGEST = 1e300
"""Seconds that a float holds, and no outcome means."""


def flaw(outcome: object) -> str:
    """The reason for which a transport's answer is no outcome: its class, or a field of a wrong type; empty where it is
    one. A transport is a plugin, so its type checker may never have run."""
    if not isinstance(outcome, Outcome):
        return f"{type(outcome).__name__} is no outcome"
    for name, types in _TYPES:
        if hasattr(outcome, name) and not isinstance(getattr(outcome, name), types):
            return f"{name} of {type(outcome).__name__} is of type {type(getattr(outcome, name)).__name__}"
    for name in ("after", "since"):
        seconds = getattr(outcome, name, None)
        # NaN is neither before nor after anything, and an integer can be larger than any float.
        if seconds is not None and not -_LONGEST <= seconds <= _LONGEST and abs(seconds) != math.inf:
            return f"{name} of {type(outcome).__name__} is no time"
    if isinstance(outcome, Moved):
        address = outcome.address
        parts: tuple[object, ...] = (address.value, address.kind, address.group, address.identity)
        for part in parts:
            if not isinstance(part, str):
                return f"address of Moved has a part of type {type(part).__name__}"
    return ""
