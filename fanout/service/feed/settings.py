"""How long things of the feed last, how large they are, and how many streams may be open."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fanout.errors import UsageError

__all__ = ["FeedSettings"]

_DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSettings:
    """All times in seconds."""

    content_bytes: int = 65_536
    """Of one item's content, as JSON, independent of the limits of the gateways. `[service.limits] content_bytes` sets
    it."""
    page_bytes: int = 1_048_576
    """Of the contents in one page of the feed, after which the page ends. The last 32 items may go beyond it."""

    expiry: float = 7 * _DAY
    """How long an item stays unless its post says otherwise (Microsoft Graph: 7 days)."""
    longest_expiry: float = 30 * _DAY
    """The longest that a post may ask for (Microsoft Graph: 30 days)."""
    burst: float = 5.0
    """A user's changes within this time after a first one are one push to each of her other devices: the change itself
    where it was one, else a bare signal to fetch. Open streams are told at once. With 0 every change is pushed at
    once."""
    subscription: float = 30 * _DAY
    """How long a subscription lasts until it is renewed. A WNS channel lives 30 days."""
    subscriptions_per_user: int = 50
    """Subscriptions of one user; with one more, the one that was renewed longest ago ends. `[service.limits]
    subscriptions` sets it."""
    warning: float = 3 * _DAY
    """How long before its end a subscription is called expiring."""
    heartbeat: float = 15.0
    """Between two signs of life on an event stream; the caller's token is looked at again that often."""
    poll: float = 0.03
    """Between two looks at the commits of other processes, while a stream is open."""
    streams: int = 20_000
    """Event streams open at once in this process."""
    streams_per_user: int = 32
    """Event streams of one user open at once in this process."""
    backlog: int = 500
    """Changes that a stream may lie behind before its reader is told to begin anew."""
    patience: float = 60.0
    """How long a reader may leave a stream's bytes lying before it is closed."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if not getattr(self, each.name) > 0 and (each.name != "burst" or self.burst != 0):
                raise UsageError(f"feed.{each.name} is {getattr(self, each.name)!r}: it must be above zero.")
        if self.expiry > self.longest_expiry:
            raise UsageError(f"feed.expiry is {self.expiry:g}: it must not be above longest_expiry.")
