"""From the ids of a chunk to the fields of each endpoint that a send needs: the read that every delivery goes through.

Rows come as few values: numbers packed one after another, and values that many endpoints share once for all of them. As
a row each, or an array for each column, they took the server three times as long to hand over, and the driver as long
again to take apart.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from typing import Any

from fanout.core.alike import ALIKE_FROM, AlikeRows, paired
from fanout.core.records import EndpointRow
from fanout.core.shard import SHARDS
from fanout.storage.postgres.db import Db
from fanout.storage.sealing import open_all

__all__ = ["resolve", "unpacked"]

_new_row: Callable[[tuple[Any, ...]], EndpointRow] = partial(tuple.__new__, EndpointRow)
"""As `EndpointRow._make`, without a Python call for each row."""

_APART = 2
"""Up to so many parts are asked by themselves."""
_DENSE = 2
"""Ids of which as many again, or fewer, are to be expected between the first and the last are read as a range, in half
of the time that it takes to look each of them up."""

_TOLD = (
    "SELECT kind, grp, state, binding, string_agg(int8send(id), ''), string_agg(float8send(registered_at), ''), "
    "string_agg(int4send(generation), ''), array_agg(address), (SELECT EXISTS (SELECT 1 FROM retry WHERE holds)), "
    "(SELECT record FROM seal) FROM ({}) e GROUP BY kind, grp, state, binding"
)
_ROW = "SELECT id, kind, grp, state, binding, registered_at, generation, address FROM"
_RANGE = [_TOLD.format(f"{_ROW} endpoint_{part} WHERE id BETWEEN $1 AND $2") for part in range(SHARDS)]
# Ids go as text: asyncpg and the server take three times as long for a list of numbers.
_LIST = [_TOLD.format(f"{_ROW} endpoint_{part} WHERE id = ANY ($1::text::bigint[])") for part in range(SHARDS)]
_ALL = _TOLD.format(
    " UNION ALL ".join(f"{_ROW} endpoint_{part} WHERE id = ANY (${part + 1}::text::bigint[])" for part in range(SHARDS))
)
_HELD = """
SELECT endpoint, max(due_at) FROM retry WHERE holds AND due_at > $2 AND endpoint = ANY ($1::text::bigint[]) GROUP BY endpoint
"""


async def resolve(db: Db, ids: Sequence[int], now: float) -> Sequence[EndpointRow]:
    """The columns of these endpoints that a send needs."""
    parts: list[list[int]] = [[] for _ in range(SHARDS)]
    for id in ids:
        parts[id & (SHARDS - 1)].append(id)
    asked = [shard for shard in range(SHARDS) if parts[shard]]
    if len(asked) > _APART:
        groups = await db.rows(_ALL, *map(_text, parts))
    else:
        groups = [group for shard in asked for group in await _of_part(db, shard, parts[shard])]
    if not groups:
        return []
    held: dict[int, float] = {}
    if any(group[8] for group in groups):
        held = {row[0]: row[1] for row in await db.rows(_HELD, _text(ids), now)}
    seal = db.seal_of(groups[0][9])
    rows: list[EndpointRow] = []
    for kind, grp, state, binding, packed, times, generations, addresses, _, _ in groups:
        numbers = unpacked("q", packed)
        more = unpacked("d", times), unpacked("i", generations)
        if seal is None and not held and state == "active" and len(ids) >= ALIKE_FROM and numbers == array("q", ids):
            return AlikeRows(numbers, addresses, kind, grp, paired(*more))
        states: Sequence[str] | repeat[str] = repeat(state)
        if seal is not None:
            states = [state] * len(addresses)
            place = (await db.places([binding]))[binding]
            open_all(seal, [place] * len(addresses), addresses, states)
        until = [held.get(number, 0.0) for number in numbers] if held else repeat(0.0)
        columns = (repeat(kind), repeat(grp), *more, states, until)
        rows += map(_new_row, zip(numbers, addresses, *columns, strict=False))
    if [row[0] for row in rows] != list(ids):
        # Where a range was read, others may have come along.
        chosen = set(ids)
        rows = [row for row in rows if row[0] in chosen]
    return rows


async def _of_part(db: Db, shard: int, ids: Sequence[int]) -> Sequence[Any]:
    low, high = min(ids), max(ids)
    # Of the numbers that the parts share, one in `SHARDS` is of this part; and a number stands `SHARDS` ids from the
    # next.
    if (high - low) // SHARDS // SHARDS < _DENSE * len(ids):
        return await db.rows(_RANGE[shard], low, high)
    return await db.rows(_LIST[shard], _text(ids))


def _text(ids: Sequence[int]) -> str:
    return "{" + ",".join(map(str, ids)) + "}"


def unpacked(code: str, packed: bytes) -> array[Any]:
    """Numbers that the server sent, most significant byte first."""
    numbers: array[Any] = array(code, packed)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
