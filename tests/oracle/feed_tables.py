"""What the model holds of the feed."""

from __future__ import annotations

from dataclasses import dataclass, field

from fanout.core.feed import FeedItem, Subscription

__all__ = ["Entry", "FeedTables"]


@dataclass(slots=True, eq=False)
class Entry:
    """An item as it was posted, for a user or (the user "") for everybody, and what single users did with one of
    everybody's."""

    app: str
    user: str
    topic: str | None
    item: FeedItem
    digest: str | None = None
    pushes: tuple[str, ...] = ()
    states: dict[str, FeedItem] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)


@dataclass(slots=True)
class FeedTables:
    """`fallbacks` has, by notification, the item that a scheduled fallback goes with and the number of its post.
    `receive` is what endpoints want that did not come for pushes. `erased` has the number and time of each erasure by
    (app, digest of the user). `looked` has, by (app, user), the number of the item up to which she has seen her feed,
    and that of the change."""

    identity: int = 0
    seq: int = 0
    floor: int = 0
    last_item: int = 0
    last_subscription: int = 0
    items: dict[int, Entry] = field(default_factory=dict)
    subscriptions: dict[int, Subscription] = field(default_factory=dict)
    fallbacks: dict[str, tuple[Entry, int]] = field(default_factory=dict)
    receive: dict[int, str] = field(default_factory=dict)
    erased: dict[tuple[str, bytes], tuple[int, float]] = field(default_factory=dict)
    looked: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def next_seq(self, numbers: int = 1) -> int:
        """The last of so many new numbers of the sequence of changes."""
        self.seq += numbers
        return self.seq
