"""The command line of `tests.mutants`."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.mutants.all_plants import PLANTS
from tests.mutants.plant import ROOT, Plant

__all__ = ["Copy", "main"]

_COPIED = ("fanout", "transports", "tests", "benchmarks", "pyproject.toml", "README.md", "CHANGELOG.md", "ARCHITECTURE.md", "docs", "Makefile", ".gitignore")  # fmt: skip
_LONGEST = 600.0
"""Seconds after which a fault that makes its tests hang has been noticed."""
_FAILED, _PASSED = 1, 0
"""Exit codes of pytest. Any other says that no test was run, which proves nothing."""


class Copy:
    """A copy of the tree in which faults are planted, and tests run. A context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fanout-mutants-"))
        self._writes = 0

    def __enter__(self) -> Copy:
        for name in _COPIED:
            source, target = ROOT / name, self.folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(".hypothesis"))
            elif source.exists():
                shutil.copy2(source, target)
        found = self._python("-c", "import fanout, fanout_apns; print(fanout.__file__); print(fanout_apns.__file__)")
        if any(not Path(line).is_relative_to(self.folder) for line in found.stdout.splitlines()) or found.returncode:
            raise RuntimeError(f"The copy would not be what is tested, but:\n{found.stdout}{found.stderr}")
        return self

    def __exit__(self, *exc: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def fits(self, plant: Plant) -> bool:
        """Whether its text stands in its file, once."""
        return (self.folder / plant.file).read_text(encoding="utf-8").count(plant.old) == 1

    @contextmanager
    def planted(self, plant: Plant) -> Iterator[None]:
        """With the fault, for a block."""
        path = self.folder / plant.file
        text = path.read_text(encoding="utf-8")
        self._write(path, plant.applied(text))
        try:
            yield
        finally:
            self._write(path, text)

    def _write(self, path: Path, text: str) -> None:
        # Compiled modules are found outdated by time and size: the time of no two versions is the same.
        self._writes += 1
        path.write_text(text, encoding="utf-8")
        moment = time.time() - 100_000 + 10 * self._writes
        os.utime(path, (moment, moment))

    def pytest(self, arguments: str) -> tuple[int | None, str]:
        """The exit code (None where it took too long), and the end of what it said."""
        try:
            ran = self._python(
                "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *shlex.split(arguments), timeout=_LONGEST
            )
        except subprocess.TimeoutExpired:
            return None, f"longer than {_LONGEST:g} s"
        lines = [line for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
        return ran.returncode, "\n".join(lines[-15:])

    def _python(self, *words: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(
            [str(self.folder), str(self.folder / "transports"), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        told = os.environ | {"PYTHONPATH": path}
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=told,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )


def main(words: Sequence[str] | None = None, plants: Sequence[Plant] = PLANTS) -> int:
    """Exit code 1 if a plant survived, or its tests fail without it; 2 where no name has one of the words."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="plants whose name or file has one of these; default: all"
    )
    parser.add_argument("--list", action="store_true", help="name them, and run nothing")
    chosen = parser.parse_args(words)
    some = [
        plant
        for plant in plants
        if not chosen.words or any(word in f"{plant.name} {plant.file}" for word in chosen.words)
    ]
    if not some:
        print(f"No plant has {' or '.join(chosen.words)} in its name.", file=sys.stderr)
        return 2
    if chosen.list:
        for plant in some:
            print(f"{plant.name}: {plant.file}; pytest {plant.tests}")
        return 0
    bad: list[str] = []
    sound: dict[str, str] = {}
    with Copy() as copy:
        for plant in some:
            if not copy.fits(plant):
                print(f"MISFIT   {plant.name}: its text does not stand once in {plant.file}", flush=True)
                bad.append(plant.name)
                continue
            if plant.tests not in sound:
                sound[plant.tests] = _soundness(copy, plant.tests)
            if sound[plant.tests]:
                print(f"{sound[plant.tests]:<9}{plant.name} (pytest {plant.tests})", flush=True)
                bad += [plant.name] if sound[plant.tests] == "UNSOUND" else []
                continue
            began = time.monotonic()
            with copy.planted(plant):
                code, said = copy.pytest(plant.tests)
            word = "noticed" if code in (_FAILED, None) else "SURVIVED" if code == _PASSED else "BROKEN"
            print(f"{word:<9}{plant.name} ({plant.file}, {time.monotonic() - began:.0f} s)", flush=True)
            if word != "noticed":
                print(f"    pytest {plant.tests}\n{said}", flush=True)
                bad.append(plant.name)
    print(f"{len(some)} plants, {len(bad)} without a test that notices")
    return 1 if bad else 0


def _soundness(copy: Copy, tests: str) -> str:
    """Nothing where the tests pass without a fault, and so can prove something; else what is to be said of their
    plants."""
    code, said = copy.pytest(tests)
    if code != _PASSED:
        print(f"pytest {tests} does not pass as it is, so it proves nothing:\n{said}", flush=True)
        return "UNSOUND"
    # Where what they need is not installed, they skip by its name.
    return "" if " passed" in said.splitlines()[-1] else "not run"


if __name__ == "__main__":
    sys.exit(main())
