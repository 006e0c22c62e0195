"""Settle: what leases learned, fenced, in a fixed number of statements however many leases there are."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.records import Settled, Settlement
from fanout.core.statemap import Codes
from fanout.storage.settlements import Held, Settling
from fanout.storage.sql.decisions import Decisions
from fanout.storage.sql.endpoints import change
from fanout.storage.sql.stopping import add_backlog
from fanout.storage.sqlite.db import Db, dumps, unpack
from fanout.storage.sqlite.ledger import Ledger
from fanout.storage.sqlite.session import Session, finished, shared

__all__ = ["settle"]


def settle(db: Db, settlements: Sequence[Settlement], now: float) -> list[Settled]:
    """Store them in order, each if its lease is still held. Raises `UsageError`, and then nothing is stored."""
    held, codes = _read(db, settlements)
    ledger = Ledger(db, codes)
    session = Session(db)
    decisions = Decisions(session)
    settling = Settling(held, ledger, decisions)
    for settlement in settlements:
        settling.take(settlement)
    if settling.changes:
        finished(change(session, settling.changes, now))
    _add_retries(db, settling, now)
    finished(ledger.write(now))
    finished(decisions.write(now))
    db.many(
        "UPDATE chunk SET owner = NULL, ready_at = j.value->>1, waiting = j.value->>2, since = ?2 "
        "FROM jsonb_each(?1) j WHERE chunk.id = j.value->>0",
        settling.releases,
        now,
    )
    return settling.finished(finished(ledger.finish(now)))


def _read(db: Db, settlements: Sequence[Settlement]) -> tuple[dict[int, Held], dict[int, Codes]]:
    """The chunks that are held, and the lists of (state, reason) of their notifications."""
    rows = db.rows(
        "c.id, c.epoch, c.notification, n.stopped, c.binding, c.lane, c.owner, c.leased_at, c.leased_after, "
        "hex(c.states), json((SELECT json_group_array("
        "json_array(t.state, t.reason)) FROM (SELECT * FROM tally WHERE notification = n.id ORDER BY code) t))",
        "json_each(?) j CROSS JOIN chunk c ON c.id = j.value CROSS JOIN notification n ON n.id = c.notification "
        "WHERE c.owner IS NOT NULL",
        dumps(list({settlement.chunk for settlement in settlements})),
    )
    held: dict[int, Held] = {}
    codes: dict[int, Codes] = {}
    for id, epoch, notification, stopped, binding, lane, worker, leased_at, leased_after, states, pairs in rows:
        held[id] = Held(
            epoch, notification, stopped, binding, lane, worker, leased_at, leased_after, bytes.fromhex(states)
        )
        if notification not in codes:
            codes[notification] = Codes((state, reason) for state, reason in pairs)
    return held, codes


def _add_retries(db: Db, settling: Settling, now: float) -> None:
    if not settling.retries:
        return
    shared(db, add_backlog, settling.backlog())
    chunks = dumps([number for _, number, _ in settling.retries])
    audiences = {
        chunk: unpack(ids)
        for chunk, ids in db.rows(
            "chunk, hex(ids)", "audience WHERE chunk IN (SELECT value FROM jsonb_each(?))", chunks
        )
    }
    db.many(
        "INSERT INTO retry (notification, endpoint, binding, lane, due_at, attempt, waiting, reason, holds, since) SELECT "
        "value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8, ?2 FROM jsonb_each(?1)",
        (
            [
                chunk.notification,
                audiences[number][row.position],
                chunk.binding,
                chunk.lane,
                row.due_at,
                row.attempt,
                row.waiting,
                row.reason,
                row.holds,
            ]
            for chunk, number, rows in settling.retries
            for row in rows
        ),
        now,
    )
