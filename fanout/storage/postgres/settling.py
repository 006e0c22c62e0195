"""Settle: what leases learned, fenced, in a fixed number of statements however many leases there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.records import Settled, Settlement
from fanout.core.statemap import MARKED, OPEN, Codes
from fanout.storage.packing import unpack
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.ledger import Ledger
from fanout.storage.settlements import Held, Settling
from fanout.storage.sql.decisions import Decisions
from fanout.storage.sql.endpoints import change
from fanout.storage.sql.ledger import codes_of
from fanout.storage.sql.stopping import add_backlog

__all__ = ["settle"]

_COPY = 100
"""From so many retry rows on they are copied: COPY needs two turns more, and a tenth of the time for each row."""
_RETRY = ("notification", "endpoint", "binding", "lane", "due_at", "attempt", "waiting", "reason", "holds", "since")


async def settle(db: Db, settlements: Sequence[Settlement], now: float) -> list[Settled]:
    """Store them in order, each if its lease is still held. Raises `UsageError`, and then nothing is stored."""
    chunks = list({settlement.chunk for settlement in settlements})
    held, codes = await _read(db, chunks)
    if db.again:
        known = await _stored(db, settlements, codes)
        if known is not None:
            return known
    ledger = Ledger(db, codes)
    decisions = Decisions(db)
    settling = Settling(held, ledger, decisions)
    for settlement in settlements:
        settling.take(settlement)
    if settling.changes:
        await change(db, settling.changes, now)
    await _add_retries(db, settling, now)
    await ledger.write(now, releases=settling.releases)
    await decisions.write(now)
    return settling.finished(await ledger.finish(now))


async def _read(db: Db, chunks: Sequence[int]) -> tuple[dict[int, Held], dict[int, Codes]]:
    """The chunks that are held, locked with their notifications, and the latter's lists of (state, reason)."""
    rows = await db.rows(_READ, chunks)
    held = {row[0]: Held(*row[1:]) for row in map(tuple, rows)}
    # In a statement of its own, which sees what was committed while the first one waited for its locks.
    return held, await codes_of(db, {each.notification for each in held.values()})


_READ = """
WITH n AS MATERIALIZED (
  SELECT id, stopped FROM notification WHERE id = ANY(ARRAY(SELECT notification FROM chunk WHERE id = ANY($1::bigint[])))
  ORDER BY id FOR NO KEY UPDATE
), s AS MATERIALIZED (
  SELECT array_agg(id) FILTER (WHERE stopped <> '') AS ids, array_agg(stopped) FILTER (WHERE stopped <> '') AS words FROM n
)
SELECT c.id, c.epoch, c.notification, coalesce(s.words[array_position(s.ids, c.notification)], ''), c.binding, c.lane, c.owner,
  c.leased_at, c.leased_after, c.states
FROM s CROSS JOIN LATERAL (
  SELECT * FROM chunk WHERE id = ANY($1::bigint[]) AND owner IS NOT NULL ORDER BY id OFFSET 0 FOR NO KEY UPDATE
) c
"""


async def _stored(db: Db, settlements: Sequence[Settlement], codes: dict[int, Codes]) -> list[Settled] | None:
    """The answers, if an earlier run was committed; None if it was not, or where to store it once more does no harm.

    It was, if anything of it is found done: a commit is of all or of nothing.
    """
    rows = await db.rows(
        "SELECT c.id, c.epoch, c.notification, c.owner IS NULL AS free, c.states, n.uuid, n.finished_at IS NOT NULL AS finished "
        "FROM chunk c CROSS JOIN LATERAL (SELECT uuid, finished_at FROM notification WHERE id = c.notification OFFSET 0) n "
        "WHERE c.id = ANY($1::bigint[])",
        [settlement.chunk for settlement in settlements],
    )
    found = {row["id"]: row for row in rows}
    mine = [
        (settlement, found[settlement.chunk])
        for settlement in settlements
        if settlement.chunk in found and found[settlement.chunk]["epoch"] == settlement.epoch
    ]
    if not any(_done(settlement, row) for settlement, row in mine):
        return None
    known = {settlement.chunk for settlement, _ in mine}
    answers = [Settled(settlement.chunk not in known) for settlement in settlements]
    last: dict[int, int] = {}
    for i, settlement in enumerate(settlements):
        row = found.get(settlement.chunk)
        if row is not None and row["finished"] and settlement.chunk in known and settlement.results:
            last[row["notification"]] = i
    for i in last.values():
        answers[i] = Settled(False, found[settlements[i].chunk]["uuid"])
    return answers


def _done(settlement: Settlement, row: Any) -> bool:
    """Whether what this says has happened to the chunk."""
    states: bytes = row["states"]
    if settlement.release is not None:
        return bool(row["free"])
    left = [position for positions in settlement.results.values() for position in positions]
    left += [retry.position for retry in settlement.retries]
    return bool(left) and all(states[position] not in (OPEN, MARKED) for position in left)


async def _add_retries(db: Db, settling: Settling, now: float) -> None:
    if not settling.retries:
        return
    await add_backlog(db, settling.backlog())
    found = await db.rows(
        "SELECT chunk, ids FROM audience WHERE chunk = ANY($1::bigint[])",
        list({number for _, number, _ in settling.retries}),
    )
    audiences = {row[0]: unpack(row[1]) for row in found}
    rows = [
        (
            chunk.notification,
            audiences[number][row.position],
            chunk.binding,
            chunk.lane,
            row.due_at,
            row.attempt,
            row.waiting,
            row.reason,
            row.holds,
            now,
        )
        for chunk, number, rows in settling.retries
        for row in rows
    ]
    if len(rows) >= _COPY:
        await db.copy("retry", _RETRY, rows)
        return
    await db.many(
        f"INSERT INTO retry ({', '.join(_RETRY)}) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::int[], $4::smallint[], "
        "$5::float8[], $6::int[], $7::text[], $8::text[], $9::boolean[], $10::float8[])",
        rows,
    )
