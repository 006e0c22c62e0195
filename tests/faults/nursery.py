"""A process that has imported everything and forks: each child is a process of its own, ready in a few hundredths of a
second.

Starting Python takes half a second of which a kill proves nothing; a thousand kills would be ten minutes of imports. A
child shares nothing with its parent or siblings but the modules' code: it opens its own files, database and
connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any

__all__ = ["Child", "Nursery", "nursery"]

_PRELOADED = (
    "fanout.cli", "fanout.storage.sqlite.store", "fanout.storage.postgres.store", "fanout.http", "fanout.http.http1_session", "fanout_kit.faulty.storage",
    "fanout_kit.faulty.installed", "fanout_kit.faulty.transport", "fanout_apns.transport", "fanout_apns.auth",
    "fanout_apns.simulator", "fanout_webpush.transport", "fanout_webpush.simulator", "fanout_fcm.transport", "fanout_fcm.simulator",
    "aiohttp", "decimal", "pydantic", "pydantic.dataclasses", "fanout.config.load", "fanout.config.binding", "apsw", "cryptography.hazmat.primitives.serialization", "tests.faults.gateway", "tests.faults.driver", "uvloop",
)  # fmt: skip


@dataclass(slots=True)
class Child:
    """One process. `log` is where its standard output and error go."""

    pid: int
    log: Path
    _nursery: Nursery
    _code: int | None = None

    def signal(self, number: int) -> None:
        """Send a signal, if it has not been waited for."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9`."""
        self.signal(signal.SIGKILL)

    async def wait(self, timeout: float = 60.0) -> int:
        """Its exit code, negative for a signal. Raises `TimeoutError`."""
        if self._code is None:
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            descriptor = os.pidfd_open(self.pid)
            loop.add_reader(descriptor, lambda: ended.done() or ended.set_result(None))
            try:
                async with asyncio.timeout(timeout):
                    await ended
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
            self._code = self._nursery._ask(wait=self.pid)
        return self._code

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        if self._code is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                if not select.select([descriptor], [], [], 0)[0]:
                    return False
            finally:
                os.close(descriptor)
            self._code = self._nursery._ask(wait=self.pid)
        return True

    @property
    def said(self) -> str:
        """What it wrote to standard error."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""


class Nursery:
    """Makes children. Started with the first; `close` kills those that are left."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def spawn(
        self,
        main: str,
        argv: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
        uid: int = 0,
        network: str = "",
        out: Path | None = None,
        folder: Path | None = None,
    ) -> Child:
        """A child that calls `main` (`module:function`) with these words as `sys.argv`, in `folder` where one is given.
        Its standard output goes to `out`, else to `log` too.

        `limits` are names of RLIMIT_… with their value. `uid` is another user to be, and `network` the network
        namespace to be in, for who runs as root.
        """
        pid = self._ask(
            spawn=main,
            argv=list(argv),
            log=str(log),
            environment=dict(environment or {}),
            limits=dict(limits or {}),
            uid=uid,
            network=network,
            out=str(out or log),
            folder=str(folder or ""),
        )
        return Child(pid, log, self)

    def close(self) -> None:
        """End every child, and the nursery. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(60)
            process.stdout.close()

    def _ask(self, **words: Any) -> int:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nursery"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("The nursery has ended; its own words are above.")
        return int(line)


@asynccontextmanager
async def nursery() -> AsyncIterator[Nursery]:
    """A nursery for a block."""
    made = Nursery()
    try:
        yield made
    finally:
        made.close()


# -- in the nursery's process


def main() -> None:
    """Obey lines on standard input until it ends."""
    for name in _PRELOADED:
        with contextlib.suppress(ImportError):
            import_module(name)
    children: set[int] = set()
    for line in sys.stdin:
        words = json.loads(line)
        if "wait" in words:
            pid = words["wait"]
            _, status = os.waitpid(pid, 0)
            children.discard(pid)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                _child(words, sys.stdin)
            children.add(answer)
        print(answer, flush=True)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _child(words: dict[str, Any], stdin: IO[str]) -> None:
    """Be that process, and never return."""
    code = 70
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        out, log = (os.open(words[to], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for to in ("out", "log"))
        for number, target in ((0, null), (1, out), (2, log)):
            os.dup2(target, number)
        for number in (null, out, log):
            os.close(number)
        if words["folder"]:
            os.chdir(words["folder"])
        os.environ.update(words["environment"])
        for name, value in words["limits"].items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        if words["network"]:
            _enter(words["network"])
        if words["uid"]:
            os.setuid(words["uid"])
        sys.argv = words["argv"]
        module, _, function = words["spawn"].partition(":")
        code = getattr(import_module(module), function)() or 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _enter(network: str) -> None:
    """Go into that network namespace, as `ip netns exec` does."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/run/netns/{network}", os.O_RDONLY)
    try:
        if libc.setns(descriptor, 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), f"the network namespace {network} cannot be entered")
    finally:
        os.close(descriptor)


def fanout_main() -> int:
    """`fanout`, for a child: with the faulty plugins where they are asked for."""
    from fanout.cli import main as cli
    from fanout_kit.faulty.failpoints import arm
    from fanout_kit.faulty.installed import install

    install()
    arm()
    return cli() or 0


if __name__ == "__main__":
    main()
