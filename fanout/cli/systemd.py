"""The messages to systemd under `Type=notify` (sd_notify(3)): ready, alive, in which state, stopping. Elsewhere nothing
is sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

from fanout.engine import Engine

__all__ = ["Announcer", "Children", "notify", "watchdog"]

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
_LOOKS = 3
"""Times within the watchdog's period that the engine is looked at."""
_STATUS_EVERY = 5.0
"""Seconds between two looks where there is no watchdog."""


def notify(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send these assignments, one a line; whether there is a service manager to send them to. A socket that takes none
    is no failure of ours."""
    address = environ.get(SOCKET, "")
    if not address:
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        sock.sendto(text.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
    return True


def watchdog(environ: Mapping[str, str] = os.environ) -> float | None:
    """The seconds within which systemd wants to hear that this process is alive; None where it does not ask, or asks
    another one."""
    period, of = environ.get(WATCHDOG, ""), environ.get(WATCHDOG_PID, "")
    if not period.isdigit() or int(period) == 0 or (of and of != str(os.getpid())):
        return None
    return int(period) / 1e6


class Announcer(AbstractAsyncContextManager["Announcer"]):
    """Tells systemd of an engine that is open: READY when entered, STOPPING when left, and in between that it is alive,
    with its state.

    Alive means that the event loop turns and the engine has not failed. A process of which that is not so is restarted
    by systemd, and its leases run out. A database or a gateway that does not answer is no reason: a new process would
    wait for it as well.
    """

    def __init__(self, engine: Engine, status: str, environ: Mapping[str, str] = os.environ) -> None:
        self._engine = engine
        self._status = status
        self._environ = environ
        self._said = ""
        self._period = watchdog(environ)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if notify(f"READY=1\nX_FANOUT_PID={os.getpid()}", self._environ):
            self._task = asyncio.create_task(self._tell())
        return self

    async def __aexit__(self, *exc: object) -> None:
        notify("STOPPING=1\nSTATUS=Stopping: answers under way are awaited.", self._environ)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _tell(self) -> None:
        every = _STATUS_EVERY if self._period is None else min(_STATUS_EVERY, self._period / _LOOKS)
        while True:
            self.look()
            await asyncio.sleep(every)

    def look(self) -> None:
        """Say that it is alive, if it is, and its state, if that has changed."""
        if self._period is not None and self._engine.fault is None:
            notify(f"WATCHDOG=1\nX_FANOUT_PID={os.getpid()}", self._environ)
        problem = self._engine.configuration.problem
        status = self._status
        if self._engine.fault is not None:
            status = "The engine has failed."
        elif problem:
            status = f"The changed configuration is refused, the one before serves: {problem}"
        if status != self._said:
            self._said = status
            notify(f"STATUS={' '.join(status.split())}", self._environ)


class Children:
    """Gathers the messages of several worker processes to systemd, which listens to their parent alone.

    Ready is when all are; the watchdog is fed when each has been heard of since it was fed last, so that one that hangs
    is enough for a restart. Enter it in a running loop; `environ` is for the children.
    """

    def __init__(self, count: int, status: str, environ: Mapping[str, str] = os.environ) -> None:
        self._own = environ
        self._count = count
        self._status = status
        self._ready: set[str] = set()
        self._alive: set[str] = set()
        self._sock: socket.socket | None = None
        self.environ: dict[str, str] = {
            name: text for name, text in environ.items() if name not in (SOCKET, WATCHDOG_PID)
        }

    async def __aenter__(self) -> Self:
        if not self._own.get(SOCKET):
            return self
        # An abstract name: it needs no folder, which may be read-only, and vanishes with this process.
        name = f"@fanout-{os.getpid()}-{secrets.token_hex(8)}"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._sock.setblocking(False)
        self._sock.bind(f"\0{name[1:]}")
        asyncio.get_running_loop().add_reader(self._sock, self._read)
        self.environ[SOCKET] = name
        if watchdog(self._own) is None:
            self.environ.pop(WATCHDOG, None)
        return self

    async def __aexit__(self, *exc: object) -> None:
        notify("STOPPING=1", self._own)
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock.close()

    def ended(self) -> None:
        """A worker process has ended, and is not to be waited for."""
        self._count -= 1

    def _read(self) -> None:
        assert self._sock is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                self._heard(self._sock.recv(4096).decode(errors="replace").split("\n"))

    def _heard(self, lines: Sequence[str]) -> None:
        parts = [line.partition("=") for line in lines]
        said: dict[str, str] = {name: value for name, _, value in parts}
        who = said.get("X_FANOUT_PID", "")
        if "READY" in said:
            self._ready.add(who)
            if len(self._ready) == self._count:
                notify(f"READY=1\nSTATUS={self._status}", self._own)
        if "WATCHDOG" in said:
            self._alive.add(who)
            if len(self._alive) >= self._count:
                self._alive.clear()
                notify("WATCHDOG=1", self._own)
        if said.get("STATUS", "").startswith("The "):
            notify(f"STATUS={said['STATUS']}", self._own)
