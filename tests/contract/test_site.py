"""The pages: their links, the length of their lines, their places in the site, and the site as it is built."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import yaml

from fanout.core.model import LANES
from fanout.core.outcome import Outcome, Scope
from fanout.core.states import DeliveryState, NotificationState, Waiting
from tests.contract.pages import ROOT
from tests.contract.public_names import REACHED

SKIPPED = {".venv", "node_modules", "site", ".git"}


def _pages(folder: Path) -> Iterator[Path]:
    """The pages below a folder. An environment of Python beside them has 30,000 files, which are not listed."""
    for each in folder.iterdir():
        if each.name not in SKIPPED and not each.name.startswith("."):
            if each.is_dir():
                yield from _pages(each)
            elif each.suffix == ".md":
                yield each.relative_to(ROOT)


FILES = sorted(_pages(ROOT))
WIDTH = 120
_FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2 *$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text: str) -> str:
    """A page without its code blocks, line for line."""
    return _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)


def slug(heading: str) -> str:
    """The anchor of a heading, which GitHub and the site give alike."""
    plain = re.sub(r"[`*]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)).strip().lower()
    return re.sub(r"[\s]", "-", re.sub(r"[^\w\s-]", "", plain))


@cache
def anchors(file: Path) -> frozenset[str]:
    text = prose((ROOT / file).read_text(encoding="utf-8"))
    return frozenset(slug(heading) for heading in re.findall(r"^#+ +(.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_line_of_prose_is_too_long(file: Path) -> None:
    """Rows of tables, and code, may be longer."""
    lines = prose((ROOT / file).read_text(encoding="utf-8")).splitlines()
    long = [n for n, line in enumerate(lines, 1) if len(line) > WIDTH and not line.lstrip().startswith("|")]
    assert not long, f"{file}: lines {long} are longer than {WIDTH} characters"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_link_within_the_repository_is_dead(file: Path) -> None:
    for link in _LINK.findall(re.sub(r"`[^`\n]*`", "", prose((ROOT / file).read_text(encoding="utf-8")))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / file).parent / path if path else ROOT / file
        assert target.exists(), f"{file}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.resolve().relative_to(ROOT)), f"{file}: {link} has no such heading"


_PRONOUN = re.compile(
    r"\b(nobody|somebody|anybody|everybody|whoever|whom|her|hers)\b|(?:^|[.;:] |^[-*] |\| )(?:What|Who|Whatever)\b(?![^|.\n]*\?)",
    re.MULTILINE | re.IGNORECASE,
)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_sentence_has_a_noun_for_a_subject(file: Path) -> None:
    """A question of a table may begin with a pronoun, and a heading may."""
    text = re.sub(r"`[^`\n]*`|^#.*$", "x", prose((ROOT / file).read_text(encoding="utf-8")), flags=re.MULTILINE)
    assert not [found[0] for found in _PRONOUN.finditer(text)], file


def test_the_glossary_has_each_word_of_the_public_vocabulary() -> None:
    """One sentence for each, in the order of the alphabet."""
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.MULTILINE)[1:]
    words = [word for word, _ in rows]
    assert words == sorted(words, key=lambda word: (word.lower(), word))
    assert not [word for word, sentence in rows if not re.fullmatch(r"(?:[^.]|\.\d)+\.", sentence)]
    spoken = {word.replace("-", "") for word in words}
    states = {each.value for kind in (DeliveryState, NotificationState, Waiting, Scope) for each in kind}
    outcomes = {each.__name__ for each in get_args(Outcome)}
    assert states | outcomes | set(LANES) <= spoken, (states | outcomes | set(LANES)) - spoken


def test_the_readme_and_the_architecture_are_short() -> None:
    for name, limit in (("README.md", 180), ("ARCHITECTURE.md", 200)):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= limit, name


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "docs" / "reference").glob("*.md"))
    named = set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))
    public = set()
    for module in ("", ".sync", ".plugin", ".service", ".service.auth", ".client", ".testing", ".metrics"):
        path = f"fanout{module}"
        public |= {f"{path}.{name}" for name in import_module(path).__all__ if not name.startswith("_")}
    assert named == public | {f"{module}.{name}" for module, name in REACHED.values()}


def test_every_page_has_a_place_in_the_site() -> None:
    def places(nav: object) -> Iterator[str]:
        if isinstance(nav, str):
            yield nav
        for each in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
            yield from places(each)

    listed = list(places(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert len(set(listed)) == len(listed)
    there = {str(file.relative_to("docs")) for file in FILES if file.parts[0] == "docs"}
    elsewhere = set(re.findall(r'^    "([\w-]+\.md)": "', (ROOT / "docs/_hooks/repository_pages.py").read_text(), re.M))
    assert set(listed) == there | elsewhere


class _Loads(HTMLParser):
    """Addresses that a browser fetches for a page, without a click."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev", "alternate"):
            self.found.append(given.get("href") or "")
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed", "object"):
            self.found += [given.get(name) or "" for name in ("src", "srcset", "data")]


def test_each_decision_has_a_number_of_its_own() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    numbers = re.findall(r"^### (D\d+a?)\. ", text, re.MULTILINE)
    assert len(numbers) == text.count("\n### ")
    assert len(set(numbers)) == len(numbers)


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """With no network at all, where this machine can do so."""
    alone = ["unshare", "-n"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        alone = []
    words = [*alone, sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=850, check=False)


@pytest.mark.timeout(900)
@pytest.mark.long("links, anchors and places are checked without mkdocs")
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is missing: make docs installs it")
def test_the_site_is_built_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = build(ROOT, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= 40
    for page in pages:
        loads = _Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        assert not [each for each in loads.found if re.match(r"(https?:)?//", each)], page
    for sheet in (tmp_path / "site").rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\"' ]+", text), sheet


@pytest.mark.long("the dead link is found without mkdocs")
@pytest.mark.timeout(900)
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is missing: make docs installs it")
def test_a_dead_link_ends_the_build(tmp_path: Path) -> None:
    names = {"mkdocs.yml", "docs", "fanout", "transports", *(str(file) for file in FILES)}
    for name in sorted(names):
        if not (tmp_path / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    page = tmp_path / "docs" / "gates.md"
    dead = "\n[one](nowhere.md) [two](outcomes.md#nowhere)\n"
    page.write_text(page.read_text(encoding="utf-8") + dead, encoding="utf-8")
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    assert "nowhere.md" in built.stderr
    assert "#nowhere" in built.stderr


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is missing: make docs installs it")
def test_a_link_is_rewritten_from_the_repository_to_the_site() -> None:
    from mkdocs.exceptions import PluginError

    hook = runpy.run_path(str(ROOT / "docs/_hooks/repository_pages.py"))

    def moved(source: str, text: str) -> str:
        written: str = hook["on_page_markdown"](text, SimpleNamespace(file=SimpleNamespace(src_uri=source)))
        return written

    assert moved("gates.md", "[a](outcomes.md#x)") == "[a](outcomes.md#x)"
    assert moved("gates.md", "[a](../ARCHITECTURE.md#layers)") == "[a](architecture.md#layers)"
    assert moved("apns.md", "![a](../../docs/plots/a.svg)") == "![a](plots/a.svg)"
    assert moved("reference/library.md", "[a](../../README.md)") == "[a](../index.md)"
    assert moved("gates.md", "```\n[a](../fanout/x.py)\n```") == "```\n[a](../fanout/x.py)\n```"
    with pytest.raises(PluginError, match=re.escape("docs/gates.md: the link to fanout/x.py")):
        moved("gates.md", "[a](../fanout/x.py)")
