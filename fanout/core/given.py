"""The checks of arguments at the door: one rule for each kind of value, for the library, the shell and the service
alike.

Each function takes the field's name for its error, a `UsageError` (of a message's content `InvalidMessage`) that
names the right form and repeats no content.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from fanout.core.text import storable
from fanout.errors import InvalidMessage, UsageError

__all__ = [
    "RESERVED",
    "collection",
    "instant",
    "number",
    "plain",
    "reserved_in",
    "seconds",
    "shown",
    "sized",
    "table",
    "text",
    "unreserved",
]

RESERVED = frozenset("&|!()<>=")
"""Characters that no new tag may hold, beside blanks: expressions over tags are written with them."""

_DEEPEST = 100
_LARGEST = 2**63 - 1
_FARTHEST = 1e11
"""UNIX seconds of the year 5138: a later value was meant as milliseconds."""


def text(field: str, value: object, longest: int = 512) -> str:
    """A text of 1 to `longest` characters that every storage can hold: without NUL, and valid as UTF-8."""
    if type(value) is str and 0 < len(value) <= longest and value.isascii() and "\x00" not in value:
        return value  # the usual case, in few steps: `send` asks several times
    if not isinstance(value, str):
        raise UsageError(f"{field} must be a text of 1 to {longest} characters; it is {_kind(value)}.")
    if not 0 < len(value) <= longest:
        raise UsageError(f"{field} must be a text of 1 to {longest} characters; it has {len(value):,}.")
    if not storable(value):
        raise UsageError(f"{field} must be a text without NUL that is valid as UTF-8: half a surrogate pair is not.")
    return value


def sized(field: str, value: object, longest: int) -> None:
    """A text of 1 to `longest` bytes in UTF-8."""
    if isinstance(value, str) and 0 < len(value) <= longest:
        try:
            if len(value.encode()) <= longest:
                return
        except UnicodeEncodeError:
            pass
    raise UsageError(f"{field} must be a text of 1 to {longest} bytes in UTF-8, or be left out.")


def shown(field: str, value: object) -> None:
    """A text of any length that is to be shown, or None. Whether it is valid is seen when it is encoded (`plain`)."""
    if value is not None and not isinstance(value, str):
        raise InvalidMessage(f"{field} must be a text; it is {_kind(value)}.")


def collection(field: str, values: object) -> list[Any]:
    """The members of a collection. One text is refused, which Python would take for its letters, and so are bytes."""
    if isinstance(values, (str, bytes, bytearray, memoryview)) or not isinstance(values, Iterable):
        raise UsageError(f"{field} must be a list, such as [one]; it is {_kind(values)}.")
    return list(values)


def table(field: str, value: object) -> dict[str, Any]:
    """A mapping with texts for keys, as a dict; the same one where it is a dict."""
    if not isinstance(value, Mapping):
        raise InvalidMessage(f"{field} must be a mapping, such as {{'key': 'value'}}; it is {_kind(value)}.")
    return value if isinstance(value, dict) else dict(value)


def number(field: str, value: object, lowest: int = 0, highest: int = _LARGEST) -> int:
    """A whole number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        found = repr(value) if type(value) is int and abs(value) <= 2**64 else _kind(value)
        raise UsageError(f"{field} must be a whole number from {lowest} to {highest}; it is {found}.")
    return value


def seconds(field: str, value: object, highest: float) -> float:
    """A length of time from 0 to `highest`, in seconds or as a timedelta."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= highest:
        found = repr(value) if isinstance(value, (int, float)) else _kind(value)
        raise UsageError(f"{field} is {found}: give seconds from 0 to {highest:.0f}, or a timedelta.")
    return value


def instant(field: str, value: object, latest: float = _FARTHEST, within: str = "before the year 5138") -> float:
    """A point of time up to `latest`, as UNIX seconds: given so, or as a datetime that knows its zone."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise UsageError(
                f"{field} is a datetime without a time zone: give datetime.now(UTC), or local.astimezone()."
            )
        value = value.timestamp()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{field} must be UNIX seconds or a datetime with its time zone; it is {_kind(value)}.")
    if not -_FARTHEST < value <= latest:  # NaN too
        raise UsageError(f"{field} is {value!r:.30}: give UNIX seconds {within}, or a datetime with its time zone.")
    return float(value)


def plain(field: str, value: object, depth: int = 0) -> None:
    """Refuse a value that is not JSON as it stands, naming the place: a NaN, bytes, a key that is no text, half a
    surrogate pair."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise InvalidMessage(
                    f"{field} is not plain JSON: it holds half a surrogate pair, which is no valid UTF-8: take it out."
                ) from None
    elif value is None or isinstance(value, bool):
        return
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise InvalidMessage(f"{field} is a number of more than 64 bits: give it as a text.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidMessage(f"{field} is {value!r}, which is not plain JSON: leave it out, or give a number.")
    elif depth >= _DEEPEST:
        raise InvalidMessage(f"{field[:100]}… is nested more than {_DEEPEST} levels deep: make it flatter.")
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InvalidMessage(
                    f"{field} has a key that is {_kind(key)}: the keys of plain JSON are texts, so write it in quotes."
                )
            if not key.isascii():
                plain(f"a key of {field}", key)
            plain(f"{field}.{key}", inner, depth + 1)
    elif type(value) in (list, tuple):
        for position, inner in enumerate(value):  # type: ignore[arg-type]
            plain(f"{field}[{position}]", inner, depth + 1)
    else:
        raise InvalidMessage(
            f"{field} is {_kind(value)}, which is not plain JSON: give texts, numbers, booleans, lists, dicts."
        )


def reserved_in(tag: str) -> str:
    """The first character of a tag that is reserved: a blank, or one of `RESERVED`; empty where there is none."""
    return next((letter for letter in tag if letter in RESERVED or letter.isspace()), "")


def unreserved(field: str, tag: str) -> str:
    """A tag without blanks and without the characters of expressions over tags."""
    found = reserved_in(tag)
    if found:
        what = "a blank" if found.isspace() else repr(found)
        raise UsageError(
            f"{field} holds {what}: a tag has no blanks and none of the reserved & | ! ( ) < > =. Use a hyphen."
        )
    return tag


def _kind(value: object) -> str:
    """The kind of the value that was given instead, without its content."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"
