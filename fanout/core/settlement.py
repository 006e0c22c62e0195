"""What an outcome means for its delivery: the one place where that is decided.

`decide` is a table of the eight outcomes. It returns a value; the engine carries it out.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TypeAlias

from fanout.core.address import Address
from fanout.core.model import Repeat
from fanout.core.outcome import (
    Accepted,
    Deferred,
    Gone,
    Misconfigured,
    Moved,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.core.policy import Policy, backoff
from fanout.core.states import DeliveryState, Waiting

__all__ = ["Again", "Attempted", "Decision", "Final", "Park", "Relocate", "Retry", "Wait", "decide"]

_OWN = 1.0
"""Seconds that a delivery waits at most after an event of our own for which no time is known."""


@dataclass(frozen=True, slots=True)
class Attempted:
    """What `decide` must know of a delivery. Times are UNIX seconds.

    `attempt` counts the attempts that cost something, this one included; `free` the immediate retries so far.
    """

    attempt: int
    free: int
    expires_at: float
    registered_at: float
    repeat: Repeat = "prefer_delivery"
    once: bool = False
    """TTL 0: the gateway was told now or never, so no second attempt is owed."""
    group_failing: bool = False
    """The group's gate has closed: this failure is the group's, not the endpoint's."""


@dataclass(frozen=True, slots=True)
class Final:
    """The delivery has ended in `state`. `endpoint_gone` asks for the endpoint to be quarantined."""

    state: DeliveryState
    reason: str
    endpoint_gone: bool = False
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Retry:
    """A retry row of its own, due at `due_at`, for the attempt numbered `attempt`."""

    due_at: float
    attempt: int
    reason: str
    waiting: Waiting = Waiting.BACKOFF


@dataclass(frozen=True, slots=True)
class Again:
    """At once, on another connection: nothing reached the gateway, so nothing is spent."""

    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """Everything in `scope` waits, `after` seconds at least; this delivery stays open in its chunk and spends nothing.

    How long in the end is for the scope's gate to say, which knows how often it has closed before.
    """

    scope: Scope
    after: float | None
    reason: str
    waiting: Waiting
    alarm: bool = False


@dataclass(frozen=True, slots=True)
class Relocate:
    """The endpoint's address changes; the delivery goes to the new one at once."""

    address: Address
    retry: Retry


@dataclass(frozen=True, slots=True)
class Wait:
    """Back to the queue until `due_at`: nothing was asked of the gateway, so nothing is spent and no scope is closed."""

    due_at: float
    reason: str
    waiting: Waiting = Waiting.LIMITER


Decision: TypeAlias = Final | Retry | Again | Park | Relocate | Wait


def decide(outcome: Outcome, tried: Attempted, policy: Policy, now: float, rng: random.Random) -> Decision:
    """What `outcome` means for the delivery `tried` at `now` (UNIX seconds). Pure: the jitter comes from `rng`."""
    match outcome:
        case Accepted():
            return Final(DeliveryState.ACCEPTED, "")
        case Rejected(reason):
            return Final(DeliveryState.REJECTED, reason)
        case Gone(reason, since, certain):
            if since is not None and tried.registered_at > since:
                # Registered again after the gateway's verdict: the app was reinstalled, the endpoint is alive.
                return Final(DeliveryState.REJECTED, f"{reason} (before its registration)")
            return Final(DeliveryState.GONE, reason, endpoint_gone=True, certain=certain)
        case Moved(address, reason):
            if not address.storable:
                return Final(DeliveryState.REJECTED, f"{reason}, to an address that cannot be stored")
            return Relocate(address, Retry(now, tried.attempt + 1, reason))
        case Throttled(after, scope, reason):
            if scope is not Scope.ENDPOINT:
                return Park(scope, _told(after, policy, rng), reason, Waiting.QUOTA)
            wait = _told(after, policy, rng)
            if wait is None:
                wait = backoff(tried.attempt, base=policy.backoff_throttled, cap=policy.backoff_cap, rng=rng)
            return _retry(now + wait, tried, policy, reason)
        case Unavailable("no", scope, reason, after):
            if after is None and tried.free < policy.free_retries and not tried.group_failing:
                return Again(reason)
            return Park(_wide(scope), _told(after, policy, rng), reason, Waiting.GATE)
        case Unavailable(_, scope, reason, after):
            if tried.repeat != "prefer_delivery":
                return Final(DeliveryState.DEAD, f"unknown: {reason}")
            if scope is not Scope.ENDPOINT or tried.group_failing:
                return Park(_wide(scope), _told(after, policy, rng), reason, Waiting.GATE)
            jittered = backoff(tried.attempt, base=policy.backoff_base, cap=policy.backoff_cap, rng=rng)
            return _retry(now + max(jittered, _told(after, policy, rng) or 0.0), tried, policy, reason)
        case Misconfigured(reason, scope):
            return Park(scope, policy.probe, reason, Waiting.BREAKER, alarm=True)
        case Deferred(reason, after, "no"):
            due_at = now + _moment(after, policy, rng)
            return Wait(due_at, reason) if due_at < tried.expires_at else Final(DeliveryState.EXPIRED, reason)
        case Deferred(reason, after):
            if tried.repeat != "prefer_delivery":
                return Final(DeliveryState.DEAD, f"unknown: {reason}")
            return _retry(now + _moment(after, policy, rng), tried, policy, reason, Waiting.LIMITER)


def _wide(scope: Scope) -> Scope:
    return Scope.GROUP if scope is Scope.ENDPOINT else scope


def _told(after: float | None, policy: Policy, rng: random.Random) -> float | None:
    """The gateway's own time, never less, capped; and a little more, so that a cohort told one second does not return as one."""
    if after is None or math.isnan(after):
        return None
    told = min(max(after, 0.0), policy.retry_after_cap)
    return told + rng.uniform(0.0, 0.1 * told + policy.backoff_base)


def _moment(after: float | None, policy: Policy, rng: random.Random) -> float:
    """How long an event of our own holds a delivery back: never so short that it is tried in a loop."""
    least = min(policy.backoff_base, _OWN) / 2
    return min(max(after or 0.0, least), policy.retry_after_cap) + rng.uniform(0.0, least)


def _retry(
    due_at: float, tried: Attempted, policy: Policy, reason: str, waiting: Waiting = Waiting.BACKOFF
) -> Decision:
    if tried.attempt >= policy.attempts:
        return Final(DeliveryState.DEAD, f"{tried.attempt} attempts: {reason}")
    if tried.once:
        return Final(DeliveryState.EXPIRED, f"ttl 0: {reason}")
    if due_at >= tried.expires_at:
        return Final(DeliveryState.EXPIRED, reason)
    return Retry(due_at, tried.attempt + 1, reason, waiting)
