"""Files and names of the code that a page mentions are there."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from tests.contract.pages import ROOT

FILES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "transports").glob("*/README.md")),
]
OURS = ("fanout/", "tests/", "transports/", "docs/", "benchmarks/", "deploy/")
_ROOTS = ("", "fanout", "fanout/service", "fanout/storage", "transports", "docs", "deploy")
_PATH = re.compile(r"(?:[\w<>*-]+/)+[\w<>*-]*(?:\.(?:py|md|toml|js|json|yaml|yml|sh|txt))?|[\w-]+\.py")
_IN_FILE = re.compile(r"`([A-Za-z_][\w.]*)(?:\([^`]*\))?` (?:of|in) `([\w/<>]+\.py)`")
_DOTTED = re.compile(r"`(fanout(?:_\w+)?(?:\.\w+)+)(?:\([^`]*\))?`")
_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
PAGES = {str(file.relative_to(ROOT)): _FENCE.sub("", file.read_text(encoding="utf-8")) for file in FILES}
ELSEWHERE = re.compile(r"fanout\.(?:toml|db|js|transports|storage|id|url|image|actions|badge)")
"""A reader's files, the web client, groups of entry points, and keys of a push's data."""


def there(path: str) -> bool:
    pattern = re.sub(r"<\w+>", "*", path).rstrip("/")
    if "/" not in path:
        return any(next((ROOT / root.rstrip("/")).rglob(path), None) is not None for root in OURS)
    return any(next((ROOT / root).glob(pattern), None) is not None for root in _ROOTS)


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one; a loggers' name is a module's too."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: object = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return part in getattr(found, "__annotations__", {}) or part in getattr(found, "__slots__", ())
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES)
def test_a_file_that_a_page_names_is_there(page: str) -> None:
    words = re.findall(r"`([^`\n]+)`", PAGES[page])
    paths = {
        word for word in words if (_PATH.fullmatch(word) and word.startswith(OURS)) or re.fullmatch(r"\w+\.py", word)
    }
    beside = (ROOT / page).parent
    assert not {path for path in paths if not there(path) and not (beside / path).exists()}


@pytest.mark.parametrize("page", PAGES)
def test_a_name_that_a_page_puts_into_a_file_is_in_it(page: str) -> None:
    for name, path in _IN_FILE.findall(PAGES[page]):
        files = [file for root in _ROOTS for file in (ROOT / root).glob(re.sub(r"<\w+>", "*", path))]
        text = "\n".join(file.read_text(encoding="utf-8") for file in files)
        assert all(re.search(rf"\b{part}\b", text) for part in name.split(".")), f"{name} is not in {path}"


@pytest.mark.parametrize("page", PAGES)
def test_a_dotted_name_of_ours_is_there(page: str) -> None:
    names = {name for name in _DOTTED.findall(PAGES[page]) if not ELSEWHERE.fullmatch(name)}
    assert not {name for name in names if not resolves(name)}
