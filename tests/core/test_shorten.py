"""A text that is cut fits, is a beginning of what it was, tears no character apart, and says that it was cut."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.model import Notification
from fanout.core.shorten import MARK, cut, fitted
from fanout.errors import MessageTooLarge

LETTERS = ["a", "\u00e9", "e\u0301", "\u0915\u094d\u0937", "\r\n", "\u200d", "\u0301", "\u200c", '"', "\\"]
EMOJI = ["\U0001f469\u200d\U0001f680", "\u2764\ufe0f", "\U0001f44b\U0001f3fd", "\U0001f1e9\U0001f1ea", "\U0001f1eb"]
PARTS = st.sampled_from([*LETTERS, *EMOJI, "\U0001f3f4\U000e0067\U000e0062\U000e007f"])
TEXTS = st.lists(PARTS, max_size=30).map("".join) | st.text(max_size=40)


@given(TEXTS, st.integers(0, 200))
def test_a_cut_text_fits_and_tears_nothing_apart(text: str, size: int) -> None:
    made = cut(text, size)
    assert len(made.encode()) <= size
    if len(text.encode()) <= size:
        assert made == text
        return
    if not made:
        assert size < len(MARK.encode())
        return
    assert made.endswith(MARK)
    kept = made.removesuffix(MARK) if not text.startswith(made) else made[:-1]
    assert text.startswith(kept)
    if not kept:
        return
    following = text[len(kept)]
    assert unicodedata.combining(following) == 0
    assert not unicodedata.category(following).startswith("M")
    assert following not in ("\u200c", "\u200d", "\ufe0e", "\ufe0f")
    assert not "\U0001f3fb" <= following <= "\U0001f3ff"
    assert not "\U000e0020" <= following <= "\U000e007f"
    assert kept[-1] != "\u200d"
    if "\U0001f1e6" <= following <= "\U0001f1ff":
        flags = len(kept) - len(kept.rstrip("".join(map(chr, range(0x1F1E6, 0x1F200)))))
        assert flags % 2 == 0


@given(TEXTS, st.integers(3, 200))
def test_it_is_the_longest_that_does(text: str, size: int) -> None:
    """A larger room never gives less."""
    assert len(cut(text, size)) <= len(cut(text, size + 1)) + 1


def limited(limit: int, each: int = 1) -> object:
    """A gateway that counts a character so often."""

    def prepare(notification: Notification) -> Notification:
        size = each * len(f"{notification.title or ''}{notification.body or ''}".encode()) + len(
            str(dict(notification.data))
        )
        if size > limit:
            raise MessageTooLarge("too large", size=size, limit=limit)
        return notification

    return prepare


@given(TEXTS, TEXTS, st.integers(10, 300), st.integers(1, 6))
def test_the_body_gives_way_before_the_title(title: str, body: str, limit: int, each: int) -> None:
    whole = Notification(title="t" + title, body=body)
    prepare = limited(limit, each)
    try:
        made, shortened = fitted(prepare, whole)  # type: ignore[arg-type]
    except MessageTooLarge:
        assert each * 3 + 2 > limit - each * 3, "only where not even the marks fit"
        return
    assert isinstance(made, Notification)
    assert shortened == ((made.title, made.body) != (whole.title, whole.body))
    if made.title != whole.title:
        assert made.body in (MARK, "", None)


def test_what_is_no_text_is_not_cut() -> None:
    with pytest.raises(MessageTooLarge):
        fitted(limited(100), Notification(title="t", body="b", data={"x": "y" * 200}))  # type: ignore[arg-type]
