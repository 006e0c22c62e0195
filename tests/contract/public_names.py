"""The public functions and methods with their docstrings, as the contract tests read them: from the sources, without an
import.

FastAPI, aiohttp and asyncpg behind the public modules take seconds of a loaded machine to import.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from .code_lines import ROOT

__all__ = [
    "MODULES", "Defined", "Function", "Public", "bases", "defined", "methods", "names_of", "parameters", "public",
    "public_classes",
]  # fmt: skip

MODULES = (
    "fanout",
    "fanout.plugin",
    "fanout.client",
    "fanout.sync",
    "fanout.testing",
    "fanout.service",
    "fanout.service.auth",
    "fanout.metrics",
    "fanout.errors",
    "fanout.enqueue",
    "fanout.config",
)
"""The modules whose `__all__` is public."""
REACHED = {"fanout.Engine.endpoints": ("fanout.engine.directory", "Endpoints")}
"""Classes that no public module names, because a public object has the only one of them."""

CALLBACKS = {name for kind in (asyncio.Protocol, asyncio.BufferedProtocol) for name in dir(kind) if name[0] != "_"}
"""Methods that an event loop calls, and no user: asyncio describes them."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Defined(NamedTuple):
    """A function or a class, and the module that defines it."""

    module: str
    node: Function | ast.ClassDef


class Public(NamedTuple):
    """A public function, method or property: the name that users write, where it is defined, of which class, and its
    docstring."""

    path: str
    module: str
    owner: Defined | None
    node: Function
    text: str


@cache
def names_of(module: str) -> dict[str, ast.stmt]:
    """The statement that defines or imports each name of a module of the package, for type-checkers too."""
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
    """The function or class of that name; None for another thing, or for a name of another package."""
    node = names_of(module).get(name)
    if isinstance(node, ast.ImportFrom):
        if node.level or not (node.module or "").startswith("fanout."):
            return None
        return defined(node.module or "", next(each.name for each in node.names if (each.asname or each.name) == name))
    if isinstance(node, ast.Assign):
        value = node.value
        if isinstance(value, ast.Call) and value.args:  # `open = _takes_what(model)(_open)`
            value = value.args[0]
        return defined(module, value.id) if isinstance(value, ast.Name) and value.id != name else None
    return Defined(module, node) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) else None


def methods(each: Defined) -> dict[str, Function]:
    """The methods and properties that a class defines itself."""
    found = [node for node in each.node.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {node.name: node for node in found if not any("setter" in ast.unparse(d) for d in node.decorator_list)}


def bases(each: Defined) -> Iterator[Defined]:
    """The classes of this package that a class inherits from, nearest first, and theirs."""
    for base in getattr(each.node, "bases", ()):
        name = base.value if isinstance(base, ast.Subscript) else base
        found = defined(each.module, name.id) if isinstance(name, ast.Name) else None
        if found is not None:
            yield found
            yield from bases(found)


def inherited(each: Defined, name: str) -> str:
    """The docstring of a method; of the method that it overrides, if it has none of its own."""
    for owner in (each, *bases(each)):
        own = methods(owner).get(name)
        if own is not None and (text := ast.get_docstring(own)):
            return text
    return ""


def is_property(node: Function) -> bool:
    return any("property" in ast.unparse(each) for each in node.decorator_list)


def parameters(node: Function) -> dict[str, str]:
    """The parameters that a caller passes, with their annotations."""
    found = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return {
        each.arg: ast.unparse(each.annotation) if each.annotation else ""
        for each in found
        if each.arg not in ("self", "cls") and not each.arg.startswith("_")
    }


def public_classes() -> Iterator[tuple[str, Defined]]:
    """The public classes and functions, each once, by the first of its names."""
    seen: set[Defined] = set()
    for module in MODULES:
        listed = names_of(module)["__all__"]
        assert isinstance(listed, ast.Assign)
        for name in ast.literal_eval(listed.value):
            each = defined(module, name)
            if each is not None and each not in seen:
                seen.add(each)
                yield f"{module}.{name}", each
    for path, (module, name) in REACHED.items():
        each = defined(module, name)
        assert each is not None
        yield path, each


def public(*, properties: bool = False) -> Iterator[Public]:
    """The public functions, and the methods of the public classes with those that they inherit, each once."""
    seen: set[Function] = set()
    for path, each in public_classes():
        if not isinstance(each.node, ast.ClassDef):
            yield Public(path, each.module, None, each.node, ast.get_docstring(each.node) or "")
            continue
        for owner in (each, *bases(each)):
            for method, node in methods(owner).items():
                if method.startswith("_") or node in seen or (is_property(node) and not properties):
                    continue
                if method in CALLBACKS and any(
                    "asyncio" in ast.unparse(base)
                    for one in (owner, *bases(owner))
                    for base in getattr(one.node, "bases", ())
                ):
                    continue
                seen.add(node)
                yield Public(f"{path}.{method}", owner.module, owner, node, inherited(each, method))
