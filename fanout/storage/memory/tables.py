"""What the memory storage holds, and the little arithmetic that every part of it needs."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from fanout.core.model import Endpoint, EndpointState, Target
from fanout.core.records import Event, Submission
from fanout.core.statemap import Applied, Codes
from fanout.core.states import FINAL_STATES, NotificationState

__all__ = [
    "Directory",
    "Expansion",
    "Lane",
    "Note",
    "Piece",
    "Retry",
    "Tables",
    "binding_tables",
    "finish",
    "log",
    "tally",
]


@dataclass(slots=True)
class Expansion:
    """A cursor over an audience. Without a binding it is a schedule: at `due_at` the target is looked up as `put` would."""

    binding: str | None
    due_at: float
    cursor: int = 0
    high: int = 0


@dataclass(slots=True)
class Retry:
    """One delivery that waits alone."""

    note: Note
    binding: str
    endpoint: int
    due_at: float
    attempt: int
    waiting: str
    reason: str


@dataclass(slots=True)
class Note:
    """One notification and everything that belongs to it. `settled` of `total` deliveries have ended.

    `target` is the submission's, with explicit addresses as endpoints.
    """

    row: int
    sub: Submission
    target: Target
    total: int = 0
    settled: int = 0
    attempts: int = 0
    stopped: str = ""
    finished_at: float | None = None
    expansions: list[Expansion] = field(default_factory=list)
    codes: Codes = field(default_factory=Codes)
    ended: dict[int, int] = field(default_factory=dict)
    pieces: dict[int, Piece] = field(default_factory=dict)
    retries: dict[int, Retry] = field(default_factory=dict)

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
        if any(each.binding is None for each in self.expansions):
            return NotificationState.SCHEDULED.value
        return NotificationState.EXPANDING.value if self.expansions else NotificationState.RUNNING.value


@dataclass(slots=True)
class Piece:
    """A chunk. Whoever owns it holds its lease until `ready_at`; otherwise it can be leased from then on."""

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

    def held(self, now: float) -> bool:
        """Whether somebody's lease still runs."""
        return bool(self.owner) and self.ready_at > now


@dataclass(slots=True)
class Lane:
    """What one lane of one binding waits with: heaps whose entries may be outdated, and expansions in order of arrival."""

    pieces: list[tuple[float, int, Piece]] = field(default_factory=list)
    retries: list[tuple[float, int, int, Retry]] = field(default_factory=list)
    expansions: list[tuple[Note, Expansion]] = field(default_factory=list)

    def push(self, piece: Piece) -> None:
        """The chunk is new, or its time has changed."""
        heappush(self.pieces, (piece.ready_at, piece.id, piece))

    def next_piece(self) -> Piece | None:
        """The chunk that can be leased first."""
        while self.pieces:
            at, _, piece = self.pieces[0]
            if piece.open and piece.ready_at == at:
                return piece
            heappop(self.pieces)
        return None

    def push_retry(self, retry: Retry) -> None:
        """One more delivery waits alone."""
        heappush(self.retries, (retry.due_at, retry.note.row, retry.endpoint, retry))

    def pop_retry(self) -> None:
        """The first one is taken."""
        heappop(self.retries)

    def next_retry(self) -> Retry | None:
        """The retry that is due first."""
        while self.retries:
            retry = self.retries[0][3]
            if retry.note.retries.get(retry.endpoint) is retry:
                return retry
            heappop(self.retries)
        return None


@dataclass(slots=True)
class Directory:
    """Endpoints by id, and the ways to find them. `known` remembers, per address and user, every endpoint that has it."""

    endpoints: dict[int, Endpoint] = field(default_factory=dict)
    active: dict[tuple[str, str, str], int] = field(default_factory=dict)
    known: dict[tuple[str, str, str, str], set[int]] = field(default_factory=dict)
    users: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    audiences: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    last_id: int = 0


@dataclass(slots=True)
class Tables:
    """The whole database."""

    directory: Directory = field(default_factory=Directory)
    notes: dict[str, Note] = field(default_factory=dict)
    unfinished: dict[str, Note] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, bytes, float]] = field(default_factory=dict)
    collapse: dict[tuple[str, str, bytes], Note] = field(default_factory=dict)
    pieces: dict[int, Piece] = field(default_factory=dict)
    lanes: dict[tuple[str, str], tuple[Lane, Lane, Lane]] = field(default_factory=dict)
    schedules: dict[str, list[Note]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    last_piece: int = 0
    last_note: int = 0
    last_event: int = 0
    changes: int = 0

    def open_endpoints(self, app: str, binding: str) -> Iterator[Endpoint]:
        """Active endpoints of a binding that belong to somebody, by id."""
        endpoints = self.directory.endpoints
        for id in self.directory.audiences.get((app, binding), ()):
            endpoint = endpoints.get(id)
            if endpoint is not None and endpoint.state is EndpointState.ACTIVE and endpoint.user:
                yield endpoint


def binding_tables(t: Tables, app: str, binding: str) -> tuple[Lane, Lane, Lane]:
    """The lanes of a binding, empty when it is new."""
    return t.lanes.setdefault((app, binding), (Lane(), Lane(), Lane()))


def log(t: Tables, now: float, app: str, kind: str, data: dict[str, Any]) -> None:
    """One line more in the event log."""
    t.last_event += 1
    t.events.append(Event(t.last_event, now, app, kind, data))


def tally(note: Note, applied: Applied) -> None:
    """Count what has ended."""
    for code, n in applied.ended.items():
        note.ended[code] = note.ended.get(code, 0) + n
        note.settled += n


def finish(t: Tables, note: Note, now: float) -> bool:
    """If nothing of the notification is left, say so once: True."""
    if note.finished_at is not None or note.expansions or note.settled < note.total:
        return False
    note.finished_at = now
    t.unfinished.pop(note.sub.id, None)
    data = {"notification": note.sub.id, "state": note.state, "total": note.total, "counts": note.counts}
    log(t, now, note.sub.app, "notification.finished", data)
    return True
