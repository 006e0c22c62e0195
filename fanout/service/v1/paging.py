"""Cursors of lists by id."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from fanout.service.errors import Refused

__all__ = ["Cursor", "Limit", "cursor_of", "position_of"]

Cursor = Annotated[str | None, Query(max_length=64, description="As the page before gave it.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]


def cursor_of(position: int) -> str:
    """The cursor that goes on after the id `position`."""
    return f"a{position:x}"


def position_of(cursor: str | None) -> int:
    """The id that a cursor goes on after, 0 for none. Raises `Refused`."""
    if cursor is None:
        return 0
    digits = cursor.removeprefix("a")
    if len(digits) == len(cursor) or not 0 < len(digits) <= 15 or not set(digits) <= set("0123456789abcdef"):
        raise Refused(400, "invalidRequest", "cursor is none of ours: begin without one.")
    return int(digits, 16)
