"""What happens only on a terminal: the question before a broadcast, and the live bar."""

from __future__ import annotations

import os
import platform
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import hear_interrupts

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

_READ = {"x86_64": "0", "aarch64": "63"}.get(platform.machine(), "") if sys.platform == "linux" else ""
"""The number of Linux's system call `read`; nothing where it is not known."""


def on_a_terminal(shell: Any, *words: str, answer: bytes = b"", after: bytes = b"") -> tuple[int, str]:
    """Run `fanout` on a pseudo-terminal of its own; type `answer` once it reads after `after` was shown. Exit code and
    what was shown."""
    import pty

    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "fanout", *words],
        cwd=shell.folder,
        env=shell.environ | {"TERM": "xterm", "COLUMNS": "120"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    shown = b""
    try:
        while True:
            try:
                block = os.read(ours, 4096)
            except OSError:  # Linux says so when the other end is closed
                break
            if not block:
                break
            shown += block
            if answer and after in shown:
                _wait_for_reading(child.pid)
                os.write(ours, answer)
                answer = b""
        return child.wait(30), shown.decode()
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def _wait_for_reading(pid: int) -> None:
    """Until the process is in its system call on standard input: a signal between the prompt and that call is not seen
    before the next.

    Only Linux tells; elsewhere the test of Ctrl-C is skipped.
    """
    while _READ and Path(f"/proc/{pid}/syscall").read_text().split()[:2] != [_READ, "0x0"]:
        select.select([], [], [], 0.01)


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (b"y\n", 0, "accepted"),
        (b"n\n", 1, "Nothing was sent."),
        pytest.param(b"\x03", 1, "", marks=pytest.mark.skipif(not _READ, reason="/proc says what a process reads")),
    ],
    ids=["yes", "no", "Ctrl-C"],
)
def test_a_broadcast_is_asked_for(shell: Any, answer: bytes, code: int, words: str) -> None:
    shell.register(("alice", "phone"), ("bob", "phone2"))
    send = ("send", "--to", "all", "--title", "T", "--wait")
    ended, shown = on_a_terminal(shell, *send, answer=answer, after=b"[y/N]: ")  # the space is the reader's own prompt
    assert "Send to all 2 endpoints of the app default?" in shown
    assert ended == code
    assert "Traceback" not in shown
    assert words in shown
    assert ("accepted" in shown) == (code == 0)


def test_programs_of_a_run_in_the_background_of_a_script_hear_ctrl_c() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        hear_interrupts()
        heard = "import signal; print(signal.getsignal(signal.SIGINT).__name__)"
        told = subprocess.run([sys.executable, "-c", heard], capture_output=True, text=True, check=True).stdout
    finally:
        signal.signal(signal.SIGINT, before)
    assert told.strip() == "default_int_handler"


def test_an_import_shows_a_bar(shell: Any) -> None:
    lines = [{"user": "alice", "transport": "pigeon", "address": f"device-{n}"} for n in range(3000)]
    (shell.folder / "devices.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    ended, shown = on_a_terminal(shell, "endpoints", "import", "devices.ndjson")
    assert ended == 0
    assert "100%" in shown
    assert "ETA" in shown
    assert "3,000 imported, 0 bad" in shown
