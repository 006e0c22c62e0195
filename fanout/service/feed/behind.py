"""The changes that a stream's reader lacks, read in parts, so that its memory is bounded in bytes as well as in
items."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fanout.core.cursor import Cursor, Listing, topics_digest
from fanout.core.feed import FeedItem, FeedPage, FeedQuery
from fanout.plugin import Feed

if TYPE_CHECKING:
    from fanout.service.feed.streams import EventStream

__all__ = ["fresh", "read_behind"]

_PART = 8
"""Items that are read from storage at once: half a megabyte where each has the largest content."""
_BYTES = 262_144
"""Of contents, after which the items that have been read are sent before more is read."""


async def read_behind(feed: Feed, stream: EventStream, after: int, now: float, *, backlog: int) -> FeedPage:
    """The changes after that `seq`. Where it ends for its size, the stream is `behind` still, and reads on when it is
    sent.

    `more` says that the reader lacks over `backlog` changes, those counted that it has had since it was up to date: it
    had better begin anew. Items that are read are noted as there, where a fallback would be sent to the device
    otherwise.
    """
    items: tuple[FeedItem, ...] = ()
    size, cut = 0, False
    while True:
        query = FeedQuery(after=after, status=None, limit=min(_PART, backlog - stream.lag - len(items)))
        page = await feed.read(stream.app, stream.user, query, now)
        items += page.items
        size += sum(len(item.content) for item in page.items)
        if not page.more or stream.lag + len(items) >= backlog:
            break
        if size >= _BYTES:
            cut = stream.behind = True
            break
        after = page.seq
    stream.lag = stream.lag + len(items) if cut else 0
    page = replace(page, items=items, more=page.more and not cut)
    if stream.subscription is not None and not page.more:
        awaited = [item.id for item in items if item.fallback_at is not None and item.fallback_at > now]
        if awaited:
            await feed.fetched(stream.app, stream.user, stream.subscription.unsid, awaited, now)
    return page


def fresh(position: Cursor | Listing, page: FeedPage) -> bool:
    """Whether a reader at `position` can have missed nothing: no tombstone of later has been deleted, and its topics
    are the same."""
    if position.topics and position.topics != topics_digest(page.topics):
        return False
    return page.floor <= position.seq <= page.head
