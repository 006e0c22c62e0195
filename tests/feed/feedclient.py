"""A device that follows the cursor of a feed."""

from __future__ import annotations

from fanout.core.cursor import topics_digest
from fanout.core.feed import (
    FeedItem,
    FeedPage,
    FeedQuery,
)


class Client:
    """A device's copy of a feed, kept as the service's cursors say: the whole as it was at one moment, then what has
    changed."""

    def __init__(self) -> None:
        self.seq: int | None = None
        self.position: int | None = 0
        self.topics = 0
        self.items: dict[str, FeedItem] = {}

    @property
    def query(self) -> FeedQuery:
        if self.position is None:
            return FeedQuery(after=self.seq or 0, status=None)
        return FeedQuery(after=self.position, until=2**62 if self.seq is None else self.seq)

    def stale(self, page: FeedPage) -> bool:
        """Whether the service would send this reader back to the beginning."""
        return self.seq is not None and (page.floor > self.seq or self.topics != topics_digest(page.topics))

    def take(self, page: FeedPage) -> None:
        for item in page.items:
            known = self.items.get(item.id)
            assert known is None or item.seq > known.seq, "what a client has does not come again"
            self.items[item.id] = item
        if self.position is None:
            self.seq = page.seq
        else:
            self.seq = page.head if self.seq is None else self.seq
            self.position = page.seq if page.more else None
        self.topics = topics_digest(page.topics)
