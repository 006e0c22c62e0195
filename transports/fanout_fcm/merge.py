"""The overrides of a notification in Google's own terms, laid over the message that we made of it. Pure.

Protocol buffers' JSON takes a field by its camelCase and by its snake_case name, and refuses a message that has both:
so a name given either way replaces ours. Maps whose keys belong to the app, and `apns.payload`, are merged by the exact
key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fanout.plugin import InvalidMessage

__all__ = ["camel", "find", "overlay"]

_FREE = {
    ("data",),
    ("android", "data"),
    ("androidV2", "data"),
    ("apns", "headers"),
    ("apns", "payload"),
    ("webpush", "data"),
    ("webpush", "headers"),
    ("webpush", "notification"),
}
"""Paths below which keys are the app's own or another specification's, not fields of the FCM schema."""

_HEADERS = {("apns", "headers"), ("webpush", "headers")}


@lru_cache(maxsize=1024)
def camel(name: str) -> str:
    """The camelCase of a field's name in either spelling."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def find(values: Mapping[str, Any], field: str) -> str | None:
    """The key under which `values` has the field of this camelCase name, if it has it."""
    if field in values:
        return field
    for key in values:
        if isinstance(key, str) and "_" in key and camel(key) == field:
            return key
    return None


def overlay(base: dict[str, Any], over: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """`base` with `over` laid upon it: tables are merged, everything else is replaced and passes through untouched.

    Raises `InvalidMessage` where `over` has something else than a table in the place of one, or a field twice.
    """
    result = dict(base)
    free = any(path[: len(root)] == root for root in _FREE)
    seen: set[str] = set()
    for key, value in over.items():
        if not isinstance(key, str):
            raise InvalidMessage(f"The FCM override has a key under {_position(path)} that is no text: use a text.")
        name = _canonical(key, path, free)
        if name in seen:
            raise InvalidMessage(f"The FCM override names {_position((*path, name))} twice: keep one of the spellings.")
        seen.add(name)
        ours = next((field for field in result if _canonical(field, path, free) == name), None)
        before = result.pop(ours) if ours is not None else None
        if isinstance(before, dict):
            if not isinstance(value, Mapping):
                raise InvalidMessage(
                    f"The FCM override {_position((*path, key))} must be a table, not {type(value).__name__}."
                )
            result[key] = overlay(before, value, (*path, name))
        elif isinstance(value, Mapping):
            result[key] = overlay({}, value, (*path, name))
        else:
            result[key] = value
    return result


def _canonical(key: str, path: tuple[str, ...], free: bool) -> str:
    if path in _HEADERS:
        return key.lower()
    return key if free else camel(key)


def _position(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the message"
