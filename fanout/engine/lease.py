"""A leased chunk at run time: its deliveries, the result of each, and the end of the lease."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence

from fanout.core.alike import AlikeRows, ids_of
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

__all__ = ["HELD", "Hand", "Lease", "Prepared", "as_named", "group_of"]


_ACCEPTED = (DeliveryState.ACCEPTED.value, "")
_NOWHERE = ("", "removed", False)
HELD = "endpoint in back-off"
"""The reason of a delivery that waits only because its endpoint does."""


def as_named(rows: Sequence[EndpointRow], ids: array[int]) -> Sequence[EndpointRow | None]:
    """The rows in the order of these ids, None for one that is not there. Usually they come as they were named, all of
    them; else each is looked up."""
    if ids_of(rows) == ids:
        return rows
    by_id = {row[0]: row for row in rows}
    return [by_id.get(id) for id in ids]


def group_of(rows: Sequence[EndpointRow | None], now: float) -> str | None:
    """The one group of all these endpoints, where all of them are active and none is in back-off: the usual chunk."""
    if isinstance(rows, AlikeRows):
        return rows.group
    first, last = rows[0], rows[-1]
    if first is None or last is None or first[3] != last[3]:
        return None
    kinds = {(row[3], row[6], row[7] > now) if row is not None else _NOWHERE for row in rows}
    return first[3] if kinds == {(first[3], "active", False)} else None


class Prepared:
    """A notification made ready in this process: decoded, encoded once for the binding, its delivery ids' namespace
    hashed."""

    __slots__ = ("expires_at", "ids", "message", "notification", "once", "stopped")

    def __init__(self, notification: Notification, message: Message) -> None:
        self.notification = notification
        self.message = message
        self.ids = DeliveryIds(notification.id)
        self.expires_at = notification.expires_at
        self.once = notification.ttl == 0
        self.stopped = ""


class Hand:
    """The deliveries that one binding has in hand: `left` is the sum of its leases', so that a question about all looks
    at none."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0


class Lease:
    """One chunk in hand. `left` counts deliveries that are queued or under way; at 0 the lease can end.

    `until` is in monotonic seconds: past it nothing may be sent, because another worker may hold the chunk. It is the
    end of the lease (`granted`) or of this worker's heartbeat, whichever comes first. `begun` is the end that it was
    first granted.
    """

    __slots__ = (
        "_attempts",
        "_changes",
        "_hand",
        "_results",
        "_retries",
        "accepted",
        "begun",
        "careful",
        "chunk",
        "doubtful",
        "free",
        "fresh",
        "granted",
        "group",
        "kept_open",
        "later",
        "left",
        "lost",
        "outdated",
        "prepared",
        "probe",
        "read",
        "reason",
        "release_at",
        "renewed",
        "rows",
        "rows_at",
        "stalled",
        "until",
        "waiting",
    )

    def __init__(
        self, chunk: Chunk, prepared: Prepared, rows: Sequence[EndpointRow | None], until: float, hand: Hand
    ) -> None:
        self._hand = hand
        self.chunk = chunk
        self.prepared = prepared
        self.rows = rows
        self.begun = self.granted = self.until = until
        self.left = 0
        self.lost = False
        self.doubtful = prepared.notification.repeat == "at_most_once"
        self.free: dict[int, int] = {}
        self.later: list[int] = []
        """Positions of a suspected chunk that are yet to be marked and sent, a part at a time."""
        self.outdated: frozenset[int] = frozenset()
        """Positions for whose endpoints a later notification of the same collapse key has been accepted."""
        self.renewed: dict[int, EndpointRow | None] = {}
        """By position, endpoints that have changed since they were read: for a delivery that has not begun yet."""
        self.rows_at = until
        """When the endpoints were last read, in monotonic seconds."""
        self.careful = chunk.attempt > 1
        """Whether each delivery must be asked about before it goes: some are outdated, or it is a second attempt."""
        self.kept_open: list[int] = []
        self.stalled: list[int] = []
        self.release_at = 0.0
        self.reason = ""
        self.waiting = Waiting.READY
        self.accepted: list[int] = []
        self.group: str | None = None
        """The group of all its endpoints, where they have one."""
        self.read = 0
        """How many of `accepted` count as evidence already."""
        self.probe = -1
        """The position that goes as a closed gate's probe."""
        self.fresh = prepared.notification.repeat != "prefer_delivery"
        """Whether a delivery may ask for a fresh connection: no second attempt may be allowed, or one goes as a
        probe."""
        self._results: dict[tuple[str, str], list[int]] = {}
        self._retries: list[RetryRow] = []
        self._changes: list[EndpointGone | AddressMoved] = []
        self._attempts = 0

    def cap_deadline(self, alive: float) -> None:
        """This worker counts as alive until `alive`, in monotonic seconds."""
        self.until = min(self.granted, alive)

    def asks_fresh(self, position: int) -> bool:
        """Whether this delivery goes over a connection that is known to be good: it decides about others, or has one
        attempt."""
        return position == self.probe or self.prepared.notification.repeat != "prefer_delivery"

    def outdate(self, positions: Iterable[int]) -> None:
        """For the endpoints of these a later notification of the same collapse key has been accepted."""
        self.outdated |= frozenset(positions)
        self.careful = self.careful or bool(self.outdated)

    def renew(self, rows: Mapping[int, EndpointRow | None]) -> None:
        """These endpoints are no longer as they were read. Deliveries under way are settled by the rows with which they
        began."""
        self.renewed.update(rows)
        self.careful = self.careful or bool(rows)

    def take_over(self, position: int) -> EndpointRow | None:
        """The endpoint of a delivery that has not begun yet, as it is now."""
        rows = self.rows = self.rows if isinstance(self.rows, list) else [*self.rows]
        row: EndpointRow | None = self.renewed.pop(position)
        rows[position] = row
        return row

    def delivery(self, position: int, now: float) -> Delivery:
        """The delivery that the transport is handed for this attempt."""
        row = self.rows[position]
        assert row is not None
        prepared = self.prepared
        ttl = 0 if prepared.once else int(prepared.expires_at - now)
        return Delivery(prepared.ids, row[0], row[1], row[2], row[3], self.chunk.attempt, ttl, row[4])

    # -- deliveries in hand

    def claim(self, count: int) -> None:
        """So many more are queued or under way."""
        self.left += count
        self._hand.left += count

    def give_back(self, count: int) -> None:
        """So many fewer: they have ended, or were not begun after all."""
        self.left -= count
        self._hand.left -= count

    def stall(self, position: int) -> None:
        """The lease has run out: this one waits until it is extended, or found lost."""
        self.stalled.append(position)
        self.give_back(1)

    def unstall(self) -> list[int]:
        """Stalled deliveries go on, or back: to be claimed again."""
        stalled, self.stalled = self.stalled, []
        return stalled

    # -- how one delivery leaves: each takes it out of `left`, or keeps it there

    def accept(self, positions: Sequence[int]) -> None:
        """The usual end."""
        count = len(positions)
        self.accepted += positions
        self.left -= count
        self._hand.left -= count

    def finish(self, position: int, state: DeliveryState, reason: str, *, attempted: bool) -> None:
        """Any final state."""
        self._results.setdefault((state.value, reason), []).append(position)
        self._attempts += attempted
        self.give_back(1)

    def retry(
        self, position: int, due_at: float, attempt: int, waiting: Waiting, reason: str, *, holds: bool = False
    ) -> None:
        """Into a retry row of its own, after an attempt. `holds`: the endpoint is in back-off until then."""
        self._retries.append(RetryRow(position, due_at, attempt, waiting.value, reason, holds))
        self._attempts += 1
        self.give_back(1)

    def hold(self, position: int, due_at: float, waiting: Waiting = Waiting.BACKOFF, reason: str = HELD) -> None:
        """Into a retry row without an attempt: the endpoint waits because of another delivery."""
        self._retries.append(RetryRow(position, due_at, self.chunk.attempt, waiting.value, reason))
        self.give_back(1)

    def keep_open(self, position: int, until: float, waiting: Waiting, reason: str = "") -> None:
        """Stays open; the lease is given back when nothing else is left, and is due when the first gate opens."""
        if not self.kept_open or until < self.release_at:
            self.release_at = until
            self.waiting = waiting
            self.reason = reason
        self.kept_open.append(position)
        self.give_back(1)

    def hurry(self, now: float) -> None:
        """A retry that is not stored yet, and waits for a cause that is reported as mended, is due now; back-off is not
        shortened."""
        self._retries = [
            row if row.waiting == Waiting.BACKOFF.value else row._replace(due_at=min(row.due_at, now))
            for row in self._retries
        ]

    def set_back(self, seconds: float) -> None:
        """The clock was set back by so much: a retry that waits here to be stored is due as long from now as it was to
        be."""
        self.release_at -= seconds
        self._retries = [row._replace(due_at=row.due_at - seconds) for row in self._retries]

    def stop(self, position: int, now: float) -> None:
        """Its notification was cancelled, superseded or paused."""
        stopped = self.prepared.stopped
        if stopped == Waiting.PAUSED.value:
            self.keep_open(position, now, Waiting.PAUSED, "notification paused")
        else:
            self.finish(position, DeliveryState(stopped), "", attempted=False)

    def unreachable(self, position: int) -> None:
        """Its endpoint was not active when its chunk was read."""
        row = self.rows[position]
        if row is not None and row.state == "gone":
            self.finish(position, DeliveryState.GONE, "endpoint gone before", attempted=False)
        else:
            why = row.state if row is not None else "removed"
            self.finish(position, DeliveryState.CANCELLED, f"endpoint {why}", attempted=False)

    def lose(self) -> None:
        """Another worker holds the chunk: nothing more may be sent, and storage will refuse its results."""
        self.lost = True
        self._hand.left -= self.left
        self._hand = Hand()  # no answer is waited for any longer
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
        return bool(self.accepted or self._results or self._retries or (self.kept_open and self.spent))

    @property
    def spent(self) -> bool:
        """Whether the lease has nothing more to do: the next settlement ends it."""
        return self.left == 0 and not self.stalled and not self.later

    @property
    def part_over(self) -> bool:
        """Whether a part of a suspected chunk has been sent and settled, and another waits to be marked."""
        return bool(self.later) and self.left == 0 and not self.stalled and not self.dirty

    def give_up_later(self, now: float, waiting: Waiting) -> None:
        """The parts that were not begun go back with the lease."""
        later, self.later = self.later, []
        self.claim(len(later))
        for position in later:
            self.keep_open(position, now, waiting)

    def take(self) -> Settlement:
        """The results since the last call, as one settlement."""
        results = self._results
        if self.accepted:
            self._attempts += len(self.accepted)
            results[_ACCEPTED] = [*results[_ACCEPTED], *self.accepted] if _ACCEPTED in results else self.accepted
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
        if self.spent and self.kept_open:
            settlement.release = Release(self.release_at, self.waiting.value, self.reason)
            if self.doubtful:
                settlement.reopen = self.kept_open
            self.kept_open = []
        return settlement

    def mark_doubtful(self, positions: list[int]) -> Settlement:
        """The settlement that marks these deliveries before any of them is sent."""
        return Settlement(self.chunk.id, self.chunk.epoch, results={(DOUBT, "unknown"): positions})

    def next_part(self) -> Settlement:
        """The settlement that marks the next part of a suspected chunk; its `marks` are then to be sent."""
        taken, self.later = self.later[: self.chunk.part], self.later[self.chunk.part :]
        return Settlement(self.chunk.id, self.chunk.epoch, marks=taken)
