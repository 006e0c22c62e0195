"""Counts that follow from what has come are those that would be read, and else they are read."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fanout.core.counts import Counts
from fanout.core.feed import FeedItem


def item(number: int, seq: int, *, read: bool = False, deleted: bool = False, changed: bool = False) -> FeedItem:
    return FeedItem(
        id=str(number),
        number=number,
        seq=seq,
        external_id=None,
        group=None,
        priority="none",
        content=b"{}",
        created_at=1.0,
        modified_at=2.0 if changed else None,
        expires_at=9.0,
        display_until=None,
        fallback_at=None,
        read=read,
        deleted=deleted,
    )


def read(items: list[FeedItem], seen: int, seq: int) -> Counts:
    """What a storage would answer."""
    there = [each for each in items if not each.deleted]
    return Counts(
        unread=sum(not each.read for each in there),
        unseen=sum(each.number > seen for each in there),
        seen=seen,
        seq=seq,
    )


STATES = st.tuples(st.booleans(), st.booleans(), st.booleans())


@given(st.lists(STATES, max_size=6), st.lists(STATES, max_size=6), st.integers(0, 12), st.integers(0, 3))
def test_what_is_told_is_what_would_be_read(
    before: list[tuple[bool, bool, bool]], later: list[tuple[bool, bool, bool]], seen: int, known_too: int
) -> None:
    """Items that were counted before may come once more: a stream's page begins where its reader was."""
    made = [item(n, n, read=r, deleted=d, changed=c or r or d) for n, (r, d, c) in enumerate(before, 1)]
    after = [item(n, n, read=r, deleted=d, changed=c or r or d) for n, (r, d, c) in enumerate(later, len(made) + 1)]
    head = len(made) + len(after)
    counts = read(made, seen, len(made)).after(made[-known_too:] + after, head)
    if any(each.modified_at is not None for each in after):
        assert counts is None
    else:
        assert counts == read(made + after, seen, head)


def test_a_new_item_that_was_seen_already_is_unread_only() -> None:
    assert Counts(seen=5).after([item(5, 9)], 9) == Counts(unread=1, seen=5, seq=9)
    assert Counts(seen=5).after([item(6, 9)], 9) == Counts(unread=1, unseen=1, seen=5, seq=9)
    assert Counts(seq=9, unread=1).after([item(6, 9)], 9) == Counts(seq=9, unread=1)
    assert Counts().after([replace(item(1, 1), read=True)], 1) is None
