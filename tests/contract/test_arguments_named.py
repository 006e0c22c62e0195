"""The docstring of each public function and method names each of its arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

MODULES = (
    "fanout",
    "fanout.plugin",
    "fanout.client",
    "fanout.sync",
    "fanout.testing",
    "fanout.service",
    "fanout.metrics",
    "fanout.errors",
    "fanout.enqueue",
)
ARGUED = {
    # Callbacks of asyncio, called by an event loop: `asyncio.Protocol` describes them.
    "fanout.plugin.Forwarding.connection_made",
    "fanout.plugin.Forwarding.data_received",
    "fanout.plugin.Forwarding.connection_lost",
}


def unnamed(function: Any) -> list[str]:
    """The parameters that its docstring names neither under `Args:` nor in backticks."""
    text = inspect.getdoc(function) or ""
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        each.name
        for each in inspect.signature(function).parameters.values()
        if each.name not in ("self", "cls")
        and not each.name.startswith("_")
        and each.kind not in variadic
        and not re.search(rf"`[^`\n]*\b{each.name}\b[^`\n]*`|^ +(\w+, )*{each.name}(, \w+)*:", text, re.MULTILINE)
    ]


def public() -> Iterator[tuple[str, Any]]:
    """The functions of the public modules, and the methods of their classes, each once."""
    seen: set[int] = set()
    for module in MODULES:
        for name in import_module(module).__all__:
            value = getattr(import_module(module), name)
            if id(value) in seen or not getattr(value, "__module__", "").startswith("fanout"):
                continue
            seen.add(id(value))
            if inspect.isfunction(value):
                yield f"{module}.{name}", value
            elif inspect.isclass(value):
                for method, raw in vars(value).items():
                    made = raw.__func__ if isinstance(raw, (classmethod, staticmethod)) else raw
                    if not method.startswith("_") and inspect.isfunction(made):
                        yield f"{module}.{name}.{method}", made


def test_every_argument_of_a_public_function_is_named_in_its_docstring() -> None:
    missing = {path: names for path, function in public() if (names := unnamed(function))}
    assert missing.keys() == ARGUED, missing


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("Take it.", ["size", "unit"]),
        ("Take `size` of `unit`.", []),
        ("Take it.\n\n    Args:\n        size: How much.\n        unit: Of what.", []),
        ("Take it.\n\n    Args:\n        size, unit: How much, of what.", []),
        ("Take that size.", ["size", "unit"]),
    ],
)
def test_a_word_of_the_sentence_is_no_name(text: str, missing: list[str]) -> None:
    def take(size: int, unit: str) -> None: ...

    take.__doc__ = text
    assert unnamed(take) == missing
