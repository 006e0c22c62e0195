"""A target as the tables keep it: a schedule looks up its recipients by it when it is due, and a collapse key is
compared within it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fanout.core.feed import Audience
from fanout.core.model import Target
from fanout.storage.packing import dumps

__all__ = ["LIST", "aimed", "asked", "by_binding", "dump", "parts", "target_columns"]

LIST = "*"
"""The `aim` of a notification whose `names` are a list."""
_USERS = ("user", "users")
_SINGLE = {"users": "u:", "user": "u:", "topic": "t:", "endpoints": "e:"}


def target_columns(kind: str, names: Sequence[Any]) -> tuple[str, str | None]:
    """The columns `aim` and `names` of a notification for these users, this topic, these endpoints (by id) or all."""
    if kind == "all":
        return "a", None
    if len(names) == 1:
        return f"{_SINGLE[kind]}{names[0]}", None
    return LIST, dumps([kind, list(names)])


def aimed(kind: str, names: Sequence[Any], collapse_key: str | None) -> tuple[str | None, str | None]:
    """`aim` and `names`. Without a collapse key whom it is for matters only to erasing: users in a list are not kept,
    and a topic or all is no one's."""
    if collapse_key is not None or kind == "endpoints":
        return target_columns(kind, names)
    if kind in ("topic", "all"):
        return None, None
    return (f"{_SINGLE[kind]}{names[0]}" if len(names) == 1 else LIST), None


def dump(target: Target, ids: Sequence[int] = (), audience: Audience | None = None) -> str:
    """A target as a schedule keeps it; explicit addresses are kept as the `ids` they were interned to."""
    return dumps([*parts(target, ids), *([audience.dump()] if audience is not None else [])])


def asked(
    wanted: Sequence[tuple[int, str, Sequence[Any]]],
) -> tuple[list[tuple[int, int, str]], list[tuple[int, int, int]]]:
    """Of targets (app's number, kind, names or ids) that are no topic and not all: (which of them, app, user), and
    (which, app, endpoint)."""
    users = [(i, app, name) for i, (app, kind, names) in enumerate(wanted) if kind in _USERS for name in names if name]
    ids = [(i, app, id) for i, (app, kind, names) in enumerate(wanted) if kind == "endpoints" for id in names]
    return users, ids


def by_binding(rows: Iterable[tuple[int, int, int]], count: int) -> list[dict[int, list[int]]]:
    """Of rows (which of `count` targets, endpoint, binding's number): each target's endpoints by binding, ids
    ascending, each once."""
    found: list[dict[int, list[int]]] = [{} for _ in range(count)]
    for i, id, binding in sorted(set(rows)):
        found[i].setdefault(binding, []).append(id)
    return found


def parts(target: Target, ids: Sequence[int] = ()) -> list[Any]:
    """The kind and the names or ids of a target."""
    if target.kind == "addresses":
        return ["endpoints", list(ids)]
    return [target.kind, list(target.ids if target.kind == "endpoints" else target.names)]
