"""The form of values in a column: JSON texts, and endpoint ids packed eight bytes each."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any

import orjson

from fanout.errors import ContentRefused

__all__ = ["dumps", "pack", "unfit", "unpack"]


def dumps(value: Any) -> str:
    """JSON for a database to keep. Raises `ContentRefused` for a value that no JSON text can hold; the error does not
    name the value."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise unfit() from None


def unfit() -> ContentRefused:
    """The error for a value that no column can hold."""
    return ContentRefused(
        "A name, address or number cannot be stored: texts must be valid Unicode, and numbers within 64 bits."
    )


def pack(ids: Sequence[int]) -> bytes:
    """Endpoint ids, eight bytes each, least significant first."""
    packed = array("q", ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack(packed: bytes) -> array[int]:
    """The inverse of `pack`."""
    ids = array("q", packed)
    if sys.byteorder == "big":
        ids.byteswap()
    return ids
