"""The effect of erasing and exporting a user on a target as the tables keep it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum
from typing import Any, TypeVar

import orjson

from fanout.storage.packing import dumps

__all__ = ["BLANK", "SHADOW", "Listed", "divided", "names_user", "without"]

K = TypeVar("K")
N = TypeVar("N")

BLANK = b"{}"
"""The content of a notification whose text was erased: one that says nothing."""


SHADOW = "address erased"
"""The reason of an endpoint that is another user's or no user's, and had the address of an erased user."""


class Listed(Enum):
    """The relation of a target to a user, where nothing of it is to be written anew."""

    ALONE = "the user's alone"
    OTHERS = "nothing of the user"


def without(target: str, user: str, devices: Collection[int]) -> Listed | str:
    """The rest of `targets.dump` (or of the column `names`) without this user, whose endpoints are `devices`.

    Endpoints are numbers that say nothing of whose they were, so a list that has others too keeps them.
    """
    kind, names, *more = orjson.loads(target)
    if kind == "endpoints":
        return Listed.ALONE if names and all(id in devices for id in names) else Listed.OTHERS
    if kind not in ("user", "users") or user not in names:
        return Listed.OTHERS
    rest: list[Any] = [name for name in names if name != user]
    return dumps([kind, rest, *more]) if rest else Listed.ALONE


def divided(
    rows: Iterable[tuple[K, N, str]], user: str, devices: Collection[int]
) -> tuple[set[N], list[tuple[K, str]]]:
    """Of rows (key, notification, target): the notifications that are the user's alone, and by key the rest of targets
    that have others too."""
    mine: set[N] = set()
    changed: list[tuple[K, str]] = []
    for key, notification, target in rows:
        rest = without(target, user, devices)
        if rest is Listed.ALONE:
            mine.add(notification)
        elif isinstance(rest, str):
            changed.append((key, rest))
    return mine, changed


def names_user(target: str, user: str, devices: Collection[int]) -> bool:
    """Whether `targets.dump` (or the column `names`) has this user by name, or an endpoint that is the user's."""
    kind, names, *_ = orjson.loads(target)
    return any(id in devices for id in names) if kind == "endpoints" else kind in ("user", "users") and user in names
