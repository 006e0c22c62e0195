"""A constructor takes fewer than ten arguments: more of them are one frozen object."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST = 9
ARGUED = {
    # Public, keyword arguments with defaults: users call it as RFC 6749 and the issuers' pages name the fields.
    "fanout/client/tokens.py: ClientCredentials",
}


def long_constructors(source: str) -> list[str]:
    """The classes in this source whose `__init__` has more arguments than `MOST`, `self` not counted."""
    found = []
    for node in ast.walk(ast.parse(source)) if "__init__" in source else ():
        if isinstance(node, ast.ClassDef):
            for made in node.body:
                if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                    arguments = made.args.posonlyargs + made.args.args + made.args.kwonlyargs
                    if len(arguments) - 1 > MOST:
                        found.append(node.name)
    return found


def test_no_constructor_takes_ten_arguments() -> None:
    found = {
        f"{path.relative_to(ROOT).as_posix()}: {name}"
        for folder in ("fanout", "transports")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in long_constructors(path.read_text(encoding="utf-8"))
    }
    assert found == ARGUED, "make one frozen object of the arguments, as EngineOptions and EngineContext are"


@pytest.mark.parametrize(("count", "refused"), [(9, False), (10, True)])
def test_a_constructor_of_ten_is_found(count: int, refused: bool) -> None:
    arguments = ", ".join(f"a{n}" for n in range(count))
    assert bool(long_constructors(f"class Made:\n    def __init__(self, *, {arguments}): ...")) is refused
