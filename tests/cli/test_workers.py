"""`fanout status --workers`: who works on the database, while they do, and when they no longer do."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import fanout
from fanout.cli.workers import show_workers
from fanout.core.fleet import WorkerNote

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

FANOUT = [sys.executable, "-m", "fanout"]


def start(shell: Any, *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*FANOUT, *words], cwd=shell.folder, env=shell.environ, stdout=pipe, stderr=pipe, text=True)


def wait_for(holds: Callable[[], Any]) -> Any:
    """What it answers once that is something."""
    deadline = time.monotonic() + 60
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def test_nobody_works(shell: Any) -> None:
    shell.register()
    assert shell("status", "--workers", "--json").lines == []
    assert "`fanout work` starts one" in shell.ok("status", "--workers")


@pytest.mark.long("tests/engine/test_fleet.py has one that ends, and one that is killed")
def test_each_process_is_a_worker_until_it_ends(shell: Any) -> None:
    shell.register(("alice", "phone"))
    parent = start(shell, "work", "--processes", "2")
    try:
        found = wait_for(lambda: len(lines := shell("status", "--workers", "--json").lines) == 2 and lines)
        children = psutil.Process(parent.pid).children()
        assert {worker["pid"] for worker in found} == {child.pid for child in children}
        for worker in found:
            assert worker["alive"]
            assert worker["bindings"] == ["default/pigeon"]
            assert worker["leases"] == 0
            assert worker["started_at"] <= worker["seen_at"] < worker["alive_until"]
            assert worker["worker"].startswith(f"{worker['host']}:{worker['pid']}:")
            assert re.match(r"\d+\.\d+", worker["version"])
        table = shell.ok("status", "--workers").splitlines()
        assert table[0].split()[:3] == ["HOST", "PID", "VERSION"]
        assert {int(line.split()[1]) for line in table[1:]} == {child.pid for child in children}
        parent.send_signal(signal.SIGTERM)
        parent.communicate(timeout=60)
        assert shell("status", "--workers", "--json").lines == []
    finally:
        parent.kill()
        parent.communicate()


def test_a_program_that_only_submits_is_none(shell: Any) -> None:
    async def look() -> list[WorkerNote]:
        async with fanout.open(shell.config, role="submit") as engine:
            return await engine.workers()

    assert asyncio.run(look()) == []


def test_one_thing_is_named(shell: Any) -> None:
    result = shell("status", "0197f0c0-0000-7000-8000-000000000000", "--workers")
    assert result.code == 2
    assert "Name one thing" in result.err


def test_the_lost_are_named_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    worker = WorkerNote(
        id="db1:7:00",
        host="db1",
        pid=7,
        version="1.0",
        started_at=0.0,
        bindings=("a/b", "c/d"),
        seen_at=90.0,
        until=100.0,
        leases=1200,
    )
    show_workers([worker], 93.0, json=False)
    _, living = capsys.readouterr().out.splitlines()
    assert living.split()[:7] == ["db1", "7", "1.0", "1970-01-01T00:00:00+00:00", "3", "s", "ago"]
    assert living.split()[7:] == ["1,200", "a/b,", "c/d"]
    show_workers([worker], 150.0, json=False)
    _, lost = capsys.readouterr().out.splitlines()
    assert "60 s ago: lost" in lost
