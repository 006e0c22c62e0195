"""The docstring of each public function and method: what it returns, what it raises, the units of numbers, and an
example where users call it.

The sections are Google's, which the reference renders: `Args:`, `Returns:` or `Yields:`, `Raises:`, `Example:`.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Mapping
from functools import cache

import pytest

from .public_names import (
    Defined,
    Function,
    Public,
    bases,
    defined,
    is_property,
    methods,
    names_of,
    parameters,
    public,
    public_classes,
)  # fmt: skip

ALL = {each.path: each for each in public(properties=True)}
FUNCTIONS = {path: each for path, each in ALL.items() if not is_property(each.node)}
_SECTION = r"^{name}:\n((?:[ \t]+.*\n?|\n)*)"


def section(text: str, name: str) -> str:
    """The lines of one section of a docstring; "" where it has none."""
    found = re.search(_SECTION.format(name=name), text, re.MULTILINE)
    return found[1] if found else ""


def entries(text: str, name: str) -> dict[str, str]:
    """The entries of a section by their names: several may share one entry."""
    found: dict[str, str] = {}
    for head, body in re.findall(
        r"^    ([*\w][\w*, .]*):(?: |\n)((?:.*\n?)(?:^     .*\n?|^\n)*)", section(text, name), re.MULTILINE
    ):
        found |= dict.fromkeys((each.strip().lstrip("*") for each in head.split(",")), body)
    return found


# -- returns

_NOUN = re.compile(r"(The|A|An|Whether|All|Connections|Each|Every|How|One|No|Those|Seconds|Bytes) ")
"""The first word of a sentence that says what a function is, so what it returns. It serves where there is no
argument."""


def unsaid(node: Function, text: str) -> bool:
    """Whether a docstring does not say what the function returns."""
    annotation = ast.unparse(node.returns) if node.returns else "None"
    if annotation in ("None", "NoReturn", "Never") or is_property(node):
        return False
    if section(text, "Returns") or section(text, "Yields"):
        return False
    return bool(parameters(node)) or not _NOUN.match(text)


def test_every_public_function_says_what_it_returns() -> None:
    assert not [path for path, each in ALL.items() if unsaid(each.node, each.text)]


# -- raises


@cache
def faults() -> Mapping[str, frozenset[str]]:
    """The exceptions that a docstring may name, each with the classes that it is one of: of `fanout`, and Python's
    own."""
    found = {
        name: frozenset(each.__name__ for each in kind.__mro__)
        for name, kind in vars(builtins).items()
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    for module in ("fanout.errors", "fanout.http.response", "fanout.http.guard", "fanout.http.guard_resolver", "fanout.http.tokens",
                   "fanout.client.wire", "fanout.client.token_endpoint", "fanout.service.auth.errors"):  # fmt: skip
        for name in names_of(module):
            each = defined(module, name)
            if each is not None and isinstance(each.node, ast.ClassDef):
                kinds = {name, *(base.node.name for base in bases(each))}
                named = [ast.unparse(base) for one in (each, *bases(each)) for base in getattr(one.node, "bases", ())]
                if any(base in found for base in named):
                    kinds |= {above for base in named for above in found.get(base, ())}
                    found[name] = frozenset(kinds)
    return found


def _guarded(node: Function) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    """Each node of a function's body, with the exceptions that are caught around it. Functions within it are their own
    affair."""
    waiting: list[tuple[ast.AST, frozenset[str]]] = [(each, frozenset()) for each in node.body]
    while waiting:
        each, caught = waiting.pop()
        yield each, caught
        if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        inside: list[ast.AST] = list(ast.iter_child_nodes(each))
        if isinstance(each, ast.Try):
            more = caught | {
                name
                for handler in each.handlers
                for name in re.findall(r"\w+", ast.unparse(handler.type or ast.Name("BaseException")))
            }
            waiting += [(one, more) for one in each.body]
            inside = [*each.handlers, *each.orelse, *each.finalbody]
        waiting += [(one, caught) for one in inside]


@cache
def called(each: Public, call: ast.Call) -> Public | None:
    """The function of this package that a call runs, as far as the names tell: of the module, or of the same class."""
    target = call.func
    if (
        isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id in ("self", "cls")
        and each.owner
    ):
        for owner in (each.owner, *bases(each.owner)):
            if (node := methods(owner).get(target.attr)) is not None:
                return Public(target.attr, owner.module, owner, node, ast.get_docstring(node) or "")
    found: Defined | None = None
    if isinstance(target, ast.Name):
        found = defined(each.module, target.id)
    elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
        module = names_of(each.module).get(target.value.id)
        if isinstance(module, ast.ImportFrom) and (module.module or "").startswith("fanout"):
            path = f"{module.module}.{target.value.id}"
            try:
                found = defined(path, target.attr)
            except OSError:
                found = None
    if found is None or isinstance(found.node, ast.ClassDef):
        return None
    return Public(found.node.name, found.module, None, found.node, ast.get_docstring(found.node) or "")


@cache
def raised(each: Public, depth: int = 2) -> Mapping[str, bool]:
    """The exceptions that a function raises itself, and those of the functions that it calls: True for its own."""
    found: dict[str, bool] = {}
    for node, caught in _guarded(each.node):
        names: dict[str, bool] = {}
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            names[ast.unparse(node.exc.func).rpartition(".")[2]] = True
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "refuse":
            names[ast.unparse(node.args[1]) if len(node.args) > 1 else "ConfigurationError"] = True
        elif isinstance(node, ast.Call) and depth and (inner := called(each, node)) is not None:
            said = section(inner.text, "Raises")
            names = dict.fromkeys(entries(inner.text, "Raises") if said else raised(inner, depth - 1), False)
        for name, own in names.items():
            kinds = faults().get(name)
            if kinds is not None and not kinds & caught:
                found[name] = own or found.get(name, False)
    return found


NOT_RAISED = {
    "AssertionError": "a fault of ours",
    "NotImplementedError": "of a method that another class has",
    "AttributeError": "of a name that there is not",
}


def unnamed_faults(each: Public) -> list[str]:
    """The exceptions of a function that its docstring names in no `Raises:`; a kind stands for those of other
    functions."""
    named = entries(each.text, "Raises").keys()
    return [
        name
        for name, own in raised(each).items()
        if name not in NOT_RAISED and not (name in named if own else faults()[name] & named)
    ]


def test_every_public_function_names_what_it_raises() -> None:
    missing = {path: names for path, each in ALL.items() if (names := unnamed_faults(each))}
    assert not missing


def test_every_public_class_names_what_making_and_entering_it_raises() -> None:
    missing = {}
    for path, each in public_classes():
        text = ast.get_docstring(each.node) or ""
        for name in ("__init__", "__post_init__", "__enter__", "__aenter__"):
            node = methods(each).get(name) if isinstance(each.node, ast.ClassDef) else None
            if node and (
                names := [kind for kind in raised(Public(path, each.module, each, node, text)) if kind not in text]
            ):
                missing[path] = names
    assert not missing


def test_no_docstring_names_an_exception_that_there_is_not() -> None:
    unknown = {
        path: names
        for path, each in ALL.items()
        if (names := [name for name in entries(each.text, "Raises") if name not in faults()])
    }
    assert not unknown


def test_no_docstring_says_in_a_sentence_what_a_section_is_for() -> None:
    assert not [path for path, each in ALL.items() if re.search(r"\b[Rr]aises? `?[A-Z]\w+", each.text)]


# -- arguments


def test_no_docstring_describes_an_argument_that_there_is_not() -> None:
    unknown = {}
    for path, each in FUNCTIONS.items():
        there = {name.arg for name in ast.walk(each.node.args) if isinstance(name, ast.arg)}
        if names := entries(each.text, "Args").keys() - there:
            unknown[path] = names
    assert not unknown


_UNIT = re.compile(
    r"\b(seconds?|milliseconds|UNIX|bytes|characters|per second|attempts|requests|deliveries|endpoints|connections|rows|events|items|"
    r"users|workers|chunks|notifications|entries|subscriptions|share|fraction|codes?|number of|numbers?|ids?|index|cursor|port|entry|generation|epoch)\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\b(int|float)\b(?!\])")


def unitless(each: Public) -> list[str]:
    """The numbers among the arguments for which neither the name nor the docstring has a unit."""
    described = entries(each.text, "Args")
    return [
        name
        for name, annotation in parameters(each.node).items()
        if re.fullmatch(r"(int|float)( \| \w+)*", annotation)
        and not name.endswith(("_s", "_bytes"))
        and not _UNIT.search(described.get(name, ""))
    ]


def test_every_number_has_a_unit() -> None:
    assert not {path: names for path, each in FUNCTIONS.items() if (names := unitless(each))}


def test_a_docstring_refers_to_members_that_there_are() -> None:
    members: dict[str, set[str]] = {}
    for _, each in public_classes():
        there = members.setdefault(
            each.node.name, {"start"} if each.node.name == "Transport" else set()
        )  # one that it may have
        for node in (node for one in (each, *bases(each)) for node in ast.walk(one.node)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                there.add(node.name)
            elif isinstance(node, (ast.AnnAssign, ast.Assign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                there |= {ast.unparse(target).removeprefix("self.") for target in targets}
    texts = {path: each.text for path, each in ALL.items()}
    texts |= {path: ast.get_docstring(each.node) or "" for path, each in public_classes()}
    referred = {
        (path, *name) for path, text in texts.items() for name in re.findall(r"`(?:\w+\.)*([A-Z]\w+)\.(\w+)", text)
    }
    assert not [each for each in referred if each[1] in members and each[2] not in members[each[1]]]


def undescribed(node: ast.ClassDef) -> list[str]:
    """The fields of a class that neither its docstring nor a text behind them describes."""
    text = ast.get_docstring(node) or ""
    found = []
    for field, behind in zip(node.body, [*node.body[1:], None], strict=True):
        described = isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant)
        if not isinstance(field, ast.AnnAssign) or described or "ClassVar" in ast.unparse(field.annotation):
            continue
        name = ast.unparse(field.target)
        if name[0] != "_" and not re.search(rf"`[^`\n]*\b{name}\b|^ +(\w+, )*{name}(, \w+)*:", text, re.MULTILINE):
            found.append(name)
    return found


def test_every_field_of_what_users_make_and_read_is_described() -> None:
    """The fields of the contracts and of the configuration are named where they are read: in methods, and in tables of
    the pages."""
    assert not {
        path: fields
        for path, each in public_classes()
        if path.rpartition(".")[0] in ("fanout", "fanout.client")
        and isinstance(each.node, ast.ClassDef)
        and (fields := undescribed(each.node))
    }


# -- the test itself


def function(code: str) -> Public:
    (node,) = ast.parse(code).body
    assert isinstance(node, ast.FunctionDef)
    return Public("made", "fanout.errors", None, node, ast.get_docstring(node) or "")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('def size() -> int: "The size."', []),
        ('def size() -> int: "Measure."', ["returns"]),
        ('def size(of: str) -> int: "The size of `of`."', ["returns"]),
        ('def wait(timeout: float) -> None: "Wait.\\n\\nArgs:\\n    timeout: How long."', ["timeout"]),
        ('def wait(timeout: float) -> None: "Wait.\\n\\nArgs:\\n    timeout: Seconds."', []),
        ('def wait(timeout_s: float) -> None: "Wait."', []),
        ("def stop() -> None:\n    raise Conflict('now')", ["Conflict"]),
        (
            "def stop() -> None:\n    'Stop.\\n\\nRaises:\\n    FanoutError: Now.'\n    raise Conflict('now')",
            ["Conflict"],
        ),
        ("def stop() -> None:\n    'Stop.\\n\\nRaises:\\n    NotFound, Conflict: Now.'\n    raise Conflict('now')", []),
        ("def stop() -> None:\n    try:\n        raise Conflict('now')\n    except FanoutError:\n        pass", []),
        ("def stop() -> None:\n    refuse(['now'])", ["ConfigurationError"]),
    ],
)
def test_what_is_not_said_is_found(code: str, found: list[str]) -> None:
    each = function(code)
    said = ["returns"] if unsaid(each.node, each.text) else []
    assert sorted(said + unitless(each) + unnamed_faults(each)) == sorted(found)
