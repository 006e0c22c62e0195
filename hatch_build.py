"""Run by hatchling while it builds: README.md as an index shows it, whose links lead to the repository instead of to
files beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s]+\))")


def absolute(text: str, place: str) -> str:
    """Markdown in which each relative link begins with `place`. Code stays as it is."""
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(rf"\g<1>{place}\g<2>", text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, _LINK.sub(rf"\g<1>{place}\g<2>", text[end:])])


class Readme(MetadataHookInterface):
    """Gives `project.readme`, from README.md and the repository of `project.urls`."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        place = f"{metadata['urls']['Repository']}/blob/v{metadata['version']}/"
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, place)}
