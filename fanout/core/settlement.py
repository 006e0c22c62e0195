"""The decision that an outcome leads to for its delivery: the one place where it is made.

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

__all__ = [
    "Again",
    "Attempted",
    "Decision",
    "Final",
    "Park",
    "Relocate",
    "Retry",
    "Wait",
    "by_connection",
    "by_itself",
    "charge",
    "decide",
]

_OWN = 1.0
"""Seconds that a delivery waits at most after an event of our own for which no time is known."""


@dataclass(frozen=True, slots=True)
class Attempted:
    """The facts of a delivery that `decide` needs. Times are UNIX seconds.

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
    alone: bool = False
    """The endpoint's other deliveries wait too, although the gateway spoke of more than the endpoint: no other has said
    so."""


@dataclass(frozen=True, slots=True)
class Again:
    """At once, on another connection: nothing reached the gateway, so nothing is spent."""

    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """Everything in `scope` waits, `after` seconds at least; this delivery stays open in its chunk and spends nothing.

    How long in the end is for the scope's gate to say, which knows how often it has closed before. That holds where the
    scope is held, for which one endpoint's word is not enough (`named`, see `core.witness`); else `by_itself` gives the
    result for the delivery.
    """

    scope: Scope
    after: float | None
    reason: str
    waiting: Waiting
    alarm: bool = False
    named: bool = True


@dataclass(frozen=True, slots=True)
class Relocate:
    """The endpoint's address changes; the delivery goes to the new one at once."""

    address: Address
    retry: Retry


@dataclass(frozen=True, slots=True)
class Wait:
    """Back to the queue until `due_at`: nothing was asked of the gateway, so nothing is spent and no scope is
    closed."""

    due_at: float
    reason: str
    waiting: Waiting = Waiting.LIMITER


Decision: TypeAlias = Final | Retry | Again | Park | Relocate | Wait


def decide(outcome: Outcome, tried: Attempted, policy: Policy, now: float, rng: random.Random) -> Decision:
    """The decision about the delivery `tried` at `now` (UNIX seconds), from its `outcome`. Pure: the jitter comes from
    `rng`."""
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
        case Throttled(after, scope, reason, named):
            if scope is not Scope.ENDPOINT:
                return Park(
                    scope, _capped(after, policy, rng), reason, Waiting.QUOTA, named=named and scope is not Scope.RATE
                )
            wait = _capped(after, policy, rng)
            if wait is None:
                wait = backoff(tried.attempt, base=policy.backoff_throttled, cap=policy.backoff_cap, rng=rng)
            return _retry(now + wait, tried, policy, reason)
        case Unavailable("no", scope, reason, after):
            if after is None and tried.free < policy.free_retries and not tried.group_failing:
                return Again(reason)
            return charge(outcome, policy, rng)
        case Unavailable(_, _, reason, after):
            if tried.repeat != "prefer_delivery":
                return Final(DeliveryState.DEAD, f"unknown: {reason}")
            # An attempt of this one, even where its scope is held: else one device is pushed to at each probe, without
            # limit.
            jittered = backoff(tried.attempt, base=policy.backoff_base, cap=policy.backoff_cap, rng=rng)
            # Brought forward when its group is back (`rescheduling`). A gateway that comes and goes must not take all
            # attempts in a minute: those of the second half keep their distance.
            forward = tried.group_failing and after is None and 2 * tried.attempt <= policy.attempts
            waiting = Waiting.GATE if forward else Waiting.BACKOFF
            return _retry(now + max(jittered, _capped(after, policy, rng) or 0.0), tried, policy, reason, waiting)
        case Misconfigured(reason, scope, named):
            return Park(scope, policy.probe, reason, Waiting.BREAKER, alarm=True, named=named)
        case Deferred(reason, after, "no"):
            return _wait(after, reason, Waiting.LIMITER, tried, policy, now, rng)
        case Deferred(reason, after):
            if tried.repeat != "prefer_delivery":
                return Final(DeliveryState.DEAD, f"unknown: {reason}")
            return _retry(now + _moment(after, policy, rng), tried, policy, reason, Waiting.LIMITER)


def charge(outcome: Unavailable, policy: Policy, rng: random.Random) -> Park:
    """The evidence of a failure about its scope, or about its group where it speaks of the endpoint: apart from the
    result of its delivery."""
    scope = Scope.GROUP if outcome.scope is Scope.ENDPOINT else outcome.scope
    return Park(scope, _capped(outcome.after, policy, rng), outcome.reason, Waiting.GATE, named=outcome.named)


def by_itself(park: Park, times: int, tried: Attempted, policy: Policy, now: float, rng: random.Random) -> Decision:
    """The result of a delivery whose endpoint alone accuses a wider scope, for the `times`-th time (from 1).

    It waits for its own reason, twice as long each time, spends no attempt, and is asked once more before its TTL ends.
    """
    base = policy.backoff_throttled if park.waiting is Waiting.QUOTA else policy.backoff_base
    retry_after = 0.0 if park.alarm else park.after or 0.0  # by the gateway: it is not asked before
    ceiling = min(policy.backoff_cap, base * 2.0 ** min(times - 1, 30))
    wait = max(retry_after, ceiling / 2 + rng.uniform(0.0, ceiling / 2))
    left = tried.expires_at - now
    if wait >= left:
        wait = max(retry_after, left / 2)
        if wait >= left or wait < min(policy.backoff_base, _OWN) / 2:
            return Final(DeliveryState.EXPIRED, park.reason)
    # Of a topic, the endpoint's other notifications may go.
    return Retry(now + wait, tried.attempt, park.reason, park.waiting, alone=park.scope is not Scope.TOPIC)


def by_connection(park: Park, tried: Attempted, policy: Policy, now: float, rng: random.Random) -> Decision:
    """The result of a delivery that the end of a connection excluded (GOAWAY), where its group is not held for it.

    Its endpoint has no part in that: it waits for a moment, however often, and accuses nothing. A server that ends each
    connection after a few requests is no server in trouble (nginx, `keepalive_requests`).
    """
    return _wait(park.after, park.reason, park.waiting, tried, policy, now, rng)


def _wait(
    after: float | None,
    reason: str,
    waiting: Waiting,
    tried: Attempted,
    policy: Policy,
    now: float,
    rng: random.Random,
) -> Decision:
    due_at = now + _moment(after, policy, rng)
    return Wait(due_at, reason, waiting) if due_at < tried.expires_at else Final(DeliveryState.EXPIRED, reason)


def _capped(after: float | None, policy: Policy, rng: random.Random) -> float | None:
    """The gateway's own time, never less, capped; and a little more, so that a cohort told one second does not return
    as one."""
    if after is None or math.isnan(after):
        return None
    retry_after = min(max(after, 0.0), policy.retry_after_cap)
    return retry_after + rng.uniform(0.0, 0.1 * retry_after + policy.backoff_base)


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
