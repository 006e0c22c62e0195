"""Named moments at which a process ends, or an operation fails: parsed from the environment, counted, and acted on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fanout.plugin import StorageError, StorageFull

__all__ = ["NAMES", "VARIABLE", "Failpoint", "arm", "armed", "poison", "reached"]

VARIABLE = "FANOUT_FAILPOINT"
POISON = "FANOUT_POISON"

NAMES: dict[str, str] = {
    "put.before": "before storage is told of a submission",
    "put.inside": "in the transaction, after the notification's chunks",
    "put.after": "committed, and the caller not yet told",
    "expand.inside": "in the transaction that cuts a broadcast into chunks",
    "expand.after": "chunks cut and committed",
    "lease.inside": "in the transaction, after the chunk has its owner",
    "lease.after": "leased, and nothing sent",
    "send.before": "before a request",
    "send.unanswered": "the request has left, no answer has come",
    "send.after": "answered, and the answer not yet looked at",
    "settle.before": "answers looked at, none stored",
    "settle.inside": "in the transaction, after the chunks' new states",
    "settle.after": "stored, and the engine not yet told",
    "retry.inside": "in the middle of the statement that writes retry rows",
    "extend.before": "before leases are extended",
    "extend.inside": "in the transaction, after the leases' new end",
    "extend.after": "leases extended, and the engine not yet told",
    "commit.before": "everything written in memory, before COMMIT",
    "wal.write": "between two pages of a commit on their way into the log",
    "wal.sync": "the log written, before its fsync",
    "wal.synced": "the log synced, before COMMIT returns",
    "checkpoint.write": "between two pages on their way from the log into the file",
    "checkpoint.sync": "the file written, before its fsync",
    "shutdown.before": "told to end: before leases are given back",
    "shutdown.after": "leases given back, the database still open",
    "migrate.inside": "in the transaction of a step of the schema",
    "migrate.after": "a step committed, and the next not begun",
}
"""Every failpoint, with the moment that it stands for."""

Action = Literal["kill", "io", "full"]
_ACTIONS: tuple[Action, ...] = ("kill", "io", "full")


@dataclass(frozen=True, slots=True)
class Failpoint:
    """The action at the `hit`-th time (from 1) that `name` is reached in this process.

    `kill` ends it with SIGKILL. `io` raises the error of a broken disk, `full` that of a full one, there and at every
    later time.
    """

    name: str
    hit: int = 1
    action: Action = "kill"

    @classmethod
    def parse(cls, text: str) -> Failpoint:
        """From `name`, `name:hit` or `name:hit:action`. Raises `ValueError`."""
        name, _, rest = text.partition(":")
        number, _, action = rest.partition(":")
        if name not in NAMES:
            raise ValueError(f"{VARIABLE}: no failpoint is called {name!r}; there are {', '.join(NAMES)}.")
        if action not in ("", *_ACTIONS):
            raise ValueError(f"{VARIABLE}: no action is called {action!r}; there are {', '.join(_ACTIONS)}.")
        hit = int(number or "1")
        if hit < 1:
            raise ValueError(f"{VARIABLE}: the hit is {hit}; it counts from 1.")
        chosen: Action = "kill"
        for known in _ACTIONS:
            if known == action:
                chosen = known
        return cls(name, hit, chosen)

    def __str__(self) -> str:
        return f"{self.name}:{self.hit}" + ("" if self.action == "kill" else f":{self.action}")


class _Armed:
    def __init__(self) -> None:
        self.failpoint: Failpoint | None = None
        self.poison = ""
        self.count = 0
        self.lock = threading.Lock()


_state = _Armed()


def arm(environment: Mapping[str, str] = os.environ) -> None:
    """Take the failpoint from the environment; without one, none is armed. Raises `ValueError` for one that does not
    exist."""
    text = environment.get(VARIABLE, "")
    _state.failpoint = Failpoint.parse(text) if text else None
    _state.poison = environment.get(POISON, "")
    _state.count = 0


def armed(name: str) -> bool:
    """Whether it is this one that is armed: a costly point need not be watched otherwise."""
    return _state.failpoint is not None and _state.failpoint.name == name


def poison() -> str:
    """The device address whose every attempt ends the process, from FANOUT_POISON; empty for none."""
    return _state.poison


def reached(name: str) -> bool:
    """The moment is here: count it, and act if it is the one. True if an I/O error is due, which the caller raises in
    its own terms."""
    failpoint = _state.failpoint
    if failpoint is None or failpoint.name != name:
        return False
    with _state.lock:
        _state.count += 1
        if failpoint.action == "kill":
            if _state.count == failpoint.hit:
                kill()
            return False
        return _state.count >= failpoint.hit


def kill() -> None:
    """End this process as `kill -9` does: nothing is flushed, no handler runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def error(name: str) -> StorageError | None:
    """`reached`, with the error that a storage raises there; None if there is none."""
    if not reached(name):
        return None
    if _state.failpoint is not None and _state.failpoint.action == "full":
        return StorageFull(f"No room on the disk, says the failpoint {name}.")
    return StorageError(f"The disk fails, says the failpoint {name}.")
