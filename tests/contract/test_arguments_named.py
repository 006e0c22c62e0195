"""The docstring of each public function and method names each of its arguments."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from .public_names import Function, methods, parameters, public, public_classes


def unnamed(node: Function, text: str) -> list[str]:
    """The parameters that a docstring names neither under `Args:` nor in backticks."""
    return [
        name
        for name in parameters(node)
        if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`|^ +(\w+, )*{name}(, \w+)*:", text, re.MULTILINE)
    ]


def test_every_argument_of_a_public_function_is_named_in_its_docstring() -> None:
    missing = {each.path: names for each in public() if (names := unnamed(each.node, each.text))}
    assert not missing


def test_every_argument_of_a_public_constructor_is_named_in_the_docstring_of_its_class() -> None:
    """The text of an exception needs no name."""
    missing = {}
    for path, each in public_classes():
        made = methods(each).get("__init__") if isinstance(each.node, ast.ClassDef) else None
        text = "\n".join(filter(None, (ast.get_docstring(node) for node in (each.node, made) if node)))
        if made and (names := [name for name in unnamed(made, text) if name != "text"]):
            missing[path] = names
    assert not missing


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
