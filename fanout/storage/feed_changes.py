"""The effect of changes of feed items by their user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fanout.core.feed import FeedBulk, FeedChange, FeedItem, FeedPage, FeedWritten, change_item

__all__ = ["Decided", "judge", "judge_all", "numbered"]

Decided = tuple[FeedWritten, list[FeedItem], int]
"""The result of a change, and the items after it, without numbers yet; and the endpoint of its writer, 0 for none."""


def judge(change: FeedChange, item: FeedItem | None, device: tuple[int, int] | None, now: float) -> Decided:
    """Of one item.

    `device` is the writer's (subscription, endpoint), (0, 0) where the change names none, None where it names an
    unknown one.
    """
    if item is None or (item.deleted and not change.delete):
        return FeedWritten(problem="missing"), [], 0
    if device is None:
        return FeedWritten(problem="device"), [], 0
    writer, endpoint = device
    if change.if_match is not None and change.if_match != item.seq:
        return FeedWritten(item=item, id=item.id, seq=item.seq, problem="stale"), [], 0
    after = item if item.deleted else change_item(item, change, seq=0, now=now, writer=writer)
    if after is item:
        return FeedWritten(item=item, id=item.id, seq=item.seq, changed=False), [], 0
    return FeedWritten(item=after, id=item.id), [after], endpoint


def judge_all(bulk: FeedBulk, page: FeedPage, device: tuple[int, int] | None, now: float) -> Decided:
    """Of every item of the page. `device` as for `judge`."""
    if device is None:
        return FeedWritten(problem="device"), [], 0
    writer, endpoint = device
    after = [
        (item, change_item(item, bulk.one(item), seq=0, now=now, writer=writer))
        for item in page.items
        if not item.deleted
    ]
    items = [made for item, made in after if made is not item]
    written = FeedWritten(seq=page.head, changed=bool(items), count=len(items), more=page.more, position=page.seq)
    return written, items, endpoint


def numbered(written: FeedWritten, items: Sequence[FeedItem], last: int) -> tuple[FeedWritten, list[FeedItem]]:
    """Both, under the numbers of the sequence of changes that end with `last`."""
    made = [replace(item, seq=seq) for seq, item in enumerate(items, last - len(items) + 1)]
    return replace(written, item=made[-1] if written.item is not None else None, seq=last), made
