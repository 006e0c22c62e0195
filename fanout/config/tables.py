"""A table of a configuration against the dataclass that it stands for: names, types, and sentences about faults."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import cache, partial
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fanout.config.faults import Faults
from fanout.config.written import Untyped, candidates, opened
from fanout.core.duration import parse_duration
from fanout.errors import ConfigurationError, UsageError, refuse

__all__ = ["as_table", "check_type", "field_types", "is_missing", "refuse_unknown", "timed"]

T = TypeVar("T")

_PLAIN: dict[object, str] = {
    str: "a text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def refuse_unknown(place: str, keys: Collection[str], known: Collection[str]) -> None:
    """Raise `ConfigurationError` for `keys` that are not in `known`, naming the nearest known ones."""
    refuse(_unknown(place, key, known) for key in keys if key not in known)


def _unknown(place: str, key: str, known: Collection[str]) -> str:
    where = f"{place}.{key}" if place else key
    near = get_close_matches(key, known, n=1, cutoff=0.6)
    if near:
        return f"{where} is no setting: did you mean {near[0]}?"
    return f"{where} is no setting: use one of {', '.join(sorted(known))}, or take it out."


def as_table(place: str, value: object) -> Mapping[str, Any]:
    """`value`, if it is a table with names for keys. Raises `ConfigurationError`."""
    value = opened(value)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(f"{place} must be a table of settings: write [{place}] and its keys below it.")
    return value


def field_types(cls: type) -> dict[str, Any]:
    """The type of each field of a dataclass that its constructor takes."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def is_missing(cls: type, name: str) -> bool:
    """Whether the field has no default, so that a configuration must give it."""
    for f in dataclasses.fields(cls):
        if f.name == name:
            return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    return False


def check_type(place: str, value: object, wanted: Any) -> Any:
    """`value` as the type `wanted`. Raises `ConfigurationError`.

    Nothing is guessed: "5" is no number and 1 is not true. Only values that TOML cannot write are converted: an array
    becomes a tuple, a text a path, a whole number a float. A text from the environment has no type, and is converted
    to the type of the setting.
    """
    import orjson
    import pydantic

    if value is None and NoneType in get_args(wanted):
        return None
    for meant in candidates(value) if isinstance(value, Untyped) else (value,):
        try:
            # JSON mode: strict about everything that TOML tells apart, and still able to make tuples and paths.
            document = orjson.dumps(meant, default=_plain)
            return _adapter(wanted).validate_json(document, strict=True)
        except (TypeError, pydantic.ValidationError):
            continue
    raise ConfigurationError(f"{place} must be {_describe(wanted)}; it is {_found(value)}.")


def timed(place: str, table: Mapping[str, Any], cls: type[T]) -> T:
    """A dataclass of numbers, from a table whose lengths of time may be seconds or texts such as "1h30m"."""
    kinds = field_types(cls)
    faults = Faults()
    faults.take(lambda: refuse_unknown(place, table, kinds), None)
    values: dict[str, Any] = {}
    wrong: set[str] = set()
    for key in [key for key in table if key in kinds]:
        number = faults.take(partial(_number, f"{place}.{key}", table[key], kinds[key]), None)
        if number is None:
            wrong.add(key)
        else:
            values[key] = number
    made = faults.take(lambda: cls(**values), None, f"{place}.", wrong)
    faults.settle()
    assert made is not None
    return made


def _number(where: str, value: object, kind: Any) -> Any:
    if kind is float and isinstance(value, str):
        try:
            value = parse_duration(value)
        except UsageError as error:
            raise ConfigurationError(f"{where}: {error}") from None
    number = check_type(where, value, kind)
    if number is not None and not number >= 0:
        raise ConfigurationError(f"{where} is {number!r}: it must not be below zero.")
    return number


@cache
def _adapter(wanted: Any) -> Any:
    import pydantic

    return pydantic.TypeAdapter(wanted)


def _plain(value: object) -> object:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError


def _describe(wanted: Any) -> str:
    if wanted in _PLAIN:
        return _PLAIN[wanted]
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return "one of " + ", ".join(repr(value) for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_describe(item) for item in arguments if item is not NoneType)
    if origin in (tuple, list, set, frozenset):
        item = _describe(arguments[0]) if arguments else "value"
        return f"an array, each of it {item}"
    if isinstance(wanted, type) and dataclasses.is_dataclass(wanted):
        return f"a table of {', '.join(field_types(wanted))}"
    if isinstance(wanted, type) and issubclass(wanted, PurePath):
        return "a path in quotes"
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return "a table"
    return f"a {getattr(wanted, '__name__', wanted)}"


def _found(value: object) -> str:
    """The type of the value that stands there instead. A text is not repeated: it may be a secret under the wrong
    key."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return "a text" if value else "an empty text"
        case Mapping():
            return "a table"
        case list() | tuple() | set() | frozenset():
            return "an array"
        case _:
            return f"a {type(value).__name__}"
