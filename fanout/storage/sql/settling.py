"""Settle: the results of leases, fenced, in a fixed number of statements however many leases there are.

Chunks that are their whole notification end with it, by statements of the driver (`Hot.end`); the rest goes the long
way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fanout.core.records import Settled, Settlement
from fanout.core.statemap import MARKED, OPEN, Codes
from fanout.core.states import FINAL_STATES
from fanout.errors import UsageError
from fanout.storage.book import end_texts
from fanout.storage.settlements import Held, Settling
from fanout.storage.sql.db import Db
from fanout.storage.sql.decisions import Decisions
from fanout.storage.sql.endpoints import change
from fanout.storage.sql.ledger import audiences_of
from fanout.storage.sql.stopping import add_backlog
from fanout.storage.standing import finals

__all__ = ["FEW", "settle", "whole"]

FEW = 64
"""Deliveries of a chunk that is probably all of its notification."""


async def settle(db: Db, settlements: Sequence[Settlement], now: float) -> list[Settled]:
    """Store each if its lease is still held, those of one notification in order. Raises `UsageError`, and then nothing
    is stored."""
    which = [] if db.again or db.repeats else whole(settlements)
    if not which:
        return await _settle(db, settlements, now)
    answers: dict[int, Settled] = {}
    await _others(db, settlements, sorted(set(range(len(settlements))).difference(which)), now, answers)
    alone = {i: (*key, len(ends)) for i in which for key, ends in settlements[i].results.items()}
    asked = ((i, settlements[i], end) for i, end in alone.items())
    rows = [(i, each.chunk, each.epoch, end[2], each.attempts, *end[:2], *end_texts(*end)) for i, each, end in asked]
    over = await db.hot.end(db, rows, now)
    ended = ((i, 0, uuid, alone[i][2], "", [alone[i]], app, tries, 0, *at) for i, uuid, app, tries, *at in over)
    answers.update(finals(ended, now))
    # Their locks are held by now, so this waits for no other.
    await _others(db, settlements, [i for i in which if i not in answers], now, answers)
    return [answers[i] for i in range(len(settlements))]


def whole(settlements: Sequence[Settlement]) -> list[int]:
    """The settlements that may end a notification by themselves: all of a small chunk has ended, alike, and nothing
    else was learned. Pure."""
    times = Counter(settlement.chunk for settlement in settlements)
    return [i for i, settlement in enumerate(settlements) if times[settlement.chunk] == 1 and _alike(settlement)]


def _alike(settlement: Settlement) -> bool:
    if len(settlement.results) != 1 or settlement.release is not None:
        return False
    if settlement.retries or settlement.reopen or settlement.marks or settlement.changes:
        return False
    (((state, _), positions),) = settlement.results.items()
    return state in FINAL_STATES and 0 < len(positions) <= FEW and sorted(positions) == [*range(len(positions))]


async def _others(
    db: Db, settlements: Sequence[Settlement], which: Sequence[int], now: float, answers: dict[int, Settled]
) -> None:
    if which:
        found = await _settle(db, [settlements[i] for i in which], now)
        answers.update(zip(which, found, strict=True))


async def _settle(db: Db, settlements: Sequence[Settlement], now: float) -> list[Settled]:
    chunks, codes = await _read(db, settlements)
    if db.again:
        notifications = await _stored(db, settlements)
        if notifications is not None:
            return notifications
    ledger = db.hot.ledger(db, codes)
    decisions = Decisions(db)
    settling = Settling(chunks, ledger, decisions)
    for settlement in settlements:
        settling.take(settlement)
    if settling.changes:
        await change(db, settling.changes, now)
    if settling.retries:
        await _add_retries(db, settling, now)
    await ledger.write(now)
    await decisions.write(now)
    return settling.finished(await ledger.finish(now))


async def _read(db: Db, settlements: Sequence[Settlement]) -> tuple[dict[int, Held], dict[int, Codes]]:
    """The chunks that are held, and the lists of (state, reason) of their notifications."""
    return await db.hot.held(db, list({settlement.chunk for settlement in settlements}))


async def _stored(db: Db, settlements: Sequence[Settlement]) -> list[Settled] | None:
    """The answers, if an earlier run was committed; None if it was not, or where to store it once more does no harm.

    It was committed if any part of it is found done: a commit is of all or of nothing.
    """
    of = "FROM notification WHERE id = c.notification"
    rows = await db.rows(
        f"SELECT c.id, c.epoch, c.owner IS NULL, {db.binary('c.states')}, c.notification, (SELECT uuid {of}), "
        f"(SELECT finished_at IS NOT NULL {of}) FROM chunk c WHERE c.id {db.among(1, 'bigint')}",
        [settlement.chunk for settlement in settlements],
    )
    found = {id: rest for id, *rest in rows}
    mine = [each for each in settlements if each.chunk in found and found[each.chunk][0] == each.epoch]
    if not any(_done(each, found[each.chunk][1], db.bytes_of(found[each.chunk][2])) for each in mine):
        return None
    known = {each.chunk for each in mine}
    answers = [Settled(settlement.chunk not in known) for settlement in settlements]
    last: dict[int, int] = {}
    for i, settlement in enumerate(settlements):
        if settlement.chunk in known and settlement.results:
            *_, notification, _, finished = found[settlement.chunk]
            if finished:
                last[notification] = i
    for i in last.values():
        answers[i] = Settled(False, found[settlements[i].chunk][-2])
    return answers


def _done(settlement: Settlement, free: Any, states: bytes) -> bool:
    """Whether this settlement has been stored for the chunk."""
    if settlement.release is not None:
        return bool(free)
    left = [position for positions in settlement.results.values() for position in positions]
    left += [retry.position for retry in settlement.retries]
    return bool(left) and all(states[position] not in (OPEN, MARKED) for position in left)


async def _add_retries(db: Db, settling: Settling, now: float) -> None:
    await add_backlog(db, settling.backlog())
    audiences = await audiences_of(db, {number for _, number, _ in settling.retries})
    for _, number, _ in settling.retries:
        if number not in audiences:
            raise UsageError(f"The chunk {number} has no row in the table audience: none of it can be tried again.")
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
    await db.hot.add_retries(db, rows)
