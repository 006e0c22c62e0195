"""Cursors: they come back as they were, sort as they cover, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.core.cursor import CURSOR_LENGTH, Cursor, Listing, parse, topics_digest
from fanout.errors import UsageError

DATABASES = st.integers(0, 2**32 - 1)
NUMBERS = st.integers(0, 2**62)
TOPICS = st.integers(0, 2**24 - 1)


@settings(deadline=None)
@given(DATABASES, NUMBERS, TOPICS)
def test_a_cursor_comes_back(database: int, seq: int, topics: int) -> None:
    cursor = Cursor(database, seq, topics)
    assert len(str(cursor)) == CURSOR_LENGTH
    assert parse(str(cursor)) == Cursor.parse(str(cursor)) == cursor


@settings(deadline=None)
@given(DATABASES, NUMBERS, TOPICS, NUMBERS, st.booleans())
def test_a_listing_comes_back(database: int, seq: int, topics: int, position: int, newest: bool) -> None:
    listing = Listing(database, seq, topics, position, newest)
    assert parse(str(listing)) == listing
    assert listing.then == Cursor(database, seq, topics)


@settings(deadline=None)
@given(DATABASES, NUMBERS, NUMBERS, TOPICS)
def test_the_greater_text_covers_the_smaller(database: int, one: int, two: int, topics: int) -> None:
    # What a push carries knows nothing of the reader's topics.
    pushed, reader = str(Cursor(database, one)), str(Cursor(database, two, topics))
    assert (reader >= pushed) == (two >= one)


@settings(deadline=None)
@given(st.text(max_size=64))
def test_nothing_else_is_a_cursor(text: str) -> None:
    try:
        found = parse(text)
    except UsageError:
        return
    assert str(found) == text


@pytest.mark.parametrize("text", ["", "0" * 26, "V" * 26, str(Cursor(1, 2)) + "0" * 13, str(Listing(1, 2, 3, 4))[:-1]])
def test_near_misses(text: str) -> None:
    with pytest.raises(UsageError, match="none of this service"):
        parse(text)


def test_topics() -> None:
    assert topics_digest(["a", "b"]) == topics_digest(["b", "a"])
    assert topics_digest(["a"]) != topics_digest(["b"])
    assert topics_digest([]) != 0
