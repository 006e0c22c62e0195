"""JSON bodies read so that nothing in them can surprise the code behind it. Pure.

Refused besides bodies that are no JSON (lone surrogates and NaN among the causes): a key that is there twice, NUL in a
text, an integer of more than 64 bits, arrays and objects nested too deeply. Each of these is legal or half legal JSON,
and each has made two programs disagree about the meaning of a request.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from fanout.errors import UsageError

__all__ = ["parse"]

_LEAST, _MOST = -(2**63), 2**64 - 1
_DIGITS = 20


_DOUBT = 2**62
"""Added to the count of colons for a number that may have more than 64 bits, so that the body is read slowly."""


def parse(body: bytes, depth: int) -> Any:
    """The value of a JSON body.

    `depth` is how many arrays and objects may stand in one another; it is checked before anything that recurses in
    Python reads the value. Raises `UsageError` with a sentence.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"The body is no JSON: {error}. Send one value in UTF-8.") from None
    # Each key has one colon, and no other place outside texts has any: as many as expected means that no key was
    # dropped. A colon or NUL that is written as an escape would spoil the count, so such bodies are read again, slowly.
    colons = _colons(value, depth)
    if colons == body.count(b":") and b"\\u003" not in body and b"\\u0000" not in body:
        return value
    return _slowly(body)


def _colons(value: Any, left: int) -> int:
    """The least number of colons in the JSON of `value`. Raises `UsageError` for too deep a value, even where another
    fault is in it."""
    kind = type(value)
    if kind is str:
        return int(value.count(":"))
    if kind is dict:
        parts = value.values()
        count = len(value)
        for key in value:
            if ":" in key:
                count += key.count(":")
    elif kind is list:
        parts = value
        count = 0
    else:
        return _DOUBT if kind is float and not _LEAST < value < _MOST else 0
    if left <= 0:
        raise UsageError("The body is nested too deeply (depth of [service.limits]): make it flatter.")
    for part in parts:
        kind = type(part)
        if kind is str:
            if ":" in part:
                count += part.count(":")
        elif kind is not int and kind is not bool and part is not None:
            count += _colons(part, left - 1)
    return count


def _slowly(body: bytes) -> Any:
    value = json.loads(body, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)
    if _has_nul(value):
        raise UsageError("A text in the body holds NUL (\\u0000): take it out.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise UsageError(f"The key {twice[:64]!r} is there twice: keep one of them.")
    return values


def _integer(digits: str) -> int:
    if len(digits) <= _DIGITS and _LEAST <= (value := int(digits)) <= _MOST:
        return value
    raise UsageError("An integer in the body has more than 64 bits: write it as a text.")


def _constant(name: str) -> None:
    raise UsageError(f"The body is no JSON: {name} is no number.")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any("\x00" in key or _has_nul(part) for key, part in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))
