"""`fanout work` as processes: deliver, drain, end when told, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import psutil
import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
    pytest.mark.usefixtures("children_hear_signals"),
]

FANOUT = [sys.executable, "-m", "fanout"]


def run(shell: Any, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FANOUT, *words], cwd=shell.folder, env=shell.environ, capture_output=True, text=True, timeout=120, **more
    )


@contextmanager
def running(shell: Any, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A `fanout` that has said its first line on standard error."""
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        [*FANOUT, *words], cwd=shell.folder, env=shell.environ, stdout=pipe, stderr=pipe, text=True
    )
    try:
        assert child.stderr is not None
        first = child.stderr.readline()
        assert "orkers" in first or "Working on" in first, first
        yield child
    finally:
        child.kill()
        child.communicate()


def wait_done(shell: Any, id: str) -> dict[str, Any]:
    """The final status, waited for through the library while others deliver."""
    import asyncio

    import fanout
    from fanout.core.report import status_report

    async def wait() -> dict[str, Any]:
        async with fanout.open(shell.config, role="submit") as engine:
            return status_report(await engine.wait(id, 30), 0.0)

    return asyncio.run(wait())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_worker_delivers_what_another_process_sends_and_ends_when_told(shell: Any, number: signal.Signals) -> None:
    shell.register(("alice", "phone"))
    with running(shell, "work") as worker:
        id = shell.ok("send", "--to", "user:alice", "--title", "T")
        assert wait_done(shell, id)["counts"]["accepted"] == 1
        worker.send_signal(number)
        worker.send_signal(number)  # as `timeout` does; it is one wish
        _, err = worker.communicate(timeout=120)
        assert worker.returncode == 0
        assert "stopped" in err
        assert "Traceback" not in err


def test_drain_ends_when_nothing_is_left(shell: Any) -> None:
    shell.register(("alice", "phone"), ("alice", "dead-phone"))
    id = shell.ok("send", "--to", "user:alice", "--title", "T")
    done = run(shell, "work", "--drain")
    assert done.returncode == 0, done.stderr
    (found,) = shell("status", id, "--json").lines
    assert (found["state"], found["counts"]["accepted"], found["counts"]["gone"]) == ("done", 1, 1)


def test_drain_names_what_is_parked(shell: Any) -> None:
    shell.register(("alice", "parked-phone"))
    shell.ok("send", "--to", "user:alice", "--title", "T")
    done = run(shell, "work", "--drain")
    assert done.returncode == 1
    assert "default/pigeon" in done.stderr
    assert "the loft is locked" in done.stderr


@pytest.mark.long("one that drains, and children that end together, are tried")
def test_several_processes_drain_together(shell: Any) -> None:
    shell.register(*[(f"user-{n}", f"device-{n}") for n in range(300)])
    ids = [shell.ok("send", "--to", "all", "--title", str(n), "--yes") for n in range(3)]
    done = run(shell, "work", "--processes", "2", "--drain")
    assert done.returncode == 0, done.stderr
    assert "2 workers" in done.stderr
    for id in ids:
        (found,) = shell("status", id, "--json").lines
        assert found["counts"]["accepted"] == 300


def test_children_end_with_their_parent(shell: Any) -> None:
    with running(shell, "work", "--processes", "2") as parent:
        children = psutil.Process(parent.pid).children()
        assert len(children) == 2
        parent.send_signal(signal.SIGTERM)
        parent.communicate(timeout=120)
        assert parent.returncode == 0
        assert not [child for child in children if child.is_running()]


def test_children_end_when_their_parent_is_killed(shell: Any) -> None:
    with running(shell, "work", "--processes", "2") as parent:
        children = psutil.Process(parent.pid).children()
        parent.kill()
        gone, alive = psutil.wait_procs(children, timeout=120)
        assert len(gone) == 2
        assert not alive


def test_a_child_that_dies_is_named_and_the_others_end(shell: Any) -> None:
    with running(shell, "work", "--processes", "2") as parent:
        first, second = psutil.Process(parent.pid).children()
        first.kill()
        _, err = parent.communicate(timeout=120)
        assert parent.returncode == 1
        assert f"Worker {first.pid} ended unasked" in err
        assert not second.is_running()


def test_a_reader_that_leaves_is_no_error(shell: Any) -> None:
    lines = [{"user": "alice", "transport": "pigeon", "address": f"device-{n}"} for n in range(5000)]
    (shell.folder / "devices.ndjson").write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    shell.ok("endpoints", "import", "devices.ndjson")
    read, write = os.pipe()
    child = subprocess.Popen(
        [*FANOUT, "endpoints", "list", "--limit", "0", "--json"],
        cwd=shell.folder,
        env=shell.environ,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    with os.fdopen(read, "rb") as reader:
        assert orjson.loads(reader.readline())["user"] == "alice"
    _, err = child.communicate(timeout=120)
    assert err == ""


def test_the_program_and_the_module_are_the_same(shell: Any) -> None:
    done = run(shell, "--version")
    assert done.stdout.strip()
    program = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "fanout"), "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert program.stdout == done.stdout
