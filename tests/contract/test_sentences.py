"""The sentences of docstrings, comments and messages: a noun is the subject, not a pronoun (`what`, `who`, `nobody`).

Pages are held to the same by `test_site`. Texts of SQL are left out: a released step of a schema does not change.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.contract.pages import ROOT

FOLDERS = ("fanout", "transports", "benchmarks", "tests/kit")
SOURCES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
OTHERS = sorted(
    file
    for folder in (*FOLDERS, "deploy", "docs")
    for file in (ROOT / folder).rglob("*")
    if file.suffix in (".js", ".mjs", ".css", ".html", ".toml", ".yaml", ".yml", ".service", ".sh")
    or file.name == "Dockerfile"
)
_PRONOUN = "what|whatever|who|whoever|nobody|somebody|anybody|everybody|someone|anyone|everyone"
_SUBJECT = re.compile(
    rf"(?:(?:^|[.:;!?)\]] )[\"'(]*(?:and |but |so )?(?:{_PRONOUN}|whose|whom)|, (?:and|but|so) (?:{_PRONOUN}))\b[^.?]*(?P<mark>\??)",
    re.I,
)
_WITHIN = re.compile(rf"\b(?:{_PRONOUN})\b(?![^.;]*\?)", re.I)
_SQL = re.compile(r"\b(?:CREATE|ALTER|SELECT|UPDATE|INSERT|DELETE)\b")
_MARKS = re.compile(r"^\s*(?:///?|/\*\*?|\*(?=\s)|#|<!--|;)\s?(.*?)(?:\*/|-->)?$")
_COMMENT = re.compile(r"(?:^|.*?\s)#\s(.*)")
_CODE = re.compile(r"``?[^`]*``?")


def subjects(text: str) -> list[str]:
    """Beginnings of sentences and clauses of a text that have a pronoun for a subject; a question may."""
    plain = _CODE.sub("`x`", " ".join(text.split()))
    return [found[0][:80] for found in _SUBJECT.finditer(plain) if not found["mark"]]


def blocks(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Comments on following lines, joined."""
    first, last, words = 0, -1, list[str]()
    for line, text in lines:
        if line != last + 1 and words:
            yield first, " ".join(words)
            words = []
        first, last = (first if words else line), line
        words.append(text)
    if words:
        yield first, " ".join(words)


def comments(source: str, form: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    return ((line, text[1]) for line, each in enumerate(source.splitlines(), 1) if (text := form.match(each)))


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings, comments and texts of more than one word of a module, each with its line."""
    parts, found = set[ast.AST](), list[tuple[int, str]]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts.update(node.values)
            texts = (each.value if isinstance(each, ast.Constant) else "X" for each in node.values)
            found.append((node.lineno, "".join(map(str, texts))))
        elif isinstance(node, ast.Constant) and node not in parts and isinstance(node.value, str):
            found.append((node.lineno, node.value))
    yield from ((line, text) for line, text in found if " " in text and not _SQL.search(text))
    yield from blocks(comments(source, _COMMENT))


@cache
def prose_of(file: Path) -> list[tuple[int, str]]:
    """`prose` of a file, which is parsed once for all tests."""
    return [*prose(file.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_sentence_of_the_code_has_a_noun_for_a_subject(folder: str) -> None:
    found = {
        f"{file.relative_to(ROOT)}:{line}": wrong
        for file in SOURCES
        if file.is_relative_to(ROOT / folder)
        for line, text in prose_of(file)
        if (wrong := subjects(text))
    }
    assert not found


def test_a_comment_of_other_files_has_a_noun_for_a_subject() -> None:
    found = {}
    for file in OTHERS:
        lines = comments(file.read_text(encoding="utf-8"), _MARKS)
        found |= {
            f"{file.relative_to(ROOT)}:{line}": wrong for line, text in blocks(lines) if (wrong := subjects(text))
        }
    assert not found


CEILING = {"fanout": 178, "transports": 4, "benchmarks": 8, "tests/kit": 9}
"""Pronouns that still stand for a noun within a sentence. Lower a number when it has fallen."""


@pytest.mark.parametrize("folder", FOLDERS)
def test_pronouns_within_sentences_become_fewer(folder: str) -> None:
    found = sum(
        len(_WITHIN.findall(_CODE.sub("", text)))
        for file in SOURCES
        if file.is_relative_to(ROOT / folder)
        for _, text in prose_of(file)
    )
    assert found <= CEILING[folder], "write a noun: the worker, the caller, the deliveries that …"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("The lease ends: what it held is due.", True),
        ("Nobody waits.", True),
        ("It ends. Who waits is told.", True),
        ("An end, and whoever waits is told.", True),
        ("What is a lease?", False),
        ("A lease names the worker who holds it.", False),
        ("The event is `what` and a reason.", False),
    ],
)
def test_the_rule_finds_a_pronoun_and_leaves_a_question(text: str, wrong: bool) -> None:
    assert bool(subjects(text)) is wrong
    assert bool([*subjects(next(prose(f'"""{text}"""'))[1])]) is wrong


# -- length

COLUMNS = 120
_FOR_A_TOOL = re.compile(r"#.*\b(?:noqa|type: ignore|pyright|fmt)\b|^\s*\|")


def too_long(source: str) -> list[int]:
    """The lines of docstrings and of comments that end behind column 120, by their numbers. Rows of a table, and
    comments to a tool, may be longer; code is the formatter's affair."""
    lines = source.splitlines()
    long = {number for number, line in enumerate(lines, 1) if len(line) > COLUMNS and not _FOR_A_TOOL.search(line)}
    if not long:
        return []
    text = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    return sorted(number for number in long if number in text or _COMMENT.match(lines[number - 1]))


def test_a_line_of_prose_in_the_code_ends_by_column_120() -> None:
    files = [ROOT / "hatch_build.py", *SOURCES, *(ROOT / "docs").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    assert not {
        f"{file.relative_to(ROOT)}:{number}" for file in files for number in too_long(file.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize(
    ("line", "long"),
    [
        ('"""{}"""', True),
        ("# {}", True),
        ("x = 1  # {}", True),
        ("x = 1  # noqa: ARG001 {}", False),
        ('x = "{}"', False),
        ('"""Words:\n\n| {} |\n"""', False),
    ],
)
def test_the_rule_finds_a_long_line_of_prose(line: str, long: bool) -> None:
    assert bool(too_long(line.format("word " * 24))) is long
    assert not too_long(line.format("word"))
