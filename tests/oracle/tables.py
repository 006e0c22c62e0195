"""What the model holds, and the little arithmetic that every part of it needs."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fanout.core.access import Grant
from fanout.core.audit import Audit
from fanout.core.endpoint import Endpoint, EndpointState
from fanout.core.fleet import Part, SharedToken, WorkerNote
from fanout.core.model import Target
from fanout.core.records import Control, Event, GateNote, Step, Submission
from fanout.core.statemap import Applied, Codes
from fanout.core.states import FINAL_STATES, NotificationState
from tests.oracle.feed_tables import FeedTables
from tests.oracle.lanes import Lane

__all__ = [
    "Directory",
    "Expansion",
    "Line",
    "Note",
    "Piece",
    "Posted",
    "Retry",
    "Tables",
    "binding_tables",
    "finish",
    "log",
    "write",
]


@dataclass(slots=True, eq=False)
class Expansion:
    """A cursor over an audience. Without a binding it is a schedule: at `due_at` the target is looked up as `put`
    would.

    With `pieces` it is what `put` held back: chunks that exist already and wait for their turns.
    """

    binding: str | None
    due_at: float
    cursor: int = 0
    high: int = 0
    pieces: list[Piece] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Retry:
    """One delivery that waits alone. `number` is its own."""

    number: int
    note: Note
    binding: str
    endpoint: int
    due_at: float
    attempt: int
    waiting: str
    reason: str
    holds: bool
    since: float = 0.0
    """When `due_at` was written."""


@dataclass(slots=True)
class Line:
    """A step as it was stored, the `number`-th of all. A chunk's holds of the deliveries that are open in `states`."""

    number: int
    step: Step
    states: bytes = b""


@dataclass(slots=True, eq=False)
class Note:
    """One notification and everything that belongs to it. `settled` of `total` deliveries have ended.

    `target` is the submission's, with explicit addresses as endpoints. `turns` are its chunks that are held back, by
    binding; `trail` its pauses, `trails` what befell single deliveries, by endpoint.
    """

    row: int
    sub: Submission
    target: Target
    total: int = 0
    settled: int = 0
    attempts: int = 0
    stopped: str = ""
    paused: bool = False
    finished_at: float | None = None
    unexpanded: bool = False
    """It expired before all of its audience was counted."""
    expansions: list[Expansion] = field(default_factory=list)
    turns: list[Expansion] = field(default_factory=list)
    codes: Codes = field(default_factory=Codes)
    ended: dict[int, int] = field(default_factory=dict)
    pieces: dict[int, Piece] = field(default_factory=dict)
    retries: dict[int, Retry] = field(default_factory=dict)
    trail: list[Line] = field(default_factory=list)
    trails: dict[int, list[Line]] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Deliveries by state, `pending` first."""
        counts = {"pending": self.total - self.settled} | dict.fromkeys(FINAL_STATES, 0)
        for code, n in self.ended.items():
            counts[self.codes.pair(code)[0]] += n
        return counts

    @property
    def state(self) -> str:
        """The word of `status`."""
        if self.stopped:
            return NotificationState.CANCELLED.value
        if self.finished_at is not None:
            return NotificationState.DONE.value
        if self.paused:
            return NotificationState.PAUSED.value
        if any(each.binding is None for each in self.expansions):
            return NotificationState.SCHEDULED.value
        return NotificationState.EXPANDING.value if self.expansions else NotificationState.RUNNING.value

    @property
    def halted(self) -> str:
        """Why nothing of it may be sent, or nothing."""
        paused = self.paused and self.finished_at is None
        return self.stopped or (NotificationState.PAUSED.value if paused else "")


@dataclass(slots=True, eq=False)
class Piece:
    """A chunk. Whoever owns it holds its lease until `ready_at`; otherwise it can be leased from then on.

    `queued` is the first line of its deliveries, where they have not been in a chunk before. `back` says that `put`
    held it back. `crashes` and `part` are those of `core.poison`.
    """

    id: int
    note: Note
    binding: str
    attempt: int
    ready_at: float
    waiting: str
    ids: array[int]
    states: bytes
    open: int
    owner: str = ""
    epoch: int = 0
    back: bool = False
    crashes: int = 0
    part: int = 0
    since: float = 0.0
    """When it was last given back."""
    ended_at: float = 0.0
    queued: Line | None = None
    trail: list[Line] = field(default_factory=list)

    def held(self, now: float) -> bool:
        """Whether somebody's lease still runs."""
        return bool(self.owner) and self.ready_at > now

    def conclude(self, applied: Applied, now: float) -> None:
        """Store the new map, and count what has ended. Without an open delivery it is done, and nobody holds it."""
        self.states = applied.states
        self.open = applied.open
        for code, n in applied.ended.items():
            self.note.ended[code] = self.note.ended.get(code, 0) + n
            self.note.settled += n
        if applied.ended:
            self.ended_at = now
        if not self.open:
            self.owner = ""


@dataclass(slots=True)
class Posted:
    """A gate note that stands, and whether an alarm of it is in the log without its opening."""

    note: GateNote
    parked: bool
    since: float


@dataclass(slots=True)
class Directory:
    """Endpoints by id, and the ways to find them. `known` remembers, per address and user, every endpoint that has
    it."""

    endpoints: dict[int, Endpoint] = field(default_factory=dict)
    active: dict[tuple[str, str, str], int] = field(default_factory=dict)
    known: dict[tuple[str, str, str, str], set[int]] = field(default_factory=dict)
    users: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    audiences: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    last_id: int = 0


@dataclass(slots=True)
class Tables:
    """The whole database.

    `collapse` has the latest notification of a collapse key and target, `collapsible` all of a key in order of
    acceptance. `holding` has, by endpoint, the retry rows that hold it. `pauses` are the lines of a binding's pauses.
    `parts` are what workers have of rates, by (name of the rate, worker). `secret` is for the audit log.
    """

    directory: Directory = field(default_factory=Directory)
    feed: FeedTables = field(default_factory=FeedTables)
    notes: dict[str, Note] = field(default_factory=dict)
    unfinished: dict[str, Note] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, bytes, float]] = field(default_factory=dict)
    collapse: dict[tuple[str, str, bytes], Note] = field(default_factory=dict)
    collapsible: dict[tuple[str, str], list[Note]] = field(default_factory=dict)
    pieces: dict[int, Piece] = field(default_factory=dict)
    holding: dict[int, dict[int, Retry]] = field(default_factory=dict)
    lanes: dict[tuple[str, str], tuple[Lane, Lane, Lane]] = field(default_factory=dict)
    schedules: dict[str, list[Note]] = field(default_factory=dict)
    controls: dict[tuple[str, str], Control] = field(default_factory=dict)
    pauses: dict[tuple[str, str], list[Line]] = field(default_factory=dict)
    gates: dict[tuple[str, str, str, str], Posted] = field(default_factory=dict)
    workers: dict[str, WorkerNote] = field(default_factory=dict)
    parts: dict[tuple[str, str], Part] = field(default_factory=dict)
    tokens: dict[str, SharedToken] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    last_piece: int = 0
    last_note: int = 0
    last_event: int = 0
    last_line: int = 0
    changes: int = 0
    secret: bytes = b""

    def open_endpoints(self, app: str, binding: str) -> Iterator[Endpoint]:
        """Active endpoints of a binding that belong to somebody, by id."""
        endpoints = self.directory.endpoints
        for id in self.directory.audiences.get((app, binding), ()):
            endpoint = endpoints.get(id)
            if endpoint is not None and endpoint.state is EndpointState.ACTIVE and endpoint.user:
                yield endpoint

    def paused(self, app: str, binding: str) -> bool:
        """Whether the binding is."""
        control = self.controls.get((app, binding))
        return control is not None and control.paused

    def line(self, step: Step, states: bytes = b"") -> Line:
        """A step, numbered."""
        self.last_line += 1
        return Line(self.last_line, step, states)


def binding_tables(t: Tables, app: str, binding: str) -> tuple[Lane, Lane, Lane]:
    """The lanes of a binding, empty when it is new."""
    return t.lanes.setdefault((app, binding), (Lane(), Lane(), Lane()))


def log(t: Tables, now: float, app: str, kind: str, data: dict[str, Any]) -> None:
    """One line more in the event log."""
    t.last_event += 1
    t.events.append(Event(t.last_event, now, app, kind, data))


def write(t: Tables, app: str, audit: Audit | None, now: float) -> None:
    """A line of the audit log, if there is one to write."""
    if audit is not None:
        log(t, now, app, audit.kind, audit.line(t.secret, app))


def finish(t: Tables, note: Note, now: float) -> bool:
    """If nothing of the notification is left, say so once: True."""
    if note.finished_at is not None or note.expansions or note.settled < note.total:
        return False
    note.finished_at = now
    t.unfinished.pop(note.sub.id, None)
    data = {"notification": note.sub.id, "state": note.state, "total": note.total, "counts": note.counts}
    log(t, now, note.sub.app, "notification.finished", data)
    return True
