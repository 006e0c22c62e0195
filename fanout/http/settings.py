"""The behaviour of a pool, and its counters."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

__all__ = ["PoolSettings", "PoolStats", "figures_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """All times in seconds. Raises `ValueError` for a number that cannot work."""

    connections: int = 2
    """Connections to the origin; the second is opened when the first is more than half used."""
    streams: int = 500
    """Requests in flight per connection at most, even where the gateway allows more: beyond it answers only wait
    longer."""
    max_waiting: int = 1000
    """Requests that may wait for a connection or a free stream; the next fails at once, reason `overload`."""
    request_timeout: float = 15.0
    connect_timeout: float = 10.0
    """For name lookup, TCP, TLS and the gateway's SETTINGS together."""
    idle_ping: float = 200.0
    """Silence after which an unused connection is asked whether it lives. Below the 240 s and 350 s of common NAT
    tables."""
    stall_ping: float = 4.0
    """The same for a connection that owes an answer."""
    ping_timeout: float = 8.0
    max_age: float | None = 12 * 3600.0
    """A connection is replaced at this age, give or take a tenth. Apple asks for hours to days."""
    idle_close: float | None = None
    """Silence after which an unused connection is closed; None keeps it."""
    dns_interval: float | None = 60.0
    """Between two looks whether the name still leads to the connections' addresses; three misses replace a
    connection."""
    first_alone: bool = False
    """Send one request alone on a new connection until it is answered with anything but 401 and 403.

    APNs with a provider token allows one stream until then.
    """
    max_body: int = 65_536
    """Bytes of an answer's body that are kept."""
    backoff_base: float = 0.5
    backoff_cap: float = 30.0
    """Between two connects after failures: full jitter, doubling from the base to the cap."""
    warm: float = 60.0
    """For how long after its last request a pool replaces a lost connection without being asked."""
    tick: float = 0.25
    """How often deadlines, cancellations and PINGs are looked at: their precision."""

    def __post_init__(self) -> None:
        may_be_zero = ("max_waiting", "max_body", "warm", "first_alone")
        for setting in fields(self):
            value = getattr(self, setting.name)
            if value is not None and setting.name not in may_be_zero and not value > 0:
                raise ValueError(f"{setting.name} is {value!r}: it must be above zero.")


@dataclass(slots=True)
class PoolStats:
    """Counters since the pool was opened. `failed` counts requests by the reason of their `RequestFailed`."""

    opened: int = 0
    connect_failures: int = 0
    lost: int = 0
    goaways: int = 0
    retired: int = 0
    pings: int = 0
    cancelled: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    last_trouble: str = ""
    """The last failed connect, lost connection or broken rule, in words, for people."""

    def count_failed(self, reason: str) -> None:
        """One more request failed for `reason`."""
        self.failed[reason] = self.failed.get(reason, 0) + 1


def figures_of(stats: PoolStats, connections: int, requests: int) -> dict[str, int]:
    """The figures of a transport's `stats` (`fanout.plugin.Transport`): those of this moment, and the counts."""
    return {
        "connections": connections,
        "requests": requests,
        **{each.name: getattr(stats, each.name) for each in fields(stats) if isinstance(each.default, int)},
        "failed": sum(stats.failed.values()),
    }
