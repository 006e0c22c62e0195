"""How many items of a feed its user has not read, and how many have come since she last looked. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fanout.core.feed import FeedItem

__all__ = ["Counts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of the items that are there for one user, as they were at the change `seq` of the database.

    `unread` are those without her mark. `unseen` are those of a number above `seen`, which only she moves, and only
    forward: a read one too.
    """

    unread: int = 0
    unseen: int = 0
    seen: int = 0
    seq: int = 0

    def after(self, items: Iterable[FeedItem], seq: int) -> Counts | None:
        """The counts once these items have changed, up to `seq`; None where they must be read.

        An item that has just been posted adds one. Of any other change the former count of the item is not known.
        """
        unread, unseen = self.unread, self.unseen
        for item in items:
            if item.seq <= self.seq:
                continue
            if item.deleted or item.read or item.modified_at is not None:
                return None
            unread += 1
            unseen += item.number > self.seen
        return replace(self, unread=unread, unseen=unseen, seq=max(self.seq, seq))
