"""The values that pass between the engine and a storage backend: submissions, leases, settlements and the values that
are read back.

All times are UNIX seconds as floats. A chunk's deliveries are named by their index in `Chunk.ids`.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Self

from fanout.core.address import Address
from fanout.core.endpoint import EndpointState
from fanout.core.feed import Audience, FeedBulk, FeedChange, FeedPost, FeedWritten
from fanout.core.frozen import fast_init
from fanout.core.model import Repeat, Target

__all__ = [
    "AddressMoved",
    "Backlog",
    "Chunk",
    "Control",
    "EndpointFilter",
    "EndpointGone",
    "EndpointRow",
    "Event",
    "Expired",
    "GateNote",
    "LeaseRequest",
    "Put",
    "Release",
    "RetryRow",
    "Settled",
    "Settlement",
    "Status",
    "Step",
    "Stored",
    "Submission",
    "Taken",
]


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One notification to be put, already validated and prepared.

    `content` is the notification as JSON (`core.codec`). `digest` identifies the request for the idempotency key: the
    same key with another digest is a conflict. `refused` names the bindings for which `prepare` failed: a target that
    touches one of them is refused as a whole.

    `feed` is written in the same commit, into the feed of the target (`plugin.feed`): an item is posted, or changed by
    the user that is the target. Submissions right after it that say `follows` are further parts of it; a part's
    `content` may hold `core.feed.CURSOR_SLOT` and `ITEM_SLOT`, which storage fills. A change comes first in its batch,
    which holds no other; where it finds nothing to change, its parts are dropped, and so are those of a post whose
    idempotency key was known. `audience`: only these of the target's endpoints. `optional`: dropped where there is
    none, at acceptance. `joins` is the content for it together with an earlier one of its collapse key and target:
    where that one is scheduled and has not begun, it takes this content, keeps its time, and nothing new is stored
    (`Put.joined`); where it has, and is superseded, this is stored with that content.
    """

    id: str
    app: str
    target: Target
    content: bytes
    lane: int
    repeat: Repeat
    accepted_at: float
    due_at: float
    expires_at: float
    collapse_key: str | None = None
    idempotency_key: str | None = None
    digest: bytes = b""
    refused: frozenset[str] = frozenset()
    feed: FeedPost | FeedChange | FeedBulk | None = None
    follows: bool = False
    audience: Audience | None = None
    optional: bool = False
    joins: bytes = b""


@fast_init
@dataclass(frozen=True, slots=True)
class Put:
    """The result of one submission. Exactly one of `id`, `refused`, `conflict` and `dropped` says it; none of them
    where it was in order and nothing was stored because of another one of its batch, or of a problem that `feed` names.

    `id` is the notification's id (an earlier one's when `replayed` or `joined`). `total` is None while a topic or `all`
    is still to expand. `refused` is a binding of the target that the submission had refused. `conflict` is the id that
    holds the idempotency key.
    """

    id: str = ""
    total: int | None = None
    replayed: bool = False
    refused: str = ""
    conflict: str = ""
    superseded: tuple[str, ...] = ()
    dropped: bool = False
    joined: bool = False
    feed: FeedWritten | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The result of a submission that was taken from the inbox: it was `put`, or it was refused because of
    `refused`."""

    submission: Submission
    put: Put = Put()
    refused: str = ""


class EndpointRow(NamedTuple):
    """The columns of an endpoint that a send needs. `held_until` (UNIX seconds, 0 for never) is when its back-off
    ends."""

    id: int
    address: str
    kind: str
    group: str
    registered_at: float
    generation: int
    state: str
    held_until: float = 0.0


class LeaseRequest(NamedTuple):
    """The arguments of one `lease`: the worker, the queue, the number of deliveries, and the end in UNIX seconds."""

    worker: str
    app: str
    binding: str
    lane: int
    limit: int
    until: float


@dataclass(frozen=True, slots=True)
class Stored:
    """A notification as storage holds it, for preparing it anew. `stopped` is why nothing more of it may be sent."""

    id: str
    app: str
    content: bytes
    lane: int
    repeat: Repeat
    accepted_at: float
    due_at: float
    expires_at: float
    stopped: Literal["", "cancelled", "superseded", "paused"] = ""


@dataclass(slots=True)
class Chunk:
    """A leased chunk: up to 1,000 deliveries of one notification on one binding, at attempt number `attempt`.

    `states` has one byte per delivery: 0 is open, anything else is settled. `epoch` fences every write under this
    lease. `part` is 0 where the deliveries may be sent all together; after two crashes it is how many may be under way
    at once, each such group marked first. `rows` is the answer of `resolve` for `ids` at this moment, in their order,
    and `stored` the answer of `notification`, where storage has them at hand; None where it is to be asked.
    """

    id: int
    notification: str
    app: str
    binding: str
    lane: int
    attempt: int
    epoch: int
    lease_until: float
    ids: array[int]
    states: bytes
    part: int = 0
    rows: Sequence[EndpointRow] | None = field(default=None, compare=False)
    stored: Stored | None = field(default=None, compare=False)


class RetryRow(NamedTuple):
    """One delivery leaves its chunk for a row of its own.

    `holds`: its endpoint is in back-off until `due_at`, and its other deliveries wait too. False for one that merely
    waits behind such.
    """

    position: int
    due_at: float
    attempt: int
    waiting: str
    reason: str
    holds: bool = False


@dataclass(frozen=True, slots=True)
class EndpointGone:
    """Quarantine this endpoint, if it is still of this generation."""

    endpoint: int
    generation: int
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class AddressMoved:
    """Give this endpoint a new address, if it is still of this generation."""

    endpoint: int
    generation: int
    at: float
    address: Address


@dataclass(frozen=True, slots=True)
class Release:
    """Give the lease back: its open deliveries are due again at `due_at`, and wait for `waiting`, because of
    `reason`."""

    due_at: float
    waiting: str
    reason: str = ""


@dataclass(slots=True)
class Settlement:
    """The findings of one lease since its last settlement. Dropped whole when `epoch` is no longer the chunk's.

    `results` maps (state, reason) to the indices that ended so; the state `doubt` marks an `at_most_once` delivery
    before it is sent and is overwritten by its result. `reopen` are doubt-marked indices that were not sent after all.
    `marks` are indices of a suspected chunk that are about to be sent; they stay open, and a release takes the mark
    off. `attempts` counts tries that reached for the network. A chunk with no open and no doubtful delivery left is
    done, and its lease ends.
    """

    chunk: int
    epoch: int
    results: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    retries: list[RetryRow] = field(default_factory=list)
    reopen: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    changes: list[EndpointGone | AddressMoved] = field(default_factory=list)
    attempts: int = 0
    release: Release | None = None

    def set_back(self, seconds: float) -> None:
        """The clock was set back since this was made: a waiting delivery is due as long from now as it was to be.

        Args:
            seconds: The step of the clock, in seconds.
        """
        self.retries = [row._replace(due_at=row.due_at - seconds) for row in self.retries]
        if self.release is not None:
            self.release = replace(self.release, due_at=self.release.due_at - seconds)


@fast_init
@dataclass(frozen=True, slots=True)
class Settled:
    """The result of one settlement: refused as stale, or stored; and the notification that it finished, if any.

    `status` is the answer of `status` for that notification from then on, where storage has it at hand.
    """

    stale: bool
    finished: str = ""
    status: Status | None = field(default=None, compare=False)


@fast_init
@dataclass(frozen=True, slots=True)
class Status:
    """One notification's state of affairs, with the words of `status --json`. Times are UNIX seconds.

    Attributes:
        id, app, state: The notification's id and app, and its state (`NotificationState`).
        total: The number of its deliveries; None while that is not known.
        counts: The numbers of deliveries that have ended, by state, and of those that have not (`pending`).
        pending_by_reason: The numbers of deliveries that have not ended, by waiting reason.
        reasons: For each final state the numbers by the reason.
        attempts: The number of attempts that reached for the network.
        accepted_at, due_at, expires_at, finished_at, oldest_pending_at: The time of acceptance, the due time, the end
            of the time to live, the end of the last delivery (None before), and the due time while it has not ended
            (else None).
    """

    id: str
    app: str
    state: str
    total: int | None
    counts: Mapping[str, int]
    pending_by_reason: Mapping[str, int]
    reasons: Mapping[str, Mapping[str, int]]
    attempts: int
    accepted_at: float
    due_at: float
    expires_at: float
    finished_at: float | None
    oldest_pending_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFilter:
    """Which endpoints to list; None means any."""

    app: str = "default"
    user: str | None = None
    binding: str | None = None
    tag: str | None = None
    state: EndpointState | None = EndpointState.ACTIVE


class Expired(int):
    """How many `Storage.expire` ended: a number, and besides `unexpanded`, by app, the notifications of which an
    audience was never counted."""

    unexpanded: Mapping[str, int]

    def __new__(cls, ended: int, unexpanded: Mapping[str, int] | None = None) -> Self:
        made = super().__new__(cls, ended)
        made.unexpanded = unexpanded or {}
        return made


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the durable event log.

    Kinds: `endpoint.gone`, `endpoint.moved`, `endpoint.replaced`, `endpoint.removed`, `endpoint.restored`,
    `notification.finished`, `notification.refused`, `binding.parked`, `binding.opened`, `subscription.ended` (a user
    had more than the limit), `database.switched` (it is another than before, such as a promoted standby: it may lack
    the latest notifications).

    Attributes:
        id: A number that grows: the cursor.
        app, kind, data: The app, the kind, and the values of that kind, without a device address.
        at: The time, in UNIX seconds.
    """

    id: int
    at: float
    app: str
    kind: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One decision about a delivery, as `explain` lists it. The word `what` is one of `accepted`, `queued` (its chunk
    was cut), `leased`, `taken over` (the worker that held it was lost), `suspected` (it was under way at a crash),
    `retry`, `held` (its endpoint is in back-off), `released` (its chunk was given back), `paused`, `resumed`, `ended`.

    Attributes:
        at: The time at which it was stored, in UNIX seconds.
        reason, waiting, state: The reason, the waiting reason, and the final state, where there is one.
        attempt: The number of the attempt, from 1; 0 where there is none.
        until: The time at which it is due again, in UNIX seconds, where it waits.
        worker: The id of the worker, where one is concerned.
    """

    at: float
    what: str
    reason: str = ""
    attempt: int = 0
    until: float | None = None
    worker: str = ""
    waiting: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class GateNote:
    """A gate that a worker closed; with `waiting` empty, one that it opened.

    Attributes:
        app, binding, scope, name: The place of the gate; `name` is the group's or topic's.
        waiting, reason: The waiting reason, and the gateway's word or another.
        until: The time until which it is closed, in UNIX seconds.
        alarm: Whether an operator has to act.
        whole: Whether everything of the binding waits behind it.
        worker: The id of the worker that closed it.
    """

    app: str
    binding: str
    scope: str
    name: str
    waiting: str
    reason: str = ""
    until: float = 0.0
    alarm: bool = False
    whole: bool = False
    worker: str = ""

    def set_back(self, seconds: float) -> GateNote:
        """This note, after the clock was set back: the gate stays closed as long from now as it was to.

        Args:
            seconds: The step of the clock, in seconds.

        Returns:
            A note with another end; the same one where it has none.
        """
        return replace(self, until=self.until - seconds) if self.waiting and seconds else self


@dataclass(frozen=True, slots=True)
class Control:
    """The requests of operators for a binding. `nudge` counts the requests to try again at once."""

    paused: bool = False
    nudge: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """The accepted work that has not ended: deliveries (an unexpanded topic or broadcast counts as one), bytes of
    content, and since when the oldest has been due (UNIX seconds; None where there is nothing)."""

    deliveries: int = 0
    bytes: int = 0
    oldest_at: float | None = None
