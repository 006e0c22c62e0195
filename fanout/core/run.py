"""A run: deliveries of one message that are checked together, started by one call and answered by index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fanout.core.alike import AlikeRows, ids_of
from fanout.core.delivery import Delivery, Message
from fanout.core.ids import DeliveryIds
from fanout.core.outcome import Outcome
from fanout.core.records import EndpointRow

__all__ = ["MOST", "Part", "Run"]

MOST = 32
"""Deliveries of a run, at most."""
_NONE = -1
"""The index of no delivery: an answer to it is dropped."""


class Run:
    """Deliveries of one `message` to one group, at one attempt, which `Transport.start` begins together. `ids` makes
    their ids.

    `taken` is handed the answers: the run, the indices that were accepted, and the others with their outcomes (None: by
    `send`).

    `rows` are their endpoints by index; `attempt`, `ttl` (seconds) and `fresh` mean the same as in a `Delivery`. A
    transport answers each index once, by `accept` or `answer`, at any time: answers before `release` (during `start`)
    are kept until then. A second answer to an index, one to an index that was given up, and one to an index that the
    run does not have are dropped and counted in `late`.
    """

    __slots__ = (
        "_accepted",
        "_ids",
        "_open",
        "_others",
        "_size",
        "_taken",
        "attempt",
        "fresh",
        "held",
        "late",
        "message",
        "rows",
        "ttl",
    )

    def __init__(
        self,
        message: Message,
        ids: DeliveryIds | Callable[[int], str],
        rows: Sequence[EndpointRow],
        taken: Callable[[Run, list[int], list[tuple[int, Outcome | None]]], None],
        *,
        attempt: int = 1,
        ttl: int = 3600,
        fresh: bool = False,
    ) -> None:
        self.message = message
        self.rows = rows
        self.attempt = attempt
        self.ttl = ttl
        self.fresh = fresh
        self.held = True
        """Whether answers are kept until `release`."""
        self.late = 0
        """Answers that were dropped."""
        self._ids = ids
        self._taken = taken
        self._size = len(rows)
        self._open = set(range(self._size))
        self._accepted: list[int] = []
        self._others: list[tuple[int, Outcome | None]] = []

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"<Run of {self._size}, {len(self._open)} without an answer>"

    # -- deliveries to be sent

    @property
    def group(self) -> str:
        """The group of all its endpoints."""
        rows = self.rows
        return rows.group if isinstance(rows, AlikeRows) else rows[0][3]

    @property
    def addresses(self) -> list[str]:
        """The endpoints' addresses, by index."""
        rows = self.rows
        return [*rows.addresses] if isinstance(rows, AlikeRows) else [row[1] for row in rows]

    @property
    def kinds(self) -> Sequence[str]:
        """The endpoints' kinds, by index."""
        rows = self.rows
        return [rows.kind] * len(rows) if isinstance(rows, AlikeRows) else [row[2] for row in rows]

    def ids(self) -> list[bytes]:
        """The delivery ids in ASCII, by index."""
        made, endpoints = self._ids, ids_of(self.rows)
        if isinstance(made, DeliveryIds) and len(endpoints) > 1:
            return made.many(endpoints)
        return [made(endpoint).encode() for endpoint in endpoints]

    def delivery(self, index: int) -> Delivery:
        """One of them, as `send` takes it.

        Args:
            index: The number of the delivery in the run, from 0.

        Returns:
            The delivery.
        """
        row = self.rows[index]
        return Delivery(self._ids, row[0], row[1], row[2], row[3], self.attempt, self.ttl, row[4], self.fresh)

    def part(self, indices: Sequence[int]) -> Part:
        """A run of some of them, whose answers are answers to this one: for a transport that hands the work to another.

        Args:
            indices: The numbers of its deliveries in this run, from 0.

        Returns:
            The run.
        """
        return Part(self, indices)

    # -- answers

    def accept(self, indices: Sequence[int]) -> None:
        """The gateway took these.

        Args:
            indices: The numbers of the deliveries in the run, from 0.
        """
        if type(indices) is not list:
            indices = [*indices]
        left = self._open.difference(indices)
        taken = self._open.difference(left)
        if len(taken) != len(indices):
            self.drop(len(indices) - len(taken))
        self._open = left
        self._accepted += taken
        if not self.held:
            self._tell()

    def answer(self, index: int, outcome: Outcome | None) -> None:
        """The outcome of one.

        Args:
            index: The number of the delivery in the run, from 0.
            outcome: The outcome; None where the delivery must wait for something after all, and goes by `send`.
        """
        if not isinstance(index, int) or index not in self._open:
            self.drop(1)
            return
        self._open.remove(index)
        self._others.append((index, outcome))
        if not self.held:
            self._tell()

    def over(self, index: int) -> bool:
        """Whether its answer is waited for no more: it came, or the delivery was given up.

        Args:
            index: The number of the delivery in the run, from 0.

        Returns:
            Whether it is over.
        """
        return index not in self._open

    @property
    def ended(self) -> bool:
        """Whether no answer is waited for any more."""
        return not self._open

    # -- for the engine

    def drop(self, count: int) -> None:
        """Count answers that came too late, or a second time.

        Args:
            count: The number of answers.
        """
        self.late += count

    def pending(self) -> list[int]:
        """The indices without an answer."""
        return sorted(self._open)

    def release(self) -> None:
        """`start` has returned: the answers so far are handed over, and from now on each answer when it comes."""
        self.held = False
        if self._accepted or self._others:
            self._tell()

    def give_up(self, indices: Iterable[int]) -> list[int]:
        """Wait no longer for the answers to these.

        Args:
            indices: The numbers of the deliveries in the run, from 0.

        Returns:
            Those of them that had no answer yet.
        """
        named = [*indices]  # before the next line looks at the open ones: a generator may answer while it is read
        left = self._open.difference(named)
        given = sorted(self._open.difference(left))  # numbers of its own: 1.0 is equal to 1, and no index
        self._open = left
        return given

    def _tell(self) -> None:
        # Swapped out first: their receiver may cause more answers.
        accepted, self._accepted = self._accepted, []
        others, self._others = self._others, []
        self._taken(self, accepted, others)


class Part(Run):
    """Some deliveries of another run, whose answers are answers to that."""

    __slots__ = ("_indices", "_whole")

    def __init__(self, whole: Run, indices: Sequence[int]) -> None:
        rows = [whole.rows[index] for index in indices]
        super().__init__(
            whole.message, whole._ids, rows, whole._taken, attempt=whole.attempt, ttl=whole.ttl, fresh=whole.fresh
        )
        self._whole = whole
        self._indices = dict(enumerate(indices))

    def accept(self, indices: Sequence[int]) -> None:
        self._whole.accept([self._indices.get(index, _NONE) for index in indices])

    def answer(self, index: int, outcome: Outcome | None) -> None:
        self._whole.answer(self._indices.get(index, _NONE), outcome)

    def over(self, index: int) -> bool:
        return self._whole.over(self._indices.get(index, _NONE))

    def of_whole(self, indices: Iterable[int]) -> list[int]:
        """The numbers that deliveries of this part have in the whole run; those of no delivery are left out.

        Args:
            indices: Their numbers in this part, from 0.

        Returns:
            Their numbers in the whole run.
        """
        return [self._indices[index] for index in indices if index in self._indices]
