"""`fanout demo`: ends by itself, says how it went, and what it prints to try next works as printed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from fanout.config import Document
from fanout.plugin import Secret
from fanout_webpush.vapid import VapidKey

DEMO = [sys.executable, "-m", "fanout", "demo", "--devices", "1000", "--users", "400", "--folder", "fanout-demo"]
SIMULATED = {"apns", "fcm", "webpush", "wns"}
ENVIRON = {name: value for name, value in os.environ.items() if name != "FANOUT_CONFIG"}


def test_the_demo_and_what_it_says_to_try_next(tmp_path: Path) -> None:
    done = subprocess.run(DEMO, cwd=tmp_path, env=ENVIRON, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "1,000 devices of 400 users are registered" in done.stdout
    taken = re.search(r"^To user-042: (\d+) accepted of \1 devices; taken by (.*)\.$", done.stdout, re.MULTILINE)
    assert taken, done.stdout
    kinds = dict(word.split() for word in taken[2].split(", "))
    assert set(kinds) == SIMULATED, "one user's notification goes to a device of every kind"
    assert sum(map(int, kinds.values())) == int(taken[1])
    (mix,) = re.findall(r"are registered \((.*)\), in", done.stdout)
    counts = {name: int(count) for name, count in (word.split() for word in mix.split(", "))}
    assert set(counts) == SIMULATED
    assert sum(counts.values()) == 1000
    assert min(counts.values()) > 200
    assert "The broadcast: 1,000 deliveries" in done.stdout
    assert "deliveries/s" in done.stdout
    assert str(tmp_path / "fanout-demo" / "fanout.db") in done.stdout
    assert "broadcast 100%" in done.stderr

    commands = [shlex.split(line) for line in done.stdout.partition("Try next:\n")[2].splitlines()]
    assert len(commands) == 3
    said = [
        subprocess.run(words, cwd="/", env=ENVIRON, capture_output=True, text=True, timeout=120) for words in commands
    ]
    assert [one.returncode for one in said] == [0, 0, 0], [one.stderr for one in said]
    assert "done" in said[0].stdout
    assert "accepted" in said[0].stdout
    assert said[1].stdout.count("user-042") >= 2
    assert "endpoints; nothing was sent" in said[2].stdout

    config = tmp_path / "fanout-demo" / "fanout.toml"
    assert config.stat().st_mode & 0o077 == 0
    assert Document.read(config).storage.startswith("sqlite:")


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
        _, err = child.communicate(timeout=120)
        assert child.returncode == 1
        assert "Traceback" not in err
        assert not [one for one in simulators if one.is_running()]
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_the_page_for_the_browser(tmp_path: Path) -> None:
    """Up to the button: beyond it is the browser (tests/webpush_browser) and its vendor."""
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        [*DEMO[:4], "--browser", "--folder", "fanout-demo"],
        cwd=tmp_path,
        env=ENVIRON,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )
    try:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(4)]
        (url,) = re.findall(r"http://localhost:\d+/", told[0])
        page = urllib.request.urlopen(url, timeout=60).read().decode()
        (key,) = re.findall(r'"(B[A-Za-z0-9_-]{86})"', page)
        words = shlex.split(told[3])
        config = Path(words[words.index("--config") + 1])
        (table,) = Document.read(config).bindings
        assert table.type == "webpush"
        pem = config.parent / table.values["vapid_private_key_file"]
        for private in (config, pem):
            assert private.stat().st_mode & 0o077 == 0
        assert VapidKey.load(Secret(pem.read_text())).public == key
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        assert "Traceback" not in err
    finally:
        child.kill()
        child.communicate()
    sent = subprocess.run(words, cwd="/", env=ENVIRON, capture_output=True, text=True, timeout=120)
    assert sent.returncode == 0, sent.stderr
    assert "no active endpoint" in sent.stderr


def test_flags_that_do_not_go_together(shell: Any) -> None:
    for words, told in (
        (["--browser", "--devices", "5"], "--devices has no meaning with --browser"),
        (["--browser", "--users", "8000"], "--users has no meaning with --browser"),
        (["--port", "8080"], "--port has no meaning without --browser"),
    ):
        result = shell("demo", *words)
        assert (result.code, result.out) == (2, "")
        assert told in result.err
        assert not (shell.folder / "fanout-demo").exists()


def test_a_port_that_is_taken(shell: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = shell("demo", "--browser", "--port", port)
    assert (result.code, result.out) == (2, "")
    assert f"--port {port} cannot be used (Address already in use)" in result.err
    assert shell("demo", "--browser", "--port", "70000").code == 2


def test_without_a_transport_that_knows_browsers(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    from fanout import registry
    from fanout.cli import demo_browser

    ours = [d for d in importlib.metadata.distributions() if d.metadata["Name"] == "pigeon-post"]
    monkeypatch.setattr(demo_browser, "Registry", lambda: registry.Registry(ours))
    result = shell("demo", "--browser")
    assert (result.code, result.out) == (2, "")
    assert "pushes to browsers" in result.err
