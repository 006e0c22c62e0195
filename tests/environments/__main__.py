"""The command line of `tests.environments`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from tests.side_by_side import SIDE_BY_SIDE

__all__ = ["floors", "interpreters", "main"]

_ROOT = Path(__file__).parents[2]
_VERSIONS = ("3.12", "3.13", "3.14")
_RUNTIME = ("aioapns", "pywebpush", "service", "postgres", "speed", "testing")
"""Extras whose libraries users run; those of `dev` are tools."""
_TOOLS = ("pytest", "pytest-timeout", "psutil", "blockbuster", "http-ece", "httpx")
_SMOKE = (
    "tests/core", "tests/config", "tests/http", "tests/http1", "tests/engine", "tests/storage/test_sqlite.py", "tests/apns", "tests/fcm",
    "tests/wns", "tests/webpush/test_transport.py", "tests/webpush/test_transport_keys.py", "tests/webpush/test_transport_trouble.py",
    "tests/webpush/test_conformance.py", "tests/service/test_app.py",
    "tests/service/test_v1_notifications.py",
)  # fmt: skip
"""What each library of the floors is used by."""
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*>=\s*([0-9][0-9.]*)")


def floors(project: Mapping[str, object]) -> dict[str, str]:
    """The lowest version of each library that users may have, of `[project]` of a pyproject.toml. Raises `ValueError`
    for one without."""
    extras = project["optional-dependencies"]
    assert isinstance(extras, dict)
    found = {}
    for requirement in [*project["dependencies"], *(each for extra in _RUNTIME for each in extras[extra])]:  # type: ignore[misc]
        match = _REQUIREMENT.match(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} has no lowest version: write one with >=.")
        found[match[1]] = match[2]
    return found


def interpreters(versions: Sequence[str] = _VERSIONS) -> Iterator[tuple[str, str | None]]:
    """(version, program or None) for each: on the path, or made by pyenv for this user."""
    for version in versions:
        candidates = [shutil.which(f"python{version}")]
        candidates += sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")))
        yield version, next((each for each in candidates if each and _is(each, version)), None)


def _is(program: str, version: str) -> bool:
    # One that a version manager puts on the path says that it is not there only when it is called.
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        said = subprocess.run([program, "-c", asked], capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return False
    return said.returncode == 0 and said.stdout.strip() == version


def _environment(name: str, program: str, requirements: Sequence[str], constraints: str) -> Path | None:
    """The Python of `.venv-NAME`, with these installed; None where there is no package index. Raises `RuntimeError`."""
    folder = _ROOT / f".venv-{name}"
    python = folder / "bin" / "python"
    stamp, wanted = folder / ".installed", sha256("\n".join([program, *requirements, constraints]).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    subprocess.run([program, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    if subprocess.run([*pip, "index", "versions", "anyio"], capture_output=True, check=False).returncode:
        return None
    (folder / "constraints.txt").write_text(constraints)
    command = [*pip, "install", "--quiet", "-c", str(folder / "constraints.txt"), *requirements]
    ended = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{name}: cannot be installed:\n{ended.stderr[-3000:]}")
    stamp.write_text(wanted)
    return python


def _pytest(python: Path, *words: str) -> int:
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *SIDE_BY_SIDE, *words]
    return subprocess.run(command, cwd=_ROOT, env=os.environ, check=False).returncode


def _floors(words: Sequence[str]) -> int:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    constraints = "".join(f"{name}=={version}\n" for name, version in floors(project).items())
    python = _environment("floors", sys.executable, ["-e", ".[all,pywebpush,testing]", *_TOOLS], constraints)
    if python is None:
        print("floors: not run, for there is no package index to install from")
        return 0
    return _pytest(python, *(words or _SMOKE))


def _pythons(words: Sequence[str]) -> int:
    versions = [word for word in words if re.fullmatch(r"3\.\d+", word)] or _VERSIONS
    rest = [word for word in words if word not in versions]
    constraints = (_ROOT / "constraints.txt").read_text(encoding="utf-8")
    codes = []
    for version, program in interpreters(versions):
        if program is None:
            print(f"Python {version}: not run, for it is not installed here", flush=True)
            continue
        python = _environment(version, program, ["-e", ".[dev]"], constraints)
        if python is None:
            print(f"Python {version}: not run, for there is no package index to install from", flush=True)
            continue
        code = _pytest(python, *rest)
        print(f"Python {version}: {'passed' if code == 0 else f'failed with {code}'}", flush=True)
        codes.append(code)
    return int(any(codes))


def main(words: Sequence[str] | None = None) -> int:
    """Exit code 0 if all that could be run passed, 2 for other words."""
    given = list(sys.argv[1:] if words is None else words)
    word, rest = (given[0], given[1:]) if given else ("", [])
    if word == "floors":
        return _floors(rest)
    if word == "pythons":
        return _pythons(rest)
    print("Say floors or pythons.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
