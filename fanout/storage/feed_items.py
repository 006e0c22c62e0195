"""Feed items as rows, and rows as a page."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from fanout.core.feed import FeedItem, FeedPage, FeedQuery

__all__ = ["COMMON", "OWN", "common_of", "item_of", "own_of", "page_of"]

COMMON = {
    "uuid": ("id", "text"),
    "id": ("number", "bigint"),
    "external": ("external_id", "text"),
    "grp": ("group", "text"),
    "priority": ("priority", "text"),
    "created_at": ("created_at", "float8"),
    "expires_at": ("expires_at", "float8"),
    "display_until": ("display_until", "float8"),
    "fallback_at": ("fallback_at", "float8"),
}
"""The columns of an item that are the same for all users: the field of `FeedItem` that each holds, and its type."""
OWN = {
    "seq": "bigint",
    "modified_at": "float8",
    "read": "boolean",
    "action": "text",
    "deleted": "boolean",
    "writer": "bigint",
}
"""The columns of an item that each user has for herself, with their types: fields of `FeedItem` of these names."""
_FIELDS = (*(field for field, _ in COMMON.values()), "broadcast", "content", *OWN)
_NUMBER, _SEQ = _FIELDS.index("number"), _FIELDS.index("seq")

common_of = attrgetter(*(field for field, _ in COMMON.values()))
"""The values of the columns `COMMON` of an item."""
own_of = attrgetter(*OWN)
"""Those of the columns `OWN`."""


def item_of(row: Sequence[Any]) -> FeedItem:
    """The item of a row: the columns `COMMON`, the flag `broadcast`, the content as text, and the columns `OWN` of one
    user."""
    item = dict(zip(_FIELDS, row, strict=True))
    item["content"] = item["content"].encode()
    for flag in ("broadcast", "read", "deleted"):
        item[flag] = bool(item[flag])
    return FeedItem(**item)


def page_of(rows: Sequence[Sequence[Any]], query: FeedQuery, head: int, floor: int, topics: Sequence[str]) -> FeedPage:
    """The page of these rows, which are in no order and may be more than the query's limit."""
    newest = query.newest_before is not None
    until = min(head, query.until)
    ordered = sorted(rows, key=lambda row: -row[_NUMBER] if newest else row[_SEQ])
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
