"""A PostgreSQL server of one's own, for tests and benchmarks: made in a temporary folder, listening on loopback, gone
afterwards.

with PostgresServer.start() as server:
    storage = server.url(server.fresh())          # "postgresql://fanout:…@127.0.0.1:PORT/t1"
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from fanout_kit.ports import free_port

__all__ = ["MISSING", "PostgresServer", "find_programs"]

MISSING = "PostgreSQL's programs were not found: install its server (Debian: apt-get install postgresql), 14 or newer."
"""Why a test that needs a server was skipped."""

_READY = 30.0
_LOG = "server.log"


def find_programs() -> Path | None:
    """The folder that has `initdb` and `pg_ctl`: that of PATH, else of the newest version where Debian puts it; None
    without any."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(
        (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")),
        key=lambda folder: [int(part) for part in folder.parent.name.split(".") if part.isdigit()],
    )
    return folders[-1] if folders else None


class PostgresServer:
    """One running server. Its superuser is `fanout`, with a `password` that was drawn for it, or for its `model`."""

    model: ClassVar[Path | None] = None
    """A folder for the files of a new server, which the first one makes there and all others copy, also in other
    processes: `initdb` takes half a second of a processor. None: each server makes its own."""

    def __init__(self, programs: Path, folder: Path, settings: Mapping[str, str]) -> None:
        self.programs = programs
        self.folder = folder
        self.settings = dict(settings)
        self.password = secrets.token_hex(12)
        self.port = 0
        self._made = 0
        self._user = _unprivileged()

    @classmethod
    def start(cls, *, fsync: bool = False, settings: Mapping[str, str] | None = None) -> Self:
        """Make and start one. Without `fsync` commits are quick, and lost when the machine (not the server) fails.

        `settings` are of postgresql.conf, such as ``{"max_connections": "300"}``. Raises `FileNotFoundError` with
        `MISSING`.
        """
        programs = find_programs()
        if programs is None:
            raise FileNotFoundError(MISSING)
        chosen = {"fsync": "on" if fsync else "off", "full_page_writes": "on" if fsync else "off", **(settings or {})}
        server = cls(programs, Path(tempfile.mkdtemp(prefix="fanout-pg-")), chosen)
        try:
            server._make()
            server.up()
        except BaseException:
            server.close()
            raise
        return server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- databases

    def url(self, database: str, *, user: str = "fanout", password: str | None = None, **options: object) -> str:
        """The address of a database; `options` come after the question mark."""
        secret = self.password if password is None else password
        tail = "&".join(f"{key}={value}" for key, value in options.items())
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}{'?' + tail if tail else ''}"

    def fresh(self, *, template: str = "template1") -> str:
        """The name of a new database, a copy of `template`, which must have no connections."""
        self._made += 1
        name = f"t{self._made}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Delete a database, also one with connections."""
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement through psql; its answer, unaligned, without headings."""
        made = subprocess.run(
            [
                str(self.programs / "psql"),
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                statement,
                self.url(database),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if made.returncode:
            raise RuntimeError(f"psql refused a statement: {made.stderr.strip()}")
        return made.stdout.strip()

    def logged(self, words: str) -> int:
        """How often its log says so."""
        return (self.folder / _LOG).read_text(errors="replace").count(words)

    # -- the process

    def up(self) -> None:
        """Start it, and wait until it accepts connections. Idempotent."""
        if not self.running:
            self._control("start", "-w", "-t", str(int(_READY)), "-l", str(self.folder / _LOG))

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop it, and wait. ``immediate`` is a crash of the server: writes that were not flushed are lost.
        Idempotent."""
        if self.running:
            self._control("stop", "-w", "-m", mode)

    @property
    def pid(self) -> int:
        """The process that all others of the server are children of; 0 when it does not run."""
        try:
            return int((self.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return 0

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        pid = self.pid
        if not pid:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def log(self) -> str:
        """The server's log so far."""
        path = self.folder / _LOG
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Stop it and delete its folder. Idempotent."""
        try:
            self.stop("immediate")
        except (RuntimeError, subprocess.TimeoutExpired):
            pid = self.pid
            if pid:
                os.kill(pid, signal.SIGQUIT)
        # Thousands of files, of which Python asks more than this program does.
        subprocess.run(["rm", "-rf", str(self.folder)], check=False, stderr=subprocess.DEVNULL)

    # -- making

    def _make(self) -> None:
        self._own(self.folder)
        data = self.folder / "data"
        if self.model is None:
            self._initdb(data)
        else:
            with (self.model / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                word = self.model / "password"
                if not word.exists():
                    self._own(self.model)
                    self._initdb(self.model / "data")
                    word.write_text(self.password)
                self.password = word.read_text()
            self._run("cp", "-R", str(self.model / "data"), str(data))
        self.port = free_port()
        lines = {
            "listen_addresses": "'127.0.0.1'",
            "port": str(self.port),
            "unix_socket_directories": "''",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "max_locks_per_transaction": "256",
            "log_min_messages": "warning",
            **self.settings,
        }
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in lines.items())

    def _initdb(self, data: Path) -> None:
        secret = self.folder / "password"
        secret.write_text(_verifier(self.password))
        self._own(secret)
        self._run(
            str(self.programs / "initdb"),
            "-D",
            str(data),
            "-U",
            "fanout",
            "-A",
            "scram-sha-256",
            "--pwfile",
            str(secret),
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        )
        secret.unlink()

    def _own(self, path: Path) -> None:
        if self._user is not None:
            found = pwd.getpwnam(self._user)
            os.chown(path, found.pw_uid, found.pw_gid)

    def _control(self, *arguments: str) -> None:
        self._run(str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-s", *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        made = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=_READY * 2,
            cwd="/",
            user=self._user,
            group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
            extra_groups=None if self._user is None else [],
            # psql and the server read PG… variables: the caller's own database is none of ours.
            env={key: value for key, value in os.environ.items() if not key.startswith("PG")},
        )
        if made.returncode:
            raise RuntimeError(f"{program} failed: {made.stderr.strip()}\n{self.log[-2000:]}")


def _verifier(password: str) -> str:
    """The verifier of a password (RFC 5803), which a server takes as it is: of one round. Its own has 4,096, done for
    each connection."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    salt64, stored64, server64 = (
        base64.b64encode(each).decode() for each in (salt, stored, hmac.digest(salted, b"Server Key", "sha256"))
    )
    return f"SCRAM-SHA-256$1:{salt64}${stored64}:{server64}"


def _unprivileged() -> str | None:
    """The user that the server runs as: PostgreSQL refuses to be run by root."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    return None
