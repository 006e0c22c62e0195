"""How much code there is, by folder, and what of it is long or goes in a circle.

    python tests/contract/code_lines.py                 the working tree beside the commits that its limits are of
    python tests/contract/code_lines.py REVISION …      any revisions of git

A code line holds a token of the program: no docstring, no comment, no blank line. Counted is what the wheel has,
`fanout` and `transports`. `START` is the commit whose counts the limits are made of; each limit is a share of its
folder there.
"""

from __future__ import annotations

import ast
import io
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = [
    "ADDED", "LIMITS", "LONGEST", "MEDIAN", "START", "START_LINES", "by_folder", "circles", "code_lines", "folder_of", "limit_of", "of_revision",
    "of_tree", "over",
]  # fmt: skip

ROOT = Path(__file__).parents[2]
START = "4532593"
ORIENTATION = "48a4b63"
LIMITS = {"fanout/storage": 0.70, "fanout/testing": 0.58}
"""The share of its lines at `START` that a folder may have; all others may have as many."""
ADDED: dict[str, tuple[int, str]] = {
    "fanout": (
        9,
        "a module of endpoints of their own, which the facade names; want of memory is no fault of a plugin; names of overrides",
    ),
    "fanout/cli": (40, "a sentence for want of memory, and for a locale without the characters of an argument"),
    "fanout/config": (5, "a module of limits, so that a key more has room"),
    "fanout/storage": (
        114,
        "a remedy for a log that was deleted, for want of memory, and for a pool without a free connection; the opening of a gate, whose rows are chosen apart; one plan for what is due; others' commits, told from ours under way; endpoints that are alike, read by column",
    ),
    "fanout/testing": (16, "the law of a gate's opening"),
    "transports/fanout_fcm": (20, "the platforms' parts of a message, kept for those after it"),
    "transports/fanout_webpush": (191, "runs over HTTP/2; a send whose pool another has left"),
    "transports/fanout_wns": (45, "runs over HTTP/1.1"),
}
"""How many lines more a folder is held to at most, and for what that `START` had nothing of. The table says what it has
without them."""
START_LINES = {
    "fanout": 955,
    "fanout/_pyinstaller": 23,
    "fanout/cli": 3624,
    "fanout/client": 972,
    "fanout/config": 1682,
    "fanout/core": 2941,
    "fanout/engine": 4663,
    "fanout/enqueue": 221,
    "fanout/http": 3501,
    "fanout/metrics": 555,
    "fanout/plugin": 811,
    "fanout/service": 6155,
    "fanout/storage": 14522,
    "fanout/testing": 10591,
    "transports/fanout_apns": 1664,
    "transports/fanout_fcm": 2074,
    "transports/fanout_webpush": 2222,
    "transports/fanout_wns": 880,
}
"""What this counts at `START`, for a checkout whose history does not reach so far."""
LONGEST, MEDIAN = 450, 200
"""Lines that the longest file may have, and that half of the files have fewer than; all lines count here."""
_NO_CODE = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
)  # fmt: skip


def code_lines(source: str) -> int:
    """The lines of a module that hold code."""
    tree = ast.parse(source)
    documented: set[int] = set()
    spread = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            # A text that stands alone: of a module, a class, a function or, behind its assignment, of a name.
            documented.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, (ast.Constant, ast.JoinedStr)) and node.lineno not in documented:
            spread = spread or node.lineno != node.end_lineno
    lines = _lines_of_tokens(source) if spread else _lines_outside_of_texts(source)
    return len(lines - documented)


def _lines_of_tokens(source: str) -> set[int]:
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def _lines_outside_of_texts(source: str) -> set[int]:
    """The same, five times as fast, of a module in which no text but docstrings goes over several lines."""
    lines = enumerate(source.split("\n"), 1)
    return {number for number, line in lines if (text := line.strip()) and text[0] != "#"}


def folder_of(path: str) -> str:
    """The folder that a file is counted with: `fanout/engine`, `transports/fanout_apns`, and `fanout` for a module in
    it.

    `fanout/sync` was a module of it at `START`, and counts with it.
    """
    parts = path.replace("fanout/sync/", "fanout/").split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else parts[0]


def by_folder(files: Mapping[str, str]) -> dict[str, int]:
    """Code lines of each folder, by the sources of its files."""
    found: dict[str, int] = {}
    for path, source in files.items():
        found[folder_of(path)] = found.get(folder_of(path), 0) + code_lines(source)
    return dict(sorted(found.items()))


def of_tree(root: Path = ROOT) -> dict[str, str]:
    """The sources of the wheel in a checkout, by path."""
    files = [file for part in ("fanout", "transports") for file in sorted((root / part).rglob("*.py"))]
    return {file.relative_to(root).as_posix(): file.read_text(encoding="utf-8") for file in files}


def of_revision(revision: str, root: Path = ROOT) -> dict[str, str] | None:
    """The same of a revision of git; None where there is none of that name."""
    tree = _git(root, "ls-tree", "-r", "--format=%(objectname) %(path)", revision, "fanout", "transports")
    if tree is None:
        return None
    named = [line.split(" ", 1) for line in tree.decode().splitlines() if line.endswith(".py")]
    batch = _git(root, "cat-file", "--batch", given="".join(f"{name}\n" for name, _ in named).encode())
    assert batch is not None
    sources, at = {}, 0
    for _, path in named:
        head = batch.index(b"\n", at)
        size = int(batch[at:head].rsplit(b" ", 1)[1])
        sources[path] = batch[head + 1 : head + 1 + size].decode()
        at = head + size + 2
    return sources


def _git(root: Path, *words: str, given: bytes = b"") -> bytes | None:
    try:
        ended = subprocess.run(["git", *words], cwd=root, input=given, capture_output=True, check=False)
    except OSError:
        return None
    return None if ended.returncode else ended.stdout


def circles(files: Mapping[str, str], within: str) -> list[list[str]]:
    """Groups of modules below the package `within` that import each other in a circle. Imports for type checkers and in
    functions count."""
    names = {_module(path): path for path in files}
    mine = [name for name in names if name == within or name.startswith(within + ".")]
    graph = {name: {each for each in _imports(name, names, files[names[name]]) if each in mine} for name in mine}
    return [sorted(group) for group in _components(graph) if len(group) > 1]


def _module(path: str) -> str:
    return path.removeprefix("transports/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(name: str, names: Mapping[str, str], source: str) -> Iterator[str]:
    package = name if names[name].endswith("/__init__.py") else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in names else base


def _components(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The strongly connected components: each module with those that it reaches and that reach it."""
    reach = {name: _reached(graph, name) for name in graph}
    found: list[set[str]] = []
    for name in graph:
        group = {name} | {other for other in reach[name] if name in reach[other]}
        if group not in found:
            found.append(group)
    return found


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            ahead += graph[name]
    return seen


def limit_of(folder: str) -> int | None:
    """How many lines a folder may have; None for one that `START` does not have."""
    return int(START_LINES[folder] * LIMITS.get(folder, 1.0)) if folder in START_LINES else None


def over(counts: Mapping[str, int], *, added: bool = False) -> dict[str, int]:
    """The folders that have more lines than they may, and how many more; with `added`, beyond what is allowed for
    `ADDED` too."""
    limits = {folder: limit for folder in counts if (limit := limit_of(folder)) is not None}
    if added:
        limits = {folder: limit + ADDED.get(folder, (0, ""))[0] for folder, limit in limits.items()}
    return {folder: counts[folder] - limit for folder, limit in limits.items() if counts[folder] > limit}


def _table(counts: Mapping[str, dict[str, int]]) -> Iterator[str]:
    folders = sorted({folder for each in counts.values() for folder in each})
    yield f"{'code lines':24}" + "".join(f"{name:>12}" for name in counts) + f"{'limit':>10}{'share':>8}"
    last = list(counts.values())[-1]
    for folder in folders:
        limit, now = limit_of(folder), last.get(folder, 0)
        share = f"{now / START_LINES[folder]:8.2f}" if START_LINES.get(folder) else f"{'new':>8}"
        beyond = f"  {more:,} too many" if (more := over({folder: now}).get(folder)) else ""
        row = "".join(f"{each.get(folder, 0):12,}" for each in counts.values())
        yield f"{folder:24}{row}{'-' if limit is None else format(limit, ','):>10}{share}{beyond}"
    yield f"{'in all':24}" + "".join(f"{sum(each.values()):12,}" for each in counts.values())


def main(words: list[str]) -> int:
    """Print the table; 2 where a revision is unknown."""
    wanted = {word: of_revision(word) for word in (words or [ORIENTATION, START])}
    for word, sources in wanted.items():
        if sources is None:
            print(f"{word} is no revision of this repository", file=sys.stderr)
            if words:
                return 2
    tree = of_tree()
    known = {word: sources for word, sources in wanted.items() if sources is not None} | {"here": tree}
    print(*_table({word: by_folder(sources) for word, sources in known.items()}), sep="\n")
    for word, sources in known.items():
        lengths = {path: len(source.splitlines()) for path, source in sources.items()}
        longest = max(lengths, key=lambda path: lengths[path])
        print(
            f"\n{word}: {len(lengths)} files, median {statistics.median(lengths.values()):g} lines (under {MEDIAN}), longest {longest}"
        )
        print(
            f"  over {LONGEST}: " + (", ".join(f"{path} {n}" for path, n in lengths.items() if n > LONGEST) or "none")
        )
        for group in circles(sources, "fanout.storage"):
            print(f"  a circle in storage: {', '.join(group)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
