"""Feed items as rows, and rows as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.feed import FeedItem, FeedPage, FeedQuery

__all__ = ["item_of", "page_of"]

_SEQ = 10
"""Where a row has the number of its last change."""


def item_of(row: Sequence[Any]) -> FeedItem:
    """The item of a row: uuid, number, external id, group, priority, created at, expires at, display until, fallback at, whether it is
    everybody's; and, as it is for one user, seq, content as text, modified at, read, action, deleted, writer."""
    uuid, id, external, group, priority, created, expires, display, fallback, broadcast, *own = row
    seq, content, modified, read, action, deleted, writer = own
    return FeedItem(
        id=uuid,
        number=id,
        seq=seq,
        external_id=external,
        group=group,
        priority=priority,
        content=content.encode(),
        created_at=created,
        modified_at=modified,
        expires_at=expires,
        display_until=display,
        fallback_at=fallback,
        read=bool(read),
        action=action,
        deleted=bool(deleted),
        broadcast=bool(broadcast),
        writer=writer,
    )


def page_of(rows: Sequence[Sequence[Any]], query: FeedQuery, head: int, floor: int, topics: Sequence[str]) -> FeedPage:
    """The page of these rows, which are in no order and may be more than the query's limit."""
    newest = query.newest_before is not None
    until = min(head, query.until)
    ordered = sorted(rows, key=lambda row: -row[1] if newest else row[_SEQ])
    items = tuple(item_of(row) for row in ordered[: query.limit])
    more = len(ordered) > query.limit
    return FeedPage(
        items=items,
        seq=items[-1].seq if more and not newest else until,
        more=more,
        head=head,
        floor=floor,
        topics=tuple(topics),
    )
