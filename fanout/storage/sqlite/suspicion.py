"""What becomes of a due chunk before it is leased again: after a stop, after doubt, and after the loss of its worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fanout.core.poison import POISON, after_crash
from fanout.core.statemap import DOUBTFUL, MARKED, OPEN, RETRIED, Applied, Codes, close
from fanout.storage.sqlite.db import Db, dumps, unpack
from fanout.storage.sqlite.decisions import Decisions, ranges
from fanout.storage.sqlite.ledger import Ledger, NewChunk, codes_of

__all__ = ["Inspection"]

_MARK = bytes((MARKED,))
_NO_MARK = bytes((OPEN,))


@dataclass(slots=True)
class _Due:
    """A due chunk, as it was left. Without a `worker` it was given back, with one its lease has run out."""

    id: int
    notification: int
    binding: int
    lane: int
    attempt: int
    states: bytes
    stopped: str
    worker: str | None
    leased_at: float | None
    leased_after: int | None
    crashes: int
    part: int


class Inspection:
    """Judges chunks one by one, and writes all of it in a fixed number of statements."""

    def __init__(self, db: Db, chunks: Sequence[int], now: float) -> None:
        rows = db.rows(
            "c.id, c.notification, c.binding, c.lane, c.attempt, hex(c.states), n.stopped, c.owner, c.leased_at, c.leased_after, "
            "c.crashes, c.part",
            "json_each(?) j CROSS JOIN chunk c ON c.id = j.value CROSS JOIN notification n ON n.id = c.notification",
            dumps(list(chunks)),
        )
        self._db = db
        self._now = now
        self._due = {}
        for id, notification, binding, lane, attempt, states, *rest in rows:
            self._due[id] = _Due(id, notification, binding, lane, attempt, bytes.fromhex(states), *rest)
        self._ledger = Ledger(db, codes_of(db, {due.notification for due in self._due.values()}))
        self._decisions = Decisions(db)
        self._parts: list[tuple[int, int, int]] = []
        self._moved: list[tuple[_Due, Sequence[int], int, int]] = []
        self.moved: list[NewChunk] = []
        """What is to be stored as chunks of their own, once `write` was called."""

    def judge(self, id: int) -> int:
        """End what a lost worker had marked as doubtful, and what is stopped; count a crash. How many remain open in it."""
        due = self._due[id]
        applied = close(due.states, self._ledger.codes[due.notification], due.stopped, "")
        if due.worker is not None and not due.stopped:
            applied = self._after_crash(due, applied)
        self._ledger.conclude(due.notification, id, applied)
        return applied.open

    def _after_crash(self, due: _Due, applied: Applied) -> Applied:
        suspected: tuple[int, ...] = ()
        dead: tuple[int, ...] = ()
        doubtful = [position for position, state in enumerate(due.states) if state == DOUBTFUL]
        if applied.open:
            after = after_crash(applied.states, due.crashes, due.part)
            suspected, dead = after.moved + after.dead, after.dead
            self._parts.append((due.id, after.crashes, after.part))
            if after.moved:
                self._moved.append((due, after.moved, after.moved_crashes, after.moved_part))
            applied = _without(applied, after.moved, dead, self._ledger.codes[due.notification])
        lease = (due.worker, due.leased_at, due.leased_after, ranges(due.states))
        self._decisions.add(due.notification, "lost", due.id, suspected, doubtful, *lease)
        return applied

    def write(self) -> None:
        """Store it all, but for what is `moved`."""
        self._ledger.write(self._now)
        self._db.many(
            "UPDATE chunk SET crashes = j.value->>1, part = j.value->>2 FROM jsonb_each(?) j WHERE chunk.id = j.value->>0",
            self._parts,
        )
        if self._moved:
            audiences = self._db.pairs(
                "chunk, hex(ids)",
                "audience WHERE chunk IN (SELECT value FROM json_each(?))",
                dumps([due.id for due, *_ in self._moved]),
            )
            for due, positions, crashes, part in self._moved:
                ids = unpack(audiences[due.id])
                mine = [ids[position] for position in positions]
                self.moved.append(
                    NewChunk(
                        due.notification,
                        due.binding,
                        due.lane,
                        due.attempt,
                        self._now,
                        mine,
                        crashes=crashes,
                        part=part,
                    )
                )
        self._decisions.write(self._now)
        self._ledger.finish(self._now)


def _without(applied: Applied, moved: Sequence[int], dead: Sequence[int], codes: Codes) -> Applied:
    """The map without what has left the chunk, and without marks: these are made anew before the next send."""
    states = bytearray(applied.states.replace(_MARK, _NO_MARK))
    for position in moved:
        states[position] = RETRIED
    ended = dict(applied.ended)
    if dead:
        code = codes.code(*POISON)
        for position in dead:
            states[position] = code
        ended[code] = ended.get(code, 0) + len(dead)
    return Applied(bytes(states), ended)
