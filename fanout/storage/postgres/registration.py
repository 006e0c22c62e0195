"""The directory as registration reads and writes it (see `storage.sql.registration`).

Two transactions that enter an unknown address at once meet at the key of `address`; the later is run again, and finds
it known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.columns import GIVEN, given
from fanout.core.endpoint import Registration
from fanout.core.shard import SHARDS, shard_of
from fanout.storage.postgres.db import COPY_FROM, Db
from fanout.storage.sql.db import Again
from fanout.storage.sql.directory import Entries, Known, Place

__all__ = ["enter", "known", "numbers"]


def _array_text(values: Sequence[str]) -> str:
    """A text[] as PostgreSQL writes it: in a row of `Db.many` an array cannot stand as it is."""
    return "{" + ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values) + "}"


_KNOWN = """
WITH j AS MATERIALIZED (
  SELECT j.*, (SELECT endpoint FROM address WHERE digest = j.digest AND binding = j.binding) AS holder
  FROM unnest($1::int[], $2::bytea[], $3::text[], $4::smallint[]) WITH ORDINALITY j (binding, digest, usr, shard, i)
), f AS MATERIALIZED (
  SELECT j.*, holder AS id, true AS holds FROM j WHERE holder IS NOT NULL
  UNION ALL SELECT j.*, e.id, false FROM j CROSS JOIN LATERAL (
    SELECT id, usr FROM endpoint WHERE binding = j.binding AND digest = j.digest AND state_at IS NOT NULL AND shard = j.shard OFFSET 0
  ) e WHERE e.usr = j.usr AND j.usr <> '' AND $5
  UNION ALL SELECT j.*, e.id, false FROM j CROSS JOIN LATERAL (
    SELECT id, usr FROM endpoint WHERE binding = j.binding AND digest = j.digest AND state_at IS NOT NULL OFFSET 0
  ) e WHERE e.usr = j.usr AND j.usr = '' AND $5 AND (j.holder IS NULL OR $6)
  ORDER BY id
)
SELECT f.i, f.holds, e.id, e.usr, e.generation, e.tags, e.state <> 'active', e.binding = f.binding AND e.digest = f.digest AND e.usr = f.usr
FROM f CROSS JOIN LATERAL (SELECT * FROM endpoint WHERE id = f.id AND shard = (f.id & 15)::smallint OFFSET 0 FOR NO KEY UPDATE) e
"""
# A nameless one that was moved stands in the part of an address that it no longer has: so all parts are looked into.

_GIVEN = tuple(column.name for column in GIVEN)
_TYPES = {
    "id": "bigint",
    "app": "int",
    "binding": "int",
    "generation": "int",
    "shard": "smallint",
    "digest": "bytea",
    "registered_at": "float8",
    "expires_at": "float8",
    **{column.name: column.type for column in GIVEN},
}
"""The columns that are no text."""
_ROW = ("id", "generation", "kind", "grp", *_GIVEN, "tags", "expires_at", "address", "identity")
"""The columns of a refreshed endpoint, in the order of its rows."""
_COLUMNS = (
    *("id", "registered_at", "expires_at", "app", "binding", "generation", "shard", "usr", "digest", "kind", "grp"),
    *(*_GIVEN, "tags", "address", "identity"),
)
"""Those of a new endpoint."""


def _unnested(names: Sequence[str]) -> str:
    arrays = ", ".join(f"${number}::{_TYPES.get(name, 'text')}[]" for number, name in enumerate(names, 1))
    return f"unnest({arrays}) j ({', '.join(names)})"


def _values(names: Sequence[str], row: str = "") -> list[str]:
    return [f"{row}{name}::text[]" if name == "tags" else f"{row}{name}" for name in names]


_SET = dict(zip(_ROW, _values(_ROW, "j."), strict=True)) | {"registered_at": f"${len(_ROW) + 1}"}
_REFRESH = f"""
UPDATE endpoint e SET {", ".join(f"{name} = {_SET[name]}" for name in (*_ROW[1:-3], "registered_at", *_ROW[-3:]))},
  state = 'active', state_at = NULL, reason = ''
FROM {_unnested(_ROW)}
WHERE e.id = ANY (ARRAY[j.id]) AND e.shard = (j.id & 15)::smallint
"""
_INSERT = f"""
INSERT INTO endpoint ({", ".join(_COLUMNS)})
SELECT {", ".join(_values(_COLUMNS))}
FROM {_unnested(_COLUMNS)}
"""


async def known(
    db: Db, wanted: Sequence[Registration], places: Sequence[Place], takes: bool
) -> tuple[dict[int, Known], dict[int, list[Known]]]:
    """By index: the holder of each address now, and endpoints of the same user that had it once; locked, all of them by
    id in one pass.

    Without `takes`, former endpoints without a user are not looked for at an address that has a holder.
    """
    digests = [bytes.fromhex(digest) for _, _, digest in places]
    rows = await db.rows(
        _KNOWN,
        [place[1] for place in places],
        digests,
        [new.user for new in wanted],
        [shard_of(new.user, digest) for new, digest in zip(wanted, digests, strict=True)],
        await db.value("SELECT EXISTS (SELECT 1 FROM endpoint WHERE state <> 'active')"),
        takes,
    )
    holders: dict[int, Known] = {}
    former: dict[int, list[Known]] = {}
    for i, holds, id, user, generation, tags, inactive, same in rows:
        if holds:
            if inactive:
                # It was active when `address` was read, and the transaction that changed it since has committed while
                # we waited for its row.
                raise Again
            holders[i - 1] = (id, user, generation, tags)
        elif inactive and same:
            former.setdefault(i - 1, []).append((id, user, generation, ()))
    return holders, former


async def numbers(
    db: Db, wanted: Sequence[int], registrations: Sequence[Registration], places: Sequence[Place]
) -> Sequence[int]:
    """Numbers that were never used, ascending, each with the part where its endpoint stands."""
    if not wanted:
        return []
    found = await db.value("SELECT array_agg(nextval('endpoint_number')) FROM generate_series(1, $1)", len(wanted))
    return [
        number * SHARDS + shard_of(registrations[i].user, bytes.fromhex(places[i][2]))
        for number, i in zip(found, wanted, strict=True)
    ]


def _bytes(claims: Sequence[tuple[int, str, int]]) -> list[tuple[int, bytes, int]]:
    return [(binding, bytes.fromhex(digest), id) for binding, digest, id in claims]


async def enter(db: Db, entries: Entries, now: float) -> None:
    """Store new and known endpoints, and which address is whose."""
    refreshed = [
        (
            *(id, generation, new.address.kind, new.address.group, *given(new), _array_text(tags), new.expires_at),
            *(text, identity),
        )
        for id, generation, new, tags, text, identity in entries.refreshed
    ]
    await db.many(_REFRESH, sorted(refreshed), now)
    # In one order, so that two transactions with the same addresses cannot deadlock.
    free = sorted(_bytes(entries.free), key=lambda row: row[1])
    if len(free) >= COPY_FROM:
        await db.copy("address", ("binding", "digest", "endpoint"), free)
    else:
        await db.hold_addresses(free)
    await db.many(
        "UPDATE address a SET endpoint = j.endpoint FROM unnest($1::int[], $2::bytea[], $3::bigint[]) j (binding, digest, endpoint) "
        "WHERE a.digest = ANY (ARRAY[j.digest]) AND a.binding = j.binding",
        _bytes(entries.handed),
    )
    fresh: list[tuple[Any, ...]] = [
        (
            *(id, now, new.expires_at, app, binding, 1, id & (SHARDS - 1), new.user, bytes.fromhex(digest)),
            *(new.address.kind, new.address.group, *given(new), tags, text, identity),
        )
        for id, new, tags, text, identity, (app, binding, digest) in entries.fresh
    ]
    if len(fresh) >= COPY_FROM:
        await db.copy("endpoint", _COLUMNS, fresh)
    else:
        at = _COLUMNS.index("tags")
        await db.many(_INSERT, [(*row[:at], _array_text(row[at]), *row[at + 1 :]) for row in fresh])
