"""A value that was written as text where a document has types: it becomes a value of the type of the setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fanout.errors import ConfigurationError

__all__ = ["Untyped", "candidates", "opened", "parse_json"]


class Untyped(str):
    """A text without a type. `source` is the environment variable that it stands in, or "" for a value with `${NAME}`
    in it."""

    source: str

    def __new__(cls, text: str, source: str = "") -> Untyped:
        made = super().__new__(cls, text)
        made.source = source
        return made


def opened(value: Any) -> Any:
    """`value`, and where it is an untyped text that holds a table or an array in JSON, that."""
    if isinstance(value, Untyped) and value.lstrip()[:1] in ("{", "["):
        return parse_json(value, value.source)
    return value


def candidates(text: Untyped) -> Iterator[Any]:
    """The possible meanings of the text, the likeliest first: an array or table in JSON, itself, a number or truth
    value in JSON."""
    import orjson

    try:
        meant = orjson.loads(text.strip())
    except orjson.JSONDecodeError:
        yield str(text)
        return
    yield from (meant, str(text)) if isinstance(meant, (dict, list)) else (str(text), meant)


def parse_json(text: Untyped, source: str) -> Any:
    """The value that the text holds. Raises `ConfigurationError`, without the text in it."""
    import orjson

    try:
        return orjson.loads(str(text))
    except orjson.JSONDecodeError as error:
        where = f"The environment variable {source}" if source else "A value with ${NAME}"
        raise ConfigurationError(
            f"{where} is no JSON (line {error.lineno}, column {error.colno}): write tables and arrays as JSON."
        ) from None
