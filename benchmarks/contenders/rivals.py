"""Contenders that are programs of their own: the needs of each, its build from its package registry, its start.

Each has a folder here with its driver and its versions. At its first use that folder is copied to the user's cache, and
built there; a change of the folder makes another copy. A contender that cannot be built is named in a row instead.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.row import Row

__all__ = [
    "APNS2",
    "ARQ",
    "HYPER",
    "NODE_APN",
    "PROCRASTINATE",
    "PUSHY",
    "RIVER",
    "WEBPUSH_GO",
    "WEB_PUSH",
    "Absent",
    "Rival",
    "built",
    "is_built",
    "place",
    "present",
]

_SOURCES = Path(__file__).parent
_BUILT = "built.mark"
_PATIENCE = 900
"""Seconds for a build: hyper and its dependencies take over two minutes on one busy core."""
_DEBIAN = {
    "cargo": "cargo",
    "go": "golang-go",
    "java": "default-jre-headless",
    "mvn": "maven",
    "node": "nodejs",
    "npm": "npm",
    "redis-server": "redis-server",
}


class Absent(Exception):
    """A contender is not to be had; the text is a sentence for a row."""


@dataclass(frozen=True, slots=True)
class Rival:
    """One rival. `build` runs in the copy of `folder` and may be of several commands; `{python}` in a command is this
    interpreter."""

    name: str
    folder: str
    programs: tuple[str, ...]
    build: tuple[str, ...]
    command: tuple[str, ...]
    warm_up: int = 500
    """Requests before the first that counts, at least: a compiler that works at run time wants many."""


_GO = ("go", "build", "-p", "1", "-o", "driver", ".")
_NPM = ("npm", "install", "--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--ignore-scripts")
_PIP = (
    *("{python}", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
    *("--target", "lib", "-r", "requirements.txt"),
)

HYPER = Rival(
    "hyper (Rust)",
    "hyper",
    ("cargo",),
    ("cargo", "build", "--quiet", "--release", "--locked", "-j1"),
    ("target/release/driver",),
)
APNS2 = Rival("apns2 (Go)", "apns2", ("go",), _GO, ("./driver",))
PUSHY = Rival(
    "Pushy (Java)",
    "pushy",
    ("java", "mvn"),
    ("mvn", "--quiet", "--batch-mode", "compile"),
    ("java", "-cp", "target/classes:target/lib/*", "Driver"),
    warm_up=50_000,
)
NODE_APN = Rival("@parse/node-apn", "node", ("node", "npm"), _NPM, ("node", "driver.mjs", "apns"), warm_up=2_000)
WEB_PUSH = Rival("web-push (Node)", "node", ("node", "npm"), _NPM, ("node", "driver.mjs", "webpush"))
WEBPUSH_GO = Rival("webpush-go (Go)", "webpush_go", ("go",), _GO, ("./driver",))
RIVER = Rival("River (Go)", "river", ("go",), _GO, ("./driver",))
PROCRASTINATE = Rival("procrastinate", "procrastinate", (), _PIP, ("{python}", "procrastinate_driver.py"))
ARQ = Rival("arq on Redis", "arq", ("redis-server",), _PIP, ("{python}", "arq_driver.py"))


def built(rival: Rival) -> tuple[Path, list[str]]:
    """The folder to start it in, and its command; built if need be. Raises `Absent`."""
    missing = [program for program in rival.programs if shutil.which(program) is None]
    if missing:
        packages = " and ".join(_DEBIAN[program] for program in missing)
        raise Absent(f"skipped: install {packages} to compare with {rival.name}")
    folder = place(rival)
    if not is_built(folder):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(_SOURCES / rival.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
        if (folder / "locked.toml").exists():
            _lock(rival, folder)
        _build(rival, folder)
        (folder / _BUILT).touch()
    return folder, _filled(rival.command)


def place(rival: Rival) -> Path:
    """Where it is built, in the user's cache: each state of its sources has a folder."""
    return _cache() / f"{rival.folder}-{_mark(_SOURCES / rival.folder, rival)}"


def is_built(folder: Path) -> bool:
    """Whether a build there has come to its end."""
    return (folder / _BUILT).exists()


def present(*rivals: Rival) -> tuple[list[Rival], list[Row]]:
    """The rivals that can be built, and a row for each other one."""
    found, rows = [], []
    for rival in rivals:
        try:
            built(rival)
        except Absent as absent:
            rows.append(Row(str(absent), 0.0, ""))
        else:
            found.append(rival)
    return found, rows


def _lock(rival: Rival, folder: Path) -> None:
    """Make cargo's lock file of our versions and checksums; cargo says the name of its index."""
    _run(rival, folder, ("cargo", "generate-lockfile", "--quiet"))
    made = folder / "Cargo.lock"
    source = next(line for line in made.read_text().splitlines() if line.startswith("source = "))
    ours = (folder / "locked.toml").read_text()
    made.write_text(ours.replace("\nchecksum = ", f"\n{source}\nchecksum = "))


def _build(rival: Rival, folder: Path) -> None:
    _run(rival, folder, tuple(_filled(rival.build)))


def _run(rival: Rival, folder: Path, command: tuple[str, ...]) -> None:
    program = "pip" if command[0] == sys.executable else command[0]
    try:
        ended = subprocess.run(
            ["nice", "-n", "15", *command],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"skipped: {program} could not build {rival.name} within {_PATIENCE} s") from None
    if ended.returncode:
        lines = (ended.stderr.strip() or ended.stdout.strip() or "no reason given").splitlines()
        raise Absent(f"skipped: {program} could not build {rival.name} ({lines[-1][:80]})")


def _filled(command: tuple[str, ...]) -> list[str]:
    return [word.format(python=sys.executable) for word in command]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fanout-benchmarks"


def _mark(source: Path, rival: Rival) -> str:
    """Of the build's inputs: the files, the command, and for one in Python the version."""
    digest = hashlib.sha256(repr(_filled(rival.build)).encode())
    if "{python}" in rival.command:
        digest.update(sys.version.encode())
    for file in sorted(source.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(source)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]
