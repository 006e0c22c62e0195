"""On which line of its file a setting stands: `fanout doctor` puts it beside a fault."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["line_of", "places"]

_LIMIT = 256 * 1024


def places(text: str) -> dict[str, int]:
    """The line of each key of a TOML document, by the name that errors have for it
    (`apps.default.transports.apns.key_id`, `service.keys[0].id`).

    A statement (a header, or a key with its value) is a document by itself, and half of one is none: so the lines of a
    value that takes several belong to the line on which it begins.

    Args:
        text: The document.

    Returns:
        Lines from 1; nothing for a text that is no TOML, or too long for that.
    """
    if len(text) > _LIMIT:
        return {}
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    statement, began = "", 1
    for number, line in enumerate(text.split("\n"), start=1):
        if not statement:
            began = number
        statement += line + "\n"
        try:
            tables = tomllib.loads(statement)
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        if statement.lstrip().startswith("["):
            headed = _header(tables, counts)
            table = headed[-1]
            for path in headed:
                found.setdefault(path, began)
        else:
            for path in _paths(tables):
                found.setdefault(f"{table}.{path}" if table else path, began)
        statement = ""
    return {} if statement else found


def line_of(sentence: str, known: Mapping[str, int]) -> int | None:
    """The line of the longest key that a sentence about a fault names.

    Args:
        sentence: The sentence.
        known: The keys and their lines, as `places` gives them.

    Returns:
        The line, from 1; None where it names none.
    """
    # A binding's own sentence comes behind its place: "apps.shop.transports.apns: key_id is …".
    texts = (sentence, sentence.replace(": ", ".", 1))
    named = [path for path in known if any(_names(text, path) for text in texts)]
    return known[max(named, key=len)] if named else None


def _names(text: str, path: str) -> bool:
    path = path.removesuffix("_file")  # a secret is called by its name, wherever it is read from
    at = text.find(path)
    if at < 0 or (at and (text[at - 1].isalnum() or text[at - 1] in "._-[")):
        return False
    end = text[at + len(path) :][:1]
    return not end or not (end.isalnum() or end in "_-") or text.startswith("_file", at + len(path))


def _header(tables: Mapping[str, Any], counts: dict[str, int]) -> list[str]:
    """The paths down to a table whose header stands alone; `counts` are the tables so far of each array, from 0."""
    paths: list[str] = []
    path = ""
    value: Any = tables
    while value:
        ((key, value),) = value.items()
        path = f"{path}.{key}" if path else key
        paths.append(path)
        if isinstance(value, list):
            counts[path] = counts.get(path, -1) + 1
            for inner in [each for each in counts if each.startswith(f"{path}[")]:
                del counts[inner]
            value = {}
        if path in counts:
            path = f"{path}[{counts[path]}]"
            paths.append(path)
    return paths


def _paths(value: Any, before: str = "") -> Iterator[str]:
    if before:
        yield before
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _paths(part, f"{before}.{key}" if before else key)
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from _paths(part, f"{before}[{at}]")
