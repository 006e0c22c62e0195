"""The docstring of each public function and method names each of its arguments."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from .code_lines import ROOT

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


Function = ast.FunctionDef | ast.AsyncFunctionDef


class Defined(NamedTuple):
    """A function or a class, and the module that defines it."""

    module: str
    node: Function | ast.ClassDef


@cache
def names_of(module: str) -> dict[str, ast.stmt]:
    """What defines or imports each name of a module of the package, for type-checkers too. Nothing is imported: FastAPI, aiohttp and
    asyncpg behind the public modules take seconds of a loaded machine."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: dict[str, ast.stmt] = {}
    waiting = ast.parse(file.read_text(encoding="utf-8")).body[::-1]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If):
            waiting += [*node.body, *node.orelse][::-1]
        elif isinstance(node, ast.ImportFrom):
            found |= {each.asname or each.name: node for each in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {each.id: node for each in node.targets if isinstance(each, ast.Name)}
    return found


def defined(module: str, name: str) -> Defined | None:
    """The function or class of that name; None of what is neither, or is not of this package."""
    node = names_of(module).get(name)
    if isinstance(node, ast.ImportFrom):
        if node.level or not (node.module or "").startswith("fanout."):
            return None
        return defined(node.module or "", next(each.name for each in node.names if (each.asname or each.name) == name))
    if isinstance(node, ast.Assign):
        return defined(module, node.value.id) if isinstance(node.value, ast.Name) and node.value.id != name else None
    return Defined(module, node) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) else None


def methods(each: Defined) -> dict[str, Function]:
    """The methods that a class defines, without its properties."""
    found = [node for node in each.node.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {node.name: node for node in found if not any("property" in ast.unparse(d) for d in node.decorator_list)}


def inherited(each: Defined, name: str) -> str:
    """The docstring of a method; of the method that it overrides, if it has none of its own."""
    own = methods(each).get(name)
    text = ast.get_docstring(own) if own else None
    bases = (defined(each.module, base.id) for base in getattr(each.node, "bases", ()) if isinstance(base, ast.Name))
    return text or next((text for base in bases if base and (text := inherited(base, name))), "")


def unnamed(node: Function, text: str) -> list[str]:
    """The parameters that a docstring names neither under `Args:` nor in backticks."""
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return [
        name
        for name in names
        if name not in ("self", "cls")
        and not name.startswith("_")
        and not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`|^ +(\w+, )*{name}(, \w+)*:", text, re.MULTILINE)
    ]


def public() -> Iterator[tuple[str, Function, str]]:
    """The functions of the public modules, and the methods of their classes, each once, with its docstring."""
    seen: set[Defined] = set()
    for module in MODULES:
        listed = names_of(module)["__all__"]
        assert isinstance(listed, ast.Assign)
        for name in ast.literal_eval(listed.value):
            each = defined(module, name)
            if each is None or each in seen:
                continue
            seen.add(each)
            if isinstance(each.node, ast.ClassDef):
                for method, node in methods(each).items():
                    if not method.startswith("_"):
                        yield f"{module}.{name}.{method}", node, inherited(each, method)
            else:
                yield f"{module}.{name}", each.node, ast.get_docstring(each.node) or ""


def test_every_argument_of_a_public_function_is_named_in_its_docstring() -> None:
    missing = {path: names for path, node, text in public() if (names := unnamed(node, text))}
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
    (node,) = ast.parse("def take(size: int, unit: str) -> None: ...").body
    assert isinstance(node, ast.FunctionDef)
    assert unnamed(node, inspect.cleandoc(text)) == missing
