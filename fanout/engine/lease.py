"""A leased chunk at run time: its deliveries, what each came to, and how the lease ends."""

from __future__ import annotations

from fanout.core.delivery import Delivery, Message
from fanout.core.ids import DeliveryIds
from fanout.core.model import Notification
from fanout.core.records import (
    AddressMoved,
    Chunk,
    EndpointGone,
    EndpointRow,
    Release,
    RetryRow,
    Settlement,
)
from fanout.core.states import DOUBT, DeliveryState, Waiting

__all__ = ["Lease", "Prepared"]


class Prepared:
    """A notification made ready in this process: decoded, encoded once for the binding, its delivery ids' namespace hashed."""

    __slots__ = ("expires_at", "ids", "message", "notification", "once", "stopped")

    def __init__(self, notification: Notification, message: Message) -> None:
        self.notification = notification
        self.message = message
        self.ids = DeliveryIds(notification.id)
        self.expires_at = notification.expires_at
        self.once = notification.ttl == 0
        self.stopped = ""


class Lease:
    """One chunk in hand. `left` counts deliveries that are queued or under way; at 0 the lease can end.

    `until` is in monotonic seconds: past it nothing may be sent, because another worker may hold the chunk.
    """

    __slots__ = (
        "_attempts",
        "_changes",
        "_reopen",
        "_results",
        "_retries",
        "accepted",
        "chunk",
        "doubtful",
        "free",
        "left",
        "lost",
        "parked",
        "prepared",
        "release_at",
        "rows",
        "stalled",
        "until",
        "waiting",
    )

    def __init__(self, chunk: Chunk, prepared: Prepared, rows: list[EndpointRow | None], until: float) -> None:
        self.chunk = chunk
        self.prepared = prepared
        self.rows = rows
        self.until = until
        self.left = 0
        self.lost = False
        self.doubtful = prepared.notification.repeat == "at_most_once"
        self.free: dict[int, int] = {}
        self.parked: list[int] = []
        self.stalled: list[int] = []
        self.release_at = 0.0
        self.waiting = Waiting.READY
        self.accepted: list[int] = []
        self._results: dict[tuple[str, str], list[int]] = {}
        self._retries: list[RetryRow] = []
        self._changes: list[EndpointGone | AddressMoved] = []
        self._reopen: list[int] = []
        self._attempts = 0

    def delivery(self, position: int, now: float) -> Delivery:
        """What the transport is handed for this attempt."""
        row = self.rows[position]
        assert row is not None
        prepared = self.prepared
        ttl = 0 if prepared.once else int(prepared.expires_at - now)
        return Delivery(prepared.ids, row[0], row[1], row[2], row[3], self.chunk.attempt, ttl, row[4])

    # -- how one delivery leaves: each takes it out of `left`, or keeps it there

    def accept(self, position: int) -> None:
        """The usual end."""
        self.accepted.append(position)
        self.left -= 1

    def finish(self, position: int, state: DeliveryState, reason: str, *, attempted: bool) -> None:
        """Any final state."""
        self._results.setdefault((state.value, reason), []).append(position)
        self._attempts += attempted
        self.left -= 1

    def retry(self, position: int, due_at: float, attempt: int, waiting: Waiting, reason: str) -> None:
        """Into a retry row of its own."""
        self._retries.append(RetryRow(position, due_at, attempt, waiting.value, reason))
        self._attempts += 1
        self.left -= 1

    def park(self, position: int, until: float, waiting: Waiting) -> None:
        """Stays open; the lease is given back when nothing else is left, and is due when the first gate opens."""
        if not self.parked or until < self.release_at:
            self.release_at = until
            self.waiting = waiting
        self.parked.append(position)
        self.left -= 1

    def lose(self) -> None:
        """Another worker holds the chunk: nothing more may be sent, and what was learned will be refused."""
        self.lost = True
        self.until = 0.0

    def changed(self, change: EndpointGone | AddressMoved) -> None:
        """The directory must learn something with the same commit."""
        self._changes.append(change)

    def tried(self) -> None:
        """An attempt that ended in nothing: it went back to the queue."""
        self._attempts += 1

    # -- settling

    @property
    def dirty(self) -> bool:
        """Whether there is something to settle."""
        return bool(self.accepted or self._results or self._retries or (self.left == 0 and self.parked))

    @property
    def spent(self) -> bool:
        """Whether the lease has nothing more to do: the next settlement ends it."""
        return self.left == 0 and not self.stalled

    def take(self) -> Settlement:
        """What was learned since the last call, as one settlement."""
        results = self._results
        if self.accepted:
            self._attempts += len(self.accepted)
            results.setdefault((DeliveryState.ACCEPTED.value, ""), []).extend(self.accepted)
            self.accepted = []
        settlement = Settlement(
            self.chunk.id,
            self.chunk.epoch,
            results=results,
            retries=self._retries,
            changes=self._changes,
            attempts=self._attempts,
        )
        self._results = {}
        self._retries = []
        self._changes = []
        self._attempts = 0
        if self.spent and self.parked:
            settlement.release = Release(self.release_at, self.waiting.value)
            if self.doubtful:
                settlement.reopen = self.parked
            self.parked = []
        return settlement

    def mark_doubtful(self, positions: list[int]) -> Settlement:
        """The settlement that marks these deliveries before any of them is sent."""
        return Settlement(self.chunk.id, self.chunk.epoch, results={(DOUBT, "unknown"): positions})
