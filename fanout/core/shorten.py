"""A visible notification that is too large for a gateway, with less text. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from fanout.core.model import Notification
from fanout.errors import MessageTooLarge

__all__ = ["MARK", "cut", "fitted"]

MARK = "\u2026"
"""Stands at the end of a text that was cut: one character, three bytes."""

_JOINER = "\u200d"
_BESIDE = ("M", "Cf", "Sk")
"""General categories (Unicode, chapter 4.5) of characters that belong to the one before: marks, variation selectors
among them; joiners and tags, which are formats; and emoji modifiers, which are modifier symbols."""

M = TypeVar("M")


def cut(text: str, size: int) -> str:
    """The text where it has at most `size` bytes in UTF-8, else the longest beginning of it that has, with `MARK`, and
    that tears nothing apart; "" where there is no room for the mark.

    It ends neither before a combining mark, a joiner, a variation selector, a modifier or a tag, nor after a joiner,
    nor within a flag, which is a pair of regional indicators (Unicode Standard Annex 29, section 3.1.1).
    """
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) <= size:
        return text
    room = size - len(MARK.encode())
    if room < 0:
        return ""
    end = len(encoded[:room].decode("utf-8", "ignore"))
    while end and not _may_end(text, end):
        end -= 1
    return text[:end] + MARK


def _may_end(text: str, end: int) -> bool:
    """Whether nothing is torn apart between `text[end - 1]` and `text[end]`."""
    before, after = text[end - 1], text[end]
    if unicodedata.category(after).startswith(_BESIDE) or before == _JOINER or (before, after) == ("\r", "\n"):
        return False
    if not _indicates(after):
        return True
    first = end
    while first and _indicates(text[first - 1]):
        first -= 1
    return (end - first) % 2 == 0


def _indicates(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def fitted(prepare: Callable[[Notification], M], notification: Notification) -> tuple[M, bool]:
    """The message that `prepare` makes of the notification, with as much of its body and then of its title as it takes;
    and whether they were cut.

    Raises the exceptions of `prepare`, and `MessageTooLarge` where another part than the texts is too large.
    """
    try:
        return prepare(notification), False
    except MessageTooLarge as error:
        refused = error
    for name in ("body", "title"):
        text: str | None = getattr(notification, name)
        if not text:
            continue
        made: M | None = None
        low, high = 0, len(text.encode("utf-8", "surrogatepass")) - 1
        while low <= high:
            size = (low + high) // 2
            try:
                made = prepare(_with(notification, name, cut(text, size) or MARK))
                low = size + 1
            except MessageTooLarge as error:
                refused = error
                high = size - 1
        if made is not None:
            return made, True
        notification = _with(notification, name, MARK)
    raise refused


def _with(notification: Notification, name: str, text: str) -> Notification:
    return replace(notification, body=text) if name == "body" else replace(notification, title=text)
