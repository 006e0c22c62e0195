"""How long, how often and how patiently: the numbers behind every decision, with their defaults."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fanout.errors import UsageError

__all__ = ["Policy", "Retention", "backoff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The limits of one app's deliveries; all times in seconds."""

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
    checkpoint: float = 0.05
    probe: float = 30.0
    """Between two probes of a parked scope."""

    def __post_init__(self) -> None:
        for name in ("attempts", "backoff_base", "backoff_cap", "request_timeout", "lease", "checkpoint", "probe"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)!r}: it must be above zero.")
        if self.lease < 2 * self.checkpoint:
            raise UsageError(
                f"lease is {self.lease} s: it must be at least twice the checkpoint ({self.checkpoint} s)."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """For how long finished things are kept, in seconds."""

    notifications: float = 7 * 86_400.0
    idempotency_keys: float = 86_400.0
    quarantine: float = 30 * 86_400.0
    events: float = 7 * 86_400.0
    tombstones: float = 30 * 86_400.0
    """Deleted and expired feed items: a device that was away for longer reads its feed anew."""


def backoff(attempt: int, *, base: float, cap: float, rng: random.Random) -> float:
    """Seconds to wait after the `attempt`-th failure (from 1): full jitter, uniform in [0, min(cap, base x 2^(attempt-1))].

    Full jitter is AWS's FullJitterBackoffStrategy: of the usual shapes it spreads a cohort that failed together the widest.
    """
    ceiling = min(cap, base * 2.0 ** min(max(attempt, 1) - 1, 60))
    return rng.uniform(0.0, ceiling)
