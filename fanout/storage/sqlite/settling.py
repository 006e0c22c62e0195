"""Settle: what leases learned, fenced, in a fixed number of statements however many leases there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fanout.core.records import Settled, Settlement
from fanout.core.statemap import Codes, apply
from fanout.core.states import Waiting
from fanout.storage.sqlite.db import Db, dumps, unpack
from fanout.storage.sqlite.decisions import Decisions, ranges
from fanout.storage.sqlite.endpoints import change
from fanout.storage.sqlite.ledger import Ledger
from fanout.storage.sqlite.stopping import add_backlog

__all__ = ["settle"]


@dataclass(slots=True)
class _Held:
    """A chunk under a lease, as it stands after the settlements so far."""

    epoch: int
    notification: int
    stopped: str
    binding: int
    lane: int
    worker: str
    leased_at: float | None
    leased_after: int | None
    states: bytes


def settle(db: Db, settlements: Sequence[Settlement], now: float) -> list[Settled]:
    """Store them in order, each if its lease is still held. Raises `UsageError`, and then nothing is stored."""
    held, codes = _read(db, settlements)
    ledger = Ledger(db, codes)
    decisions = Decisions(db)
    answers: list[Settled] = []
    last: dict[int, int] = {}
    retries: list[tuple[_Held, Settlement, Sequence[Any]]] = []
    releases: list[list[Any]] = []
    for i, settlement in enumerate(settlements):
        chunk = held.get(settlement.chunk)
        if chunk is None or chunk.epoch != settlement.epoch:
            answers.append(Settled(True))
            continue
        applied = apply(chunk.states, settlement, codes[chunk.notification], chunk.stopped)
        chunk.states = applied.states
        ledger.conclude(chunk.notification, settlement.chunk, applied)
        ledger.of(chunk.notification).attempts += settlement.attempts
        rows = applied.retries
        if rows:
            if any(row.waiting == Waiting.PAUSED for row in rows):
                rows = [row._replace(waiting=_word(row.waiting)) for row in rows]
            retries.append((chunk, settlement, rows))
        parked: list[Any] | None = None
        release = settlement.release
        if not applied.open:
            del held[settlement.chunk]
        elif release is not None:
            waiting = _word(release.waiting)
            releases.append([settlement.chunk, release.due_at, waiting])
            lease = (chunk.worker, chunk.leased_at, chunk.leased_after, ranges(chunk.states))
            parked = [release.due_at, waiting, release.reason, *lease]
            del held[settlement.chunk]
        decisions.settled(chunk.notification, settlement, rows, parked)
        if applied.ended:
            last[chunk.notification] = i
        answers.append(Settled(False))
        if settlement.changes:
            change(db, settlement.changes, now)
    _add_retries(db, retries)
    ledger.write(now)
    decisions.write(now)
    db.many(
        "UPDATE chunk SET owner = NULL, ready_at = j.value->>1, waiting = j.value->>2 "
        "FROM jsonb_each(?) j WHERE chunk.id = j.value->>0",
        releases,
    )
    for notification, uuid in ledger.finish(now).items():
        answers[last[notification]] = Settled(False, uuid)
    return answers


def _word(waiting: str) -> str:
    """Whether something is paused is known of the notification and the binding: a word of it could outlive the pause."""
    return Waiting.READY.value if waiting == Waiting.PAUSED else waiting


def _read(db: Db, settlements: Sequence[Settlement]) -> tuple[dict[int, _Held], dict[int, Codes]]:
    """The chunks that are held, and the lists of (state, reason) of their notifications."""
    rows = db.rows(
        "c.id, c.epoch, c.notification, n.stopped, c.binding, c.lane, c.owner, c.leased_at, c.leased_after, "
        "hex(c.states), json((SELECT json_group_array("
        "json_array(t.state, t.reason)) FROM (SELECT * FROM tally WHERE notification = n.id ORDER BY code) t))",
        "json_each(?) j CROSS JOIN chunk c ON c.id = j.value CROSS JOIN notification n ON n.id = c.notification "
        "WHERE c.owner IS NOT NULL",
        dumps(list({settlement.chunk for settlement in settlements})),
    )
    held: dict[int, _Held] = {}
    codes: dict[int, Codes] = {}
    for id, epoch, notification, stopped, binding, lane, worker, leased_at, leased_after, states, pairs in rows:
        held[id] = _Held(
            epoch, notification, stopped, binding, lane, worker, leased_at, leased_after, bytes.fromhex(states)
        )
        if notification not in codes:
            codes[notification] = Codes((state, reason) for state, reason in pairs)
    return held, codes


def _add_retries(db: Db, retries: Sequence[tuple[_Held, Settlement, Sequence[Any]]]) -> None:
    if not retries:
        return
    add_backlog(
        db, Counter((chunk.notification, chunk.binding, row.waiting) for chunk, _, rows in retries for row in rows)
    )
    chunks = dumps([settlement.chunk for _, settlement, _ in retries])
    audiences = {
        chunk: unpack(ids)
        for chunk, ids in db.rows(
            "chunk, hex(ids)", "audience WHERE chunk IN (SELECT value FROM jsonb_each(?))", chunks
        )
    }
    db.many(
        "INSERT INTO retry (notification, endpoint, binding, lane, due_at, attempt, waiting, reason, holds) SELECT "
        "value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8 FROM jsonb_each(?)",
        (
            [
                chunk.notification,
                audiences[settlement.chunk][row.position],
                chunk.binding,
                chunk.lane,
                row.due_at,
                row.attempt,
                row.waiting,
                row.reason,
                row.holds,
            ]
            for chunk, settlement, rows in retries
            for row in rows
        ),
    )
