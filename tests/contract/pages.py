"""README.md and the pages of docs/, as the tests read them."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["EXAMPLES", "PAGES", "PYTHON_BLOCKS", "ROOT", "SHELL_BLOCKS", "blocks", "section"]

ROOT = Path(__file__).parents[2]
PAGES = {
    str(file.relative_to(ROOT)): file.read_text(encoding="utf-8")
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
"""The text of each page by its path."""
_EXAMPLE = re.compile(r"<!-- example: (\w+) -->\n```(?:python|sh)\n(.*?)```", re.DOTALL)


def _examples() -> dict[str, str]:
    found: dict[str, str] = {}
    for path, text in PAGES.items():
        for name, code in _EXAMPLE.findall(text):
            assert found.setdefault(name, code) == code, f"{path}: the example {name} has another text elsewhere"
    return found


def blocks(language: str, text: str | None = None) -> list[str]:
    """The code blocks in one language, of one text or of all pages."""
    texts = PAGES.values() if text is None else [text]
    return [
        code for each in texts for code in re.findall(rf"^```{language}\n(.*?)^```", each, re.DOTALL | re.MULTILINE)
    ]


def section(title: str) -> str:
    """The text under a heading of the second level, which one page has."""
    (found,) = [text.partition(f"## {title}\n")[2] for text in PAGES.values() if f"\n## {title}\n" in text]
    return found.partition("\n## ")[0]


EXAMPLES = _examples()
"""The examples with a name, by it."""
PYTHON_BLOCKS = blocks("python")
SHELL_BLOCKS = blocks("sh")
