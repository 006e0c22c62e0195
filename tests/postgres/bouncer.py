"""A PgBouncer of a test's own, before a `PostgresServer`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fanout_kit.ports import free_port
from fanout_kit.postgres import PostgresServer

__all__ = ["bouncer"]


@contextmanager
def bouncer(server: PostgresServer, mode: str, **settings: str) -> Iterator[int]:
    """The port of one in that pool mode. Skips the test where the program is absent."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    folder = Path(tempfile.mkdtemp(prefix="fanout-bouncer-"))
    port = free_port()
    (folder / "users").write_text(f'"fanout" "{server.password}"\n')
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "plain",
        "auth_file": str(folder / "users"),
        "pool_mode": mode,
        "default_pool_size": "3" if mode == "transaction" else "10",
        "logfile": str(folder / "log"),
        **settings,
    }
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    (folder / "ini").write_text(f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n{text}")
    user = None
    if os.getuid() == 0:
        user = pwd.getpwnam("nobody")
        for path in [folder, *folder.iterdir()]:
            os.chown(path, user.pw_uid, user.pw_gid)
    process = subprocess.Popen(
        [program, "-q", str(folder / "ini")],
        user=None if user is None else user.pw_uid,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(process, port)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            assert process.poll() is None, "pgbouncer ended"
            assert time.monotonic() < end, "pgbouncer does not listen"
            time.sleep(0.01)
