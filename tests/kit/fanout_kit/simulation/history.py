"""The record of a run for its judges: every attempt, storage call, request at a gateway, and act of fate, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fanout.plugin import Endpoint, Outcome

if TYPE_CHECKING:
    from fanout.core.records import Step
    from fanout.plugin import Event, Status
    from fanout_kit.simulation.disk import Call
    from fanout_kit.simulation.gateway import Arrival
    from fanout_kit.simulation.plan import Plan

__all__ = ["Attempt", "Directory", "Ended", "History", "Life", "Request", "Rest"]


@dataclass(slots=True)
class Attempt:
    """One call of a transport's `send`. Virtual seconds, but for `wall` (at its beginning) and `ended_wall` (UNIX
    seconds).

    `line` and `last_line` are those of the trace, by which two things at one moment are told apart; `commits` is how
    many storage calls had been done by its beginning. `outcome` is None while it is under way: for ever, where its
    process died. `raised` names the exception that escaped instead.
    """

    node: str
    binding: str
    group: str
    notification: str
    endpoint: int
    delivery: str
    address: str
    attempt: int
    ttl: int
    begun: float
    wall: float
    commits: int
    line: int
    outcome: Outcome | None = None
    raised: str = ""
    ended: float | None = None
    ended_wall: float = 0.0
    last_line: int = 0


@dataclass(slots=True)
class Request:
    """One call of the engine by a user of it. `returned` is None where no answer came, because the process died.

    `line` is that of the trace at which it returned.
    """

    what: str
    node: str
    data: Mapping[str, Any]
    asked: float
    returned: float | None = None
    line: int = 0
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Life:
    """One incarnation of a worker. `freezes` are (from, to); `end` is how it ended: "crash", "stop", or "" while it
    runs."""

    worker: int
    node: str
    born: float
    died: float | None = None
    end: str = ""
    freezes: list[tuple[float, float]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def stood_still(self, since: float, until: float) -> float:
        """For how long it stood still between two moments."""
        return sum(max(0.0, min(until, end) - max(since, begin)) for begin, end in self.freezes)


Directory = Mapping[int, Endpoint]
"""Every endpoint by id, as it stood after some commit."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A delivery's end as a settlement stored it, at the commit of that number."""

    state: str
    reason: str
    commit: int
    at: float
    node: str


@dataclass(frozen=True, slots=True)
class Rest:
    """The database's final record of one notification: None where it does not know it.

    `explained` are the decisions about a few of its deliveries, by endpoint.
    """

    status: Status | None
    deliveries: list[tuple[int, str, str]]
    explained: dict[int, list[Step]]


@dataclass(slots=True)
class History:
    """One run. `calls` are storage calls in the order of their commits, but for mere questions; a commit is named by
    its index there.

    `directories` are (commit, directory) wherever the directory changed; `live` are (line of the trace, node, event,
    virtual second) of each engine. `jumps` are (virtual seconds, by how much). `drained` is when nothing was left to
    do, None where that never came.
    """

    plan: Plan
    attempts: list[Attempt] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    lives: dict[str, Life] = field(default_factory=dict)
    directories: list[tuple[int, Directory]] = field(default_factory=list)
    live: list[tuple[int, str, Any, float]] = field(default_factory=list)
    jumps: list[tuple[float, float]] = field(default_factory=list)
    full: list[tuple[float, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    drained: float | None = None
    ended: float = 0.0
    rest: dict[str, Rest] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    outstanding: dict[str, int] = field(default_factory=dict)

    def directory_after(self, commit: int) -> Directory:
        """The directory as it stood after the commit of that number."""
        found: Directory = {}
        for number, directory in self.directories:
            if number > commit:
                break
            found = directory
        return found
