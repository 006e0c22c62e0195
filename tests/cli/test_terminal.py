"""What happens only on a terminal: the question before a broadcast, and the live bar."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from typing import Any

import orjson
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


def on_a_terminal(shell: Any, *words: str, answer: bytes = b"", after: bytes = b"") -> tuple[int, str]:
    """Run `fanout` on a pseudo-terminal of its own; type `answer` once `after` has been shown. Exit code and what was shown."""
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
    asked = b""
    try:
        while True:
            while asked == b"\x03" and not select.select([ours], [], [], 0.5)[0]:
                os.write(ours, asked)  # one that comes between the prompt and the read call is not seen before the next
            try:
                block = os.read(ours, 4096)
            except OSError:  # Linux says so when the other end is closed
                break
            if not block:
                break
            shown += block
            if answer and after in shown:
                os.write(ours, answer)
                asked, answer = answer, b""
        return child.wait(30), shown.decode()
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def _own_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [(b"y\n", 0, "accepted"), (b"n\n", 1, "Nothing was sent."), (b"\x03", 1, "")],
    ids=["yes", "no", "Ctrl-C"],
)
def test_a_broadcast_is_asked_for(shell: Any, answer: bytes, code: int, words: str) -> None:
    shell.register(("alice", "phone"), ("bob", "phone2"))
    send = ("send", "--to", "all", "--title", "T", "--wait")
    ended, shown = on_a_terminal(shell, *send, answer=answer, after=b"[y/N]: ")  # the space is the reader's own prompt
    assert "Send to all 2 endpoints of the app default?" in shown
    # A Ctrl-C that is typed once more finds a process that is ending, where Python has given the signal back.
    codes = (code, -signal.SIGINT) if answer == b"\x03" else (code,)
    assert ended in codes
    assert "Traceback" not in shown
    assert words in shown
    assert ("accepted" in shown) == (code == 0)


def test_an_import_shows_a_bar(shell: Any) -> None:
    lines = [{"user": "alice", "transport": "pigeon", "address": f"device-{n}"} for n in range(3000)]
    (shell.folder / "devices.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    ended, shown = on_a_terminal(shell, "endpoints", "import", "devices.ndjson")
    assert ended == 0
    assert "100%" in shown
    assert "ETA" in shown
    assert "3,000 imported, 0 bad" in shown
