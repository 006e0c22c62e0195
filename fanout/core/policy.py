"""The numbers behind every decision, with their defaults: times, attempts and limits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from fanout.core.records import Backlog
from fanout.errors import UsageError, refuse

__all__ = ["BacklogLimits", "Policy", "Retention", "backoff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The limits of one app's deliveries; all times in seconds.

    Attributes:
        backoff_base, backoff_cap: The base of the back-off, which doubles with each attempt, and its longest.
        request_timeout: The time of one request.
        lease: The time of a lease, which is extended while its deliveries are under way.
        checkpoint: The time between two commits of results: a crash repeats the deliveries that were sent since.

    Raises:
        UsageError: A number cannot work, such as a lease that is shorter than two checkpoints.
    """

    attempts: int = 10
    """Attempts that cost something, after which a delivery is dead."""
    backoff_base: float = 1.0
    backoff_throttled: float = 30.0
    """The base where a gateway throttles and names no time: FCM and Apple both speak of minutes, not seconds."""
    backoff_cap: float = 3600.0
    retry_after_cap: float = 3600.0
    """A `Retry-After` beyond this is taken as this: a lying or broken gateway must not park a delivery for ever."""
    free_retries: int = 3
    """Immediate retries on another connection, after which the group's gate closes."""
    zero_ttl_grace: float = 30.0
    """How long a notification of TTL 0 may take to its only attempt: "now" includes a connect and a busy queue."""
    request_timeout: float = 15.0
    lease: float = 30.0
    heartbeat: float = 10.0
    """For how long a worker counts as alive after it was last heard of; one that works says so ten times in it. Where
    others share the database, they take over its leases when that time or the lease is over, whichever comes first."""
    checkpoint: float = 0.05
    probe: float = 30.0
    """Between two probes of a parked scope."""
    ramp: float = 1.0
    """After an outage a gateway gets a tenth of the usual load at first, and twice as much after each such interval."""
    retry_ratio: float = 0.2
    """Retries that each accepted delivery of a binding pays for; see `core.budget`."""
    retry_burst: float = 100.0
    """Retries of a binding that may be made on credit."""
    retry_floor: float = 1.0
    """Retries a second of a binding that may be made although nothing is accepted."""

    def __post_init__(self) -> None:
        refuse(self._problems(), UsageError)

    def _problems(self) -> Iterator[str]:
        for name in (
            "attempts",
            "backoff_base",
            "backoff_cap",
            "request_timeout",
            "lease",
            "heartbeat",
            "checkpoint",
            "probe",
        ):
            if not getattr(self, name) > 0:
                yield f"{name} is {getattr(self, name)!r}: it must be above zero."
        if self.ramp < 0 or self.retry_ratio < 0 or self.retry_burst < 1 or self.retry_floor <= 0:
            yield (
                "ramp and retry_ratio must not be negative, retry_burst must be at least 1 and retry_floor above zero: "
                "a budget that nothing ever fills would park retries for good."
            )
        if self.lease < 2 * self.checkpoint:
            yield f"lease is {self.lease} s: it must be at least twice the checkpoint ({self.checkpoint} s)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """The time for which finished things are kept, in seconds.

    Attributes:
        notifications, idempotency_keys, events: Notifications and their counts, idempotency keys, and lines of the
            event log.
        quarantine: Endpoints that are gone, removed or expired, which can be restored until then.
    """

    notifications: float = 7 * 86_400.0
    idempotency_keys: float = 86_400.0
    quarantine: float = 30 * 86_400.0
    events: float = 7 * 86_400.0
    tombstones: float = 30 * 86_400.0
    """Deleted and expired feed items: a device that was away for longer reads its feed anew."""
    audit: float = 365 * 86_400.0
    """Lines of the audit log (`core.audit`), which `events` does not limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogLimits:
    """The bounds beyond which `send` takes nothing more of an app, because too much of it is waiting already. None
    means no bound.

    Attributes:
        deliveries: The number of deliveries that wait.
        bytes: The bytes of content that wait.
        age: The seconds for which the oldest has been due.
        wait: The seconds for which `send` waits for room before it raises `Backlogged`.

    Raises:
        UsageError: A bound is not above zero, or `wait` is negative.
    """

    deliveries: int | None = None
    bytes: int | None = None
    age: float | None = None
    wait: float = 0.0

    def __post_init__(self) -> None:
        refuse(self._problems(), UsageError)

    def _problems(self) -> Iterator[str]:
        for name in ("deliveries", "bytes", "age"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                yield f"{name} is {value!r}: it must be above zero, or left out for no bound."
        if self.wait < 0:
            yield f"wait is {self.wait!r}: it must not be negative."

    @property
    def any(self) -> bool:
        """Whether there is a bound at all."""
        return not (self.deliveries is None and self.bytes is None and self.age is None)

    def passed(self, backlog: Backlog, now: float) -> str:
        """The bound that a backlog has passed.

        Args:
            backlog: The accepted work that has not ended.
            now: The present time, in UNIX seconds.

        Returns:
            A sentence that names the bound; empty where there is room.
        """
        if self.deliveries is not None and backlog.deliveries >= self.deliveries:
            return f"{backlog.deliveries} deliveries wait, and the bound is {self.deliveries}"
        if self.bytes is not None and backlog.bytes >= self.bytes:
            return f"{backlog.bytes} bytes of content wait, and the bound is {self.bytes}"
        if self.age is not None and backlog.oldest_at is not None and now - backlog.oldest_at >= self.age:
            return f"the oldest delivery has waited {now - backlog.oldest_at:.0f} s, and the bound is {self.age:g} s"
        return ""


def backoff(attempt: int, *, base: float, cap: float, rng: random.Random) -> float:
    """Seconds to wait after the `attempt`-th failure (from 1): full jitter, uniform in [0, min(cap, base x
    2^(attempt-1))].

    Full jitter is AWS's FullJitterBackoffStrategy: of the usual shapes it spreads a cohort that failed together the
    widest.
    """
    ceiling = min(cap, base * 2.0 ** min(max(attempt, 1) - 1, 60))
    return rng.uniform(0.0, ceiling)
