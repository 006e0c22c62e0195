"""The messages of errors: each tells the reader what to do next.

A sentence with a verb for the reader (write, use, name, …), a command or a flag counts as such. Messages that repeat
another error's text are left out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.contract.pages import ROOT

KINDS = frozenset(
    (
        "UsageError", "ConfigurationError", "StorageRefused", "StorageUnavailable", "StorageAbsent", "StorageFull", "CannotOpen",
        "ContentRefused", "NotFound", "Conflict", "PluginError", "InvalidMessage", "MessageTooLarge", "AddressInvalid", "HostRefused",
        "EngineClosed", "WrongLoop", "FeedError", "Backlogged",
    )
)  # fmt: skip
_STEP = re.compile(
    r"\b(add|ask|attach|call|change|check|choose|close|connect|correct|create|drop|end|enter|export|fetch|get|give|grant|hand|"
    r"install|keep|leave|let|log|look|lower|make|move|must|name|open|post|put|raise|read|register|remove|rename|repeat|restore|"
    r"revoke|run|save|say|see|send|set|shorten|show|sign|start|subscribe|take|try|upgrade|use|wait|write|one of|there are|"
    r"it has|at most)\b|`fanout|--|_FORM|_HINT|_HELP|_SHAPE|KINDS|SUFFIXES|URGENCIES",
    re.IGNORECASE,
)
_OWN = re.compile(r"[A-Za-z]{2,} [a-z]{2,} [a-z]+")
"""Three words: a message of its own, and no other error's."""


def messages(source: str) -> Iterator[tuple[int, str]]:
    """The messages of raised errors, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            text = " ".join(ast.unparse(each) for each in node.exc.args)
            if ast.unparse(node.exc.func).rpartition(".")[2] in KINDS and _OWN.search(text):
                yield node.lineno, text


CEILING = 6
"""Messages that name the key or value and no step. Lower the number when it has fallen."""


def test_an_error_says_what_to_do_next() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{line}: {text}"
        for folder in ("fanout", "transports")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for line, text in messages(file.read_text(encoding="utf-8"))
        if not _STEP.search(text)
    ]
    assert len(found) <= CEILING, "say what to do next:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("code", "step"),
    [
        ("raise UsageError('ttl is far too long')", False),
        ("raise UsageError('ttl is far too long: write at most a year')", True),
        ("raise errors.NotFound(f'The app {app} has no endpoint {id}')", False),
        ("raise UsageError(f'{key}: {error}')", None),
        ("raise ValueError('ttl is far too long')", None),
    ],
)
def test_the_rule_finds_a_message_without_a_step(code: str, step: bool | None) -> None:
    assert [bool(_STEP.search(text)) for _, text in messages(code)] == ([] if step is None else [step])
