"""What a platform asks of a worker: configuration from the environment alone, probes, systemd's notifications, exit
codes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fanout.cli.systemd import Children, notify, watchdog

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

FANOUT = [sys.executable, "-m", "fanout"]


class Systemd:
    """The receiving end of sd_notify."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.settimeout(60)
        self._sock.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def __enter__(self) -> Systemd:
        return self

    def __exit__(self, *exc: object) -> None:
        self._sock.close()

    def next(self) -> dict[str, str]:
        """The assignments of the next message."""
        lines = self._sock.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def instantly(self) -> None:
        """Do not wait for messages."""
        self._sock.setblocking(False)

    def until(self, name: str) -> dict[str, str]:
        """The next message with this assignment; those before it are passed over."""
        while name not in (said := self.next()):
            pass
        return said


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with Systemd(f"@fanout-test-{os.getpid()}-{tmp_path.name}") as found:
        yield found


@contextmanager
def child(shell: Any, *words: str, prefix: tuple[str, ...] = (), **environ: str) -> Iterator[subprocess.Popen[str]]:
    made = subprocess.Popen(
        [*prefix, *FANOUT, *words],
        cwd=shell.folder,
        env=shell.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield made
    finally:
        made.kill()
        made.communicate()


def ended(made: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    made.send_signal(number)
    _, err = made.communicate(timeout=60)
    return made.returncode, err


def line_with(made: subprocess.Popen[str], word: str) -> str:
    assert made.stderr is not None
    while word not in (line := made.stderr.readline()):
        assert line, f"it ended without {word!r}"
    return line


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


# -- the environment alone


def alone(shell: Any, database: Path) -> dict[str, str]:
    """The shell's configuration as variables; the file is gone."""
    shell.config.unlink()
    return {
        "FANOUT_STORAGE": f"sqlite:{database / 'fanout.db'}",
        "FANOUT_APPS__DEFAULT__TRANSPORTS__PIGEON__LIMIT": "1000",
        "FANOUT_SERVICE_HOST": "10.96.0.11",
        "FANOUT_SERVICE_PORT": "8080",
    }


def test_a_worker_from_the_environment_alone_in_a_read_only_folder(
    shell: Any, systemd: Systemd, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = alone(shell, tmp_path_factory.mktemp("database"))
    before = sorted(path.name for path in shell.folder.iterdir())
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0 and shutil.which("unshare"):
        # Root writes everywhere: the folder is mounted read-only, where this sandbox lets us.
        mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && cd "$0" && exec "$@"'
        prefix = ("unshare", "-m", "sh", "-c", mount, str(shell.folder))
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
            prefix = ()
    os.chmod(shell.folder, 0o555)
    try:
        with child(shell, "work", prefix=prefix, NOTIFY_SOCKET=systemd.address, **environ) as worker:
            assert systemd.until("READY")
            for name, text in environ.items():
                monkeypatch.setenv(name, text)
            shell.ok("endpoints", "add", "--user", "alice", "--transport", "pigeon", "alice-phone")
            sent = shell.ok("send", "--to", "user:alice", "--title", "Hello", "--wait", "--json")
            assert json.loads(sent.splitlines()[-1])["counts"]["accepted"] == 1
            assert ended(worker)[0] == 0
    finally:
        os.chmod(shell.folder, 0o755)
    assert sorted(path.name for path in shell.folder.iterdir()) == before


def test_exit_codes(shell: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = alone(shell, tmp_path_factory.mktemp("database"))
    for words, more, code in (
        (["--drain"], {}, 0),
        (["--no-such-flag"], {}, 2),
        (["--config", "absent.toml"], {}, 2),
        ([], {"FANOUT_STORGE": "x"}, 2),
        ([], {"FANOUT_APPS__DEFAULT__TRANSPORTS__PIGEON__LIMIT_": "1"}, 2),
        (["--drain"], {"FANOUT_STORAGE": f"sqlite:{shell.folder}"}, 1),
    ):
        with monkeypatch.context() as patch:
            for name, text in (environ | more).items():
                patch.setenv(name, text)
            result = shell("work", *words)
        assert result.code == code, result.err


# -- systemd


def test_ready_alive_refused_stopping(shell: Any, systemd: Systemd) -> None:
    with child(shell, "work", "--metrics", "0", NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="300000") as worker:
        url = line_with(worker, "Metrics are at").split()[-6].removesuffix("/metrics,")
        assert systemd.until("READY")["READY"] == "1"
        assert "default/pigeon" in systemd.until("STATUS")["STATUS"]
        for _ in range(3):
            assert systemd.until("WATCHDOG")["WATCHDOG"] == "1"
        assert get(f"{url}/ready") == {"ready": True, "storage": "ok", "engine": "ok", "configuration": "ok"}
        shell.config.write_text("storage = ")
        assert "The changed configuration is refused" in systemd.until("STATUS")["STATUS"]
        assert get(f"{url}/ready")["configuration"] == "refused"
        worker.terminate()
        assert systemd.until("STOPPING")["STOPPING"] == "1"
        worker.communicate(timeout=60)
        assert worker.returncode == 0


def test_several_processes_are_ready_when_all_are(shell: Any, systemd: Systemd) -> None:
    with child(
        shell, "work", "--processes", "2", NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="300000", WATCHDOG_PID=""
    ) as parent:
        assert "2 processes" in systemd.until("READY")["STATUS"]
        systemd.until("WATCHDOG")
        parent.terminate()
        systemd.until("STOPPING")
        parent.communicate(timeout=60)
        assert parent.returncode == 0


@pytest.mark.anyio
async def test_the_watchdog_is_fed_while_each_process_is_heard_of(systemd: Systemd) -> None:
    systemd.instantly()

    async def hear() -> list[dict[str, str]]:
        found = []
        for _ in range(20):  # what was sent is read in the next turns of the loop
            await asyncio.sleep(0)
            with suppress(BlockingIOError):
                found.append(systemd.next())
        return found

    def says(who: int, text: str) -> None:
        assert notify(f"{text}\nX_FANOUT_PID={who}", children.environ)

    async with Children(2, "Working.", {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1"}) as children:
        says(1, "READY=1")
        assert await hear() == []
        says(2, "READY=1")
        assert await hear() == [{"READY": "1", "STATUS": "Working."}]
        for _ in range(3):
            says(1, "WATCHDOG=1")  # the other one hangs
        assert await hear() == []
        says(2, "WATCHDOG=1")
        assert await hear() == [{"WATCHDOG": "1"}]
        children.ended()  # one has drained
        says(1, "WATCHDOG=1")
        assert await hear() == [{"WATCHDOG": "1"}]
        says(1, "STATUS=The changed configuration is refused")
        assert await hear() == [{"STATUS": "The changed configuration is refused"}]
    assert await hear() == [{"STOPPING": "1"}]
    async with Children(2, "Working.", {}) as children:
        assert children.environ == {}


def test_a_socket_that_nobody_reads_or_that_is_gone_stops_nothing(shell: Any, systemd: Systemd, tmp_path: Path) -> None:
    assert not notify("READY=1", {})
    assert notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "absent")})
    assert notify("READY=1", {"NOTIFY_SOCKET": "@absent"})
    for _ in range(1000):  # more than its queue holds
        notify("STATUS=" + "x" * 100, {"NOTIFY_SOCKET": systemd.address})
    with Systemd(str(tmp_path / "notify")) as at_a_path:
        notify("READY=1\nSTATUS=a=b", {"NOTIFY_SOCKET": at_a_path.address})
        assert at_a_path.next() == {"READY": "1", "STATUS": "a=b"}


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "ours"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdogs_period(environ: dict[str, str], seconds: float | None) -> None:
    ours = {name: str(os.getpid()) if value == "ours" else value for name, value in environ.items()}
    assert watchdog(ours) == seconds
