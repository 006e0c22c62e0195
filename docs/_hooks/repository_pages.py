"""Pages of the site that stand elsewhere in the repository, and links between all of them.

A link is written as GitHub follows it, from file to file. The site has its own places, so each link is rewritten here.
A link that leads to a file outside the site ends the build, as does one that leads nowhere.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCS = "docs"
ELSEWHERE = {
    "apns.md": "transports/fanout_apns/README.md",
    "architecture.md": "ARCHITECTURE.md",
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "deployment.md": "deploy/README.md",
    "fcm.md": "transports/fanout_fcm/README.md",
    "security.md": "SECURITY.md",
    "webpush.md": "transports/fanout_webpush/README.md",
    "wns.md": "transports/fanout_wns/README.md",
}
"""The page of the site, and the file of the repository that it is made from."""
_PLACES = {source: page for page, source in ELSEWHERE.items()} | {"README.md": "index.md"}
_FENCE = re.compile(r"^(`{3,}).*?^\1\s*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that stand elsewhere."""
    for page, source in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of one page. Code blocks stay as they are."""
    place = page.file.src_uri
    source = ELSEWHERE.get(place, f"{DOCS}/{place}")

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[2]))
        if target.startswith(f"{DOCS}/"):
            leads_to = target.removeprefix(f"{DOCS}/")
        elif target in _PLACES:
            leads_to = _PLACES[target]
        else:
            raise PluginError(f"{source}: the link to {target} leads to no page of the site.")
        return found[1] + posixpath.relpath(leads_to, posixpath.dirname(place) or ".") + found[3]

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(moved, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(moved, markdown[end:])])
