"""Frozen dataclasses with slots that are made by the thousand, in a third of the time.

`dataclass(frozen=True)` writes each field by a call of `object.__setattr__`, some 0.1 us each. Here an object is of a
subclass without that ban while it is being made, so that a field is written by one instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

__all__ = ["fast_init", "unchecked_maker"]

T = TypeVar("T")


def fast_init(cls: type[T]) -> type[T]:
    """The frozen dataclass with slots itself, with an `__init__` of the same parameters that does the same.

    An object of a subclass is made as `dataclass` makes it: it has other slots, and keeps its class."""
    known: tuple[Field[Any], ...] = fields(cls)  # type: ignore[arg-type]
    keywords = [_parameter(each) for each in known if each.kw_only]
    parameters = [_parameter(each) for each in known if not each.kw_only] + (["*", *keywords] if keywords else [])
    end = "self.__post_init__()" if hasattr(cls, "__post_init__") else ""
    head = f"def made(self, {', '.join(parameters)}):"
    given = ", ".join(f"{each.name}={_value(each)}" for each in known)
    other = f"if self.__class__ is not frozen: return slow(self, {given})"
    begin = [head, other, "become(self, '__class__', open)"]
    made = _made(cls, [*begin, *map(_written, known), "self.__class__ = frozen", end])
    made.__name__, made.__qualname__, made.__module__ = "__init__", f"{cls.__qualname__}.__init__", cls.__module__
    made.__annotations__ = cls.__init__.__annotations__
    cls.__init__ = made  # type: ignore[method-assign]
    return cls


def unchecked_maker(cls: type[T]) -> Callable[..., T]:
    """A function from all fields of the frozen dataclass with slots, in their order, to an object of it that is not
    checked: for values which another object of it has, or which were checked."""
    names = [each.name for each in fields(cls)]  # type: ignore[arg-type]
    lines = [f"def made({', '.join(names)}):", "self = new(open)", *(f"self.{name} = {name}" for name in names)]
    made: Callable[..., T] = _made(cls, [*lines, "self.__class__ = frozen", "return self"])
    return made


def _parameter(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return f"{field.name}=fields['{field.name}'].default"
    return field.name if field.default_factory is MISSING else f"{field.name}=missing"


def _written(field: Field[Any]) -> str:
    return f"self.{field.name} = {_value(field)}"


def _value(field: Field[Any]) -> str:
    name = field.name
    if field.default_factory is MISSING:
        return name
    return f"{name} if {name} is not missing else fields['{name}'].default_factory()"


def _made(cls: type, lines: list[str]) -> Any:
    free = {"__slots__": (), "__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    names: dict[str, Any] = {"frozen": cls, "open": type(cls.__name__, (cls,), free), "missing": MISSING}
    names |= {"fields": {each.name: each for each in fields(cls)}, "become": object.__setattr__, "new": object.__new__}
    names["slow"] = vars(cls)["__init__"]
    exec("\n    ".join(lines), names)
    return names["made"]
