"""A signal outside of the event loop: while the program is imported, and after the command has its result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fanout.cli import early

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
    pytest.mark.usefixtures("children_hear_signals"),
]

_TOLD_WHILE_IMPORTING = """
import os, signal, sys
from importlib.abc import MetaPathFinder

number, name, sys.argv[1:] = int(sys.argv[1]), sys.argv[2], sys.argv[3:]

class Told(MetaPathFinder):
    def find_spec(self, wanted, path=None, target=None):
        if wanted == name:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Told())
from fanout.cli import main
main()
"""

_TOLD_AT_THE_END = """
import os, signal, sys
import asyncio
import fanout.cli.work as work

code, number, sys.argv[1:] = int(sys.argv[1]), int(sys.argv[2]), ["work"]

async def worker(*words, **more):
    return code

work._worker = worker
close = asyncio.Runner.close

def told(self):
    close(self)
    os.kill(os.getpid(), number)

asyncio.Runner.close = told
from fanout.cli import main
main()
"""


def ended(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    environ = dict(os.environ, FANOUT_CONFIG=os.devnull)
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], env=environ, capture_output=True, text=True, timeout=120
    )


_SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
_NAMES = ["typer", "fanout.bootstrap", "fanout.engine", "its own module"]
_LONG = pytest.mark.long("each signal at the first import, and the first signal at each")


@pytest.mark.parametrize(
    ("name", "number"),
    [
        pytest.param(name, number, marks=[] if name == _NAMES[0] or number == _SIGNALS[0] else _LONG)
        for name in _NAMES
        for number in _SIGNALS
    ],
)
@pytest.mark.parametrize("words", [["work", "--drain"], ["serve"]])
def test_being_told_to_end_while_importing_is_a_clean_end(words: list[str], name: str, number: signal.Signals) -> None:
    if name == "its own module":
        name = f"fanout.cli.{words[0]}"
    done = ended(_TOLD_WHILE_IMPORTING, int(number), name, *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_was_started_to_ignore_the_end_of_its_terminal_goes_on() -> None:
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + _TOLD_WHILE_IMPORTING
    done = ended(ignoring, int(signal.SIGHUP), "typer", "work", "--drain")
    assert done.stderr, "it came to read its configuration, which is empty"


def test_another_command_that_is_told_to_end_while_importing_does_not_claim_success() -> None:
    for name in ("typer", "fanout.cli.status"):
        assert ended(_TOLD_WHILE_IMPORTING, int(signal.SIGTERM), name, "status").returncode == -signal.SIGTERM
        interrupted = ended(_TOLD_WHILE_IMPORTING, int(signal.SIGINT), name, "status")
        assert (interrupted.returncode, interrupted.stderr) == (1, ""), name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("code", [0, 1])
def test_being_told_to_end_after_the_end_does_not_change_the_exit_code(code: int, number: signal.Signals) -> None:
    done = ended(_TOLD_AT_THE_END, code, int(number))
    assert (done.returncode, done.stderr) == (code, "")


def test_nothing_heavy_is_imported_before_the_handlers_stand() -> None:
    heavy = {"aiohttp", "anyio", "asyncio", "fanout.config", "fanout.engine", "orjson", "pydantic", "ssl", "typer"}
    done = ended(f"import sys, fanout.cli.early; print(sorted({heavy!r} & set(sys.modules)))")
    assert done.stdout == "[]\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("streams", "code", "said"),
    [("0<&- 1>&- 2>&-", 0, ""), ("1>/dev/full", 1, "fanout: Its output cannot be written (No space left on device)")],
)
def test_streams_that_are_closed_or_take_nothing(shell: Any, streams: str, code: int, said: str) -> None:
    """A daemon is started without them: the database and the sockets must not have their numbers."""
    ended = subprocess.run(
        ["sh", "-c", f'"$0" -m fanout send --to user:alice --title x {streams}', sys.executable],
        cwd=shell.folder, env=shell.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr.startswith(said), ended.stderr.count("\n")) == (code, True, bool(said))


_LOOKS_FOR_GARBAGE = """
import atexit, gc, sys
looks = []
atexit.register(lambda: print(len(looks), gc.get_freeze_count() > 10_000))
gc.callbacks.append(lambda phase, info: looks.append(phase))
sys.argv[1:] = ["send", "--help"]
from fanout.cli import main
main()
"""


def test_what_is_imported_is_not_looked_at_again_and_again() -> None:
    looks, frozen = ended(_LOOKS_FOR_GARBAGE).stdout.splitlines()[-1].split()

    assert int(looks) < 20, "hundreds as Python does by itself"
    assert frozen == "True", "Python ends with three looks at all that is left"


# -- memory and characters


@pytest.mark.parametrize(
    "error",
    [
        'MemoryError("")',
        'OSError(errno.ENOMEM, "Cannot allocate memory")',
        'ImportError("x.so: failed to map segment from shared object")',
        'RuntimeError("can\'t start new thread")',
    ],
)
@pytest.mark.parametrize("name", ["typer", "fanout.engine"])
def test_want_of_memory_is_one_sentence(name: str, error: str) -> None:
    script = f"""
import errno, sys
from importlib.abc import MetaPathFinder

class Full(MetaPathFinder):
    def find_spec(self, wanted, path=None, target=None):
        if wanted == {name!r}:
            raise {error}

sys.meta_path.insert(0, Full())
sys.argv[1:] = ["status"]
from fanout.cli import main
main()
"""
    done = ended(script)
    assert (done.returncode, done.stderr) == (1, f"{early.MEMORY}\n")


def test_another_error_keeps_its_traceback_and_a_circle_of_causes_ends() -> None:
    first, second = ValueError(), KeyError()
    first.__context__, second.__context__ = second, first
    assert not early.short_of_memory(first)
    assert not early.short_of_memory(ImportError("No module named x"))
    first.__cause__ = MemoryError()
    assert early.short_of_memory(second)


@pytest.mark.parametrize(("coding", "hint"), [("0", True), ("1", False)])
def test_an_argument_that_the_locale_does_not_have_names_the_locale(coding: str, hint: bool, tmp_path: Path) -> None:
    """Bytes that are no text in any locale are refused without it."""
    (tmp_path / "fanout.toml").write_text('storage = "sqlite:fanout.db"\n[apps.default]\n')
    words = [os.fsencode(sys.executable), b"-m", b"fanout", b"send", b"--to", b"user:a", b"--title", b"Gr\xfc\xdf"]
    environ = {name: value for name, value in os.environ.items() if name not in ("LANG", "PYTHONIOENCODING")}
    environ |= {"LC_ALL": "C", "PYTHONUTF8": coding, "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 2
    assert (b"LC_ALL=C.UTF-8" in done.stderr) is hint
    assert done.stderr.startswith(b"fanout: title is not plain JSON")
