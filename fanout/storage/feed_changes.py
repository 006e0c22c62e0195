"""A change of a feed item by its user: what it comes to."""

from __future__ import annotations

from fanout.core.feed import FeedChange, FeedItem, FeedWritten, change_item

__all__ = ["judge"]


def judge(
    change: FeedChange, item: FeedItem | None, device: tuple[int, int] | None, now: float
) -> tuple[FeedWritten, int]:
    """What it comes to, without a number yet; and the endpoint of its writer, 0 for none.

    `device` is the writer's (subscription, endpoint), (0, 0) where the change names none, None where what it names is unknown.
    """
    if item is None or (item.deleted and not change.delete):
        return FeedWritten(problem="missing"), 0
    if device is None:
        return FeedWritten(problem="device"), 0
    writer, endpoint = device
    if change.if_match is not None and change.if_match != item.seq:
        return FeedWritten(item=item, id=item.id, seq=item.seq, problem="stale"), 0
    after = item if item.deleted else change_item(item, change, seq=0, now=now, writer=writer)
    if after is item:
        return FeedWritten(item=item, id=item.id, seq=item.seq, changed=False), 0
    return FeedWritten(item=after, id=item.id), endpoint
