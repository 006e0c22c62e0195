"""A target as the tables keep it: what a schedule looks up when it is due, and for whom a notification with a collapse key is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.feed import Audience
from fanout.core.model import Target
from fanout.storage.packing import dumps

__all__ = ["LIST", "aimed", "dump", "parts", "target_columns"]

LIST = "*"
"""The `aim` of a notification whose `names` are a list."""
_SINGLE = {"users": "u:", "user": "u:", "topic": "t:", "endpoints": "e:"}


def target_columns(kind: str, names: Sequence[Any]) -> tuple[str, str | None]:
    """The columns `aim` and `names` of a notification for these users, this topic, these endpoints (by id) or all."""
    if kind == "all":
        return "a", None
    if len(names) == 1:
        return f"{_SINGLE[kind]}{names[0]}", None
    return LIST, dumps([kind, list(names)])


def aimed(kind: str, names: Sequence[Any], collapse_key: str | None) -> tuple[str | None, str | None]:
    """`aim` and `names`. Without a collapse key whom it is for matters only to erasing: users in a list are not kept, and a topic or all is no one's."""
    if collapse_key is not None or kind == "endpoints":
        return target_columns(kind, names)
    if kind in ("topic", "all"):
        return None, None
    return (f"{_SINGLE[kind]}{names[0]}" if len(names) == 1 else LIST), None


def dump(target: Target, ids: Sequence[int] = (), audience: Audience | None = None) -> str:
    """A target as a schedule keeps it; explicit addresses are kept as the `ids` they were interned to."""
    return dumps([*parts(target, ids), *([audience.dump()] if audience is not None else [])])


def parts(target: Target, ids: Sequence[int] = ()) -> list[Any]:
    """The kind and the names or ids of a target."""
    if target.kind == "addresses":
        return ["endpoints", list(ids)]
    return [target.kind, list(target.ids if target.kind == "endpoints" else target.names)]
