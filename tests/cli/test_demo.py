"""`fanout demo`: ends by itself, says how it went, and what it prints to try next works as printed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fanout.config import Document

DEMO = [sys.executable, "-m", "fanout", "demo", "--devices", "1000", "--users", "400", "--folder", "fanout-demo"]
ENVIRON = {name: value for name, value in os.environ.items() if name != "FANOUT_CONFIG"}


def test_the_demo_and_what_it_says_to_try_next(tmp_path: Path) -> None:
    done = subprocess.run(DEMO, cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "1,000 devices of 400 users are registered" in done.stdout
    assert "To user-042: " in done.stdout
    assert "The broadcast: 1,000 deliveries" in done.stdout
    assert "deliveries/s" in done.stdout
    assert str(tmp_path / "fanout-demo" / "fanout.db") in done.stdout
    assert "broadcast 100%" in done.stderr

    commands = [shlex.split(line) for line in done.stdout.partition("Try next:\n")[2].splitlines()]
    assert len(commands) == 3
    said = [
        subprocess.run(words, cwd="/", env=ENVIRON, capture_output=True, text=True, timeout=30) for words in commands
    ]
    assert [one.returncode for one in said] == [0, 0, 0], [one.stderr for one in said]
    assert "done" in said[0].stdout
    assert "accepted" in said[0].stdout
    assert said[1].stdout.count("user-042") >= 2
    assert "endpoints; nothing was sent" in said[2].stdout

    config = tmp_path / "fanout-demo" / "fanout.toml"
    assert config.stat().st_mode & 0o077 == 0
    assert Document.read(config).storage.startswith("sqlite:")
    again = subprocess.run(DEMO[:-2], cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=55)
    assert again.returncode == 0, again.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_interrupting_the_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    child = subprocess.Popen(DEMO, cwd=tmp_path, env=ENVIRON, stdout=pipe, stderr=pipe, text=True)
    try:
        assert child.stdout is not None
        assert "gateway listens" in child.stdout.readline()
        simulators = psutil.Process(child.pid).children()
        assert simulators
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
        assert child.returncode == 1
        assert "Traceback" not in err
        assert not [one for one in simulators if one.is_running()]
    finally:
        child.kill()
        child.communicate()
