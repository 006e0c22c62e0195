"""A worker as the engine is one: leases, marks, sends, decides with `core.settlement.decide`, and settles with the
records of `core.records`."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from fanout.core.model import Repeat
from fanout.core.outcome import Accepted, Deferred, Outcome, Throttled, Unavailable
from fanout.core.policy import Policy
from fanout.core.records import AddressMoved, Chunk, EndpointGone, EndpointRow, Release, RetryRow, Settlement
from fanout.core.settlement import Again, Attempted, Final, Park, Relocate, Retry, Wait, decide
from fanout.core.states import DOUBT, Waiting

__all__ = ["Gateway", "Hand", "Worker", "open_positions"]

POLICY = Policy(attempts=3, backoff_base=8.0, backoff_throttled=8.0, backoff_cap=40.0, probe=20.0)
Delivery: TypeAlias = tuple[str, int]


@dataclass
class Gateway:
    """What arrived, how often something may have, and of what that is known to storage. `unsettled` is by lease."""

    accepted: set[Delivery] = field(default_factory=set)
    perhaps: Counter[Delivery] = field(default_factory=Counter)
    known: set[Delivery] = field(default_factory=set)
    unsettled: dict[tuple[int, int], set[Delivery]] = field(default_factory=dict)

    def asked(self, delivery: Delivery, lease: tuple[int, int], repeat: Repeat, outcome: Outcome) -> None:
        """One attempt. What may have arrived is tried again as the notification's sender prefers."""
        assert repeat == "prefer_delivery" or delivery not in self.known, "what may have arrived is not tried again"
        before = self.perhaps[delivery]
        self._answered(delivery, outcome)
        assert repeat != "at_most_once" or self.perhaps[delivery] <= 1, "at most once is at most once"
        if self.perhaps[delivery] > before:
            self.unsettled.setdefault(lease, set()).add(delivery)

    def remembered(self, lease: tuple[int, int]) -> None:
        """What was learned under the lease is stored."""
        self.known |= self.unsettled.pop(lease, set())

    def _answered(self, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, Accepted):
            self.accepted.add(delivery)
            self.perhaps[delivery] += 1
        elif isinstance(outcome, (Unavailable, Deferred)) and outcome.sent == "unknown":
            self.perhaps[delivery] += 1


@dataclass
class Hand:
    """A chunk in hand. `left` are the positions that are yet to be sent, `group` those of a suspected chunk that are
    marked."""

    chunk: Chunk
    repeat: Repeat
    expires_at: float
    until: float
    left: list[int]
    group: list[int] = field(default_factory=list)
    doubted: set[int] = field(default_factory=set)
    free: Counter[int] = field(default_factory=Counter)
    parked: list[int] = field(default_factory=list)
    release: Release | None = None
    buffer: Settlement = field(init=False)

    def __post_init__(self) -> None:
        self.buffer = self.empty()

    def empty(self) -> Settlement:
        return Settlement(self.chunk.id, self.chunk.epoch)

    def end(self, position: int, state: str, reason: str) -> None:
        self.buffer.results.setdefault((state, reason), []).append(position)
        self._leave(position)

    def park(self, position: int, until: float, waiting: str, reason: str) -> None:
        if self.release is None or until < self.release.due_at:
            self.release = Release(until, waiting, reason)
        self.parked.append(position)
        self._leave(position)

    def retry(self, row: RetryRow) -> None:
        self.buffer.retries.append(row)
        self._leave(row.position)

    def _leave(self, position: int) -> None:
        self.left.remove(position)
        if position in self.group:
            self.group.remove(position)

    def take(self) -> Settlement:
        """What was learned since the last call; with the last delivery, the lease is given back if any is parked."""
        taken, self.buffer = self.buffer, self.empty()
        if not self.left and self.parked:
            taken.release = self.release
            taken.reopen = [position for position in self.parked if position in self.doubted]
            self.parked = []
        return taken

    @property
    def dirty(self) -> bool:
        b = self.buffer
        return bool(b.results or b.retries or b.changes or b.attempts or (self.parked and not self.left))


class Worker:
    """`hands` are what it holds, by chunk, as far as it knows."""

    def __init__(self, name: str, gateway: Gateway) -> None:
        self.name = name
        self.gateway = gateway
        self.hands: dict[int, Hand] = {}

    def next(self, chunk: int | None = None) -> Hand | None:
        """A chunk of which something is to be sent."""
        able = [hand for hand in self.hands.values() if hand.left]
        return next((hand for hand in able if hand.chunk.id == chunk), able[0] if able else None)

    def mark(self, hand: Hand) -> Settlement | None:
        """What must be stored before the next send, or None. Doubt is mark enough: at a crash it ends the delivery."""
        if hand.chunk.part and not hand.group and hand.repeat != "at_most_once":
            hand.group = hand.left[: hand.chunk.part]
            marks = hand.empty()
            marks.marks = list(hand.group)
            return marks
        position = (hand.group or hand.left)[0]
        if hand.repeat == "at_most_once" and position not in hand.doubted:
            hand.doubted.add(position)
            marks = hand.empty()
            marks.results = {(DOUBT, "unknown"): [position]}
            return marks
        return None

    def send(self, hand: Hand, row: EndpointRow, outcome: Outcome, now: float, rng: random.Random) -> None:
        """The next delivery of this chunk, and what its outcome means."""
        position = (hand.group or hand.left)[0]
        delivery = (hand.chunk.notification, row.id)
        self.gateway.asked(delivery, (hand.chunk.id, hand.chunk.epoch), hand.repeat, outcome)
        attempt = hand.chunk.attempt
        tried = Attempted(attempt, hand.free[position], hand.expires_at, row.registered_at, hand.repeat)
        hand.buffer.attempts += 1
        match decide(outcome, tried, POLICY, now, rng):
            case Final(state, reason, gone):
                if gone:
                    hand.buffer.changes.append(EndpointGone(row.id, row.generation, now, reason))
                hand.end(position, state.value, reason)
            case Retry(due_at, again, reason, waiting):
                told = outcome.after if isinstance(outcome, (Throttled, Unavailable)) else None
                assert due_at >= now + (told or 0.0), "never before the time that the gateway named"
                hand.retry(RetryRow(position, due_at, again, waiting.value, reason, holds=waiting is Waiting.BACKOFF))
            case Relocate(address, retry):
                hand.buffer.changes.append(AddressMoved(row.id, row.generation, now, address))
                hand.retry(RetryRow(position, retry.due_at, retry.attempt, retry.waiting.value, retry.reason))
            case Again():
                hand.free[position] += 1
            case Wait(due_at, reason, waiting):
                hand.buffer.attempts -= 1
                hand.park(position, due_at, waiting.value, reason)
            case Park(_, after, reason, waiting):
                hand.park(position, now + (POLICY.probe if after is None else after), waiting.value, reason)

    def endpoint(self, hand: Hand) -> array[int]:
        return array("q", [hand.chunk.ids[(hand.group or hand.left)[0]]])

    def take(self) -> list[Settlement]:
        """All that is to be settled. What has nothing left is let go."""
        taken = [hand.take() for hand in self.hands.values() if hand.dirty]
        self.hands = {id: hand for id, hand in self.hands.items() if hand.left}
        return taken

    def crash(self) -> None:
        """It remembers nothing."""
        self.hands = {}


def open_positions(chunk: Chunk) -> list[int]:
    return [position for position, code in enumerate(chunk.states) if code == 0]
