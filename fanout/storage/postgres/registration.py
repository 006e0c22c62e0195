"""Registering and interning: addresses enter the directory, thousands at a time.

An endpoint's row is what transactions wait for: whoever changes one, or the row of `address` that names it, has locked it first, in
the order of ids. Two that enter an unknown address at once meet at the key of `address`; the later is run again, and finds it known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.address import Address
from fanout.core.columns import GIVEN, given, shown
from fanout.core.model import Endpoint, Registration
from fanout.core.shard import SHARDS, shard_of
from fanout.plugin import place_of
from fanout.storage.postgres.db import COPY_FROM, Db
from fanout.storage.sealing import kept, lookup_digest
from fanout.storage.sql.db import Again
from fanout.storage.sql.endpoints import retire

__all__ = ["intern", "register"]

_Place = tuple[int, int, bytes]
"""(app's number, binding's number, address digest)."""

_Known = tuple[int, str, int, Sequence[str]]
"""(id, user, generation, tags by which topics name it) of an endpoint that has, or had, an address."""


def _array_text(values: Sequence[str]) -> str:
    """A text[] as PostgreSQL writes it: in a row of `Db.many` an array cannot stand as it is."""
    return "{" + ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values) + "}"


async def register(db: Db, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
    """Enter each, in order, and return the endpoints in the same order."""
    await db.take_turns()
    places = await _places(db, registrations)
    known = await _known(db, registrations, places)
    if len({(binding, digest) for _, binding, digest in places}) == len(places):
        return await _enter(db, registrations, places, now, known)
    # Where an address occurs twice, a new run begins, so that each registration finds what the one before it left.
    endpoints: list[Endpoint] = []
    start = 0
    run: set[tuple[int, bytes]] = set()
    for i, place in enumerate([*places, None]):
        if place is None or place[1:] in run:
            known = await _known(db, registrations[start:i], places[start:i])
            endpoints += await _enter(db, registrations[start:i], places[start:i], now, known)
            start, run = i, set()
        if place is not None:
            run.add(place[1:])
    return endpoints


async def _places(db: Db, registrations: Sequence[Registration]) -> list[_Place]:
    seal = await db.seal()
    numbers: dict[tuple[str, str], tuple[int, int, bytes]] = {}
    places = []
    for new in registrations:
        name = (new.app, new.binding)
        if name not in numbers:
            app = await db.app(new.app, create=True)
            numbers[name] = (app, await db.binding(app, new.binding, create=True), place_of(*name))
        app, binding, place = numbers[name]
        places.append((app, binding, bytes.fromhex(lookup_digest(seal, place, new.address))))
    return places


async def _enter(
    db: Db,
    registrations: Sequence[Registration],
    places: Sequence[_Place],
    now: float,
    known: tuple[dict[int, _Known], dict[int, list[_Known]]],
) -> list[Endpoint]:
    """Enter addresses of which none occurs twice, and of which this is known: decide, then write."""
    if not registrations:
        return []
    holders, former = known
    decided: list[_Known | None] = [
        _mine(new.user, holders.get(i), former.get(i, ())) for i, new in enumerate(registrations)
    ]
    seal = await db.seal()
    homes = await db.places(place[1] for place in places) if seal is not None else {}
    numbers = iter(await _numbers(db, decided.count(None)))
    free: list[tuple[int, bytes, int]] = []
    handed: list[tuple[int, bytes, int]] = []
    fresh: list[tuple[Any, ...]] = []
    refreshed: list[tuple[Any, ...]] = []
    replaced: list[tuple[int, int]] = []
    tagged: list[tuple[int, int, Sequence[str]]] = []
    untagged: list[tuple[int, int, Sequence[str]]] = []
    endpoints: list[Endpoint] = []
    for i, (new, (app, binding, digest), mine) in enumerate(zip(registrations, places, decided, strict=True)):
        address = new.address
        text, identity = kept(seal, homes.get(binding, b""), address)
        tags = tuple(dict.fromkeys(new.tags)) if new.tags else ()
        if mine is None:
            shard = shard_of(new.user, digest)
            id, generation = next(numbers) * SHARDS + shard, 1
            fresh.append(
                (
                    *(id, now, new.expires_at, app, binding, 1, shard, new.user, digest, address.kind, address.group),
                    *(*given(new), tags, text, identity),
                )
            )
        else:
            id, generation = mine[0], mine[2] + 1
            refreshed.append(
                (
                    *(id, generation, address.kind, address.group, *given(new), _array_text(tags), new.expires_at),
                    *(text, identity),
                )
            )
        holder = holders.get(i)
        if holder is None:
            free.append((binding, digest, id))
        elif holder[0] != id:
            handed.append((binding, digest, id))
            replaced.append((holder[0], id))
        if new.user and (tags or mine):
            had = mine[3] if mine else ()
            tagged.append((id, binding, [tag for tag in tags if tag not in had]))
            untagged.append((id, binding, [tag for tag in had if tag not in tags]))
        endpoints.append(
            Endpoint(
                id=id,
                app=new.app,
                user=new.user,
                binding=new.binding,
                address=address,
                tags=tags,
                generation=generation,
                registered_at=now,
                expires_at=new.expires_at,
                **shown(new),
            )
        )
    await retire(db, replaced, now)
    await db.untag(untagged)
    await db.many(_REFRESH, sorted(refreshed), now)
    await _write(db, fresh, free, handed)
    await db.tag(tagged)
    return endpoints


def _mine(user: str, holder: _Known | None, former: Sequence[_Known]) -> _Known | None:
    """The endpoint of this user that the address belongs to, or last belonged to."""
    if holder is not None and holder[1] == user:
        return holder
    return max((each for each in former if each[1] == user), default=None, key=lambda each: each[0])


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
"""What is no text."""
_ROW = ("id", "generation", "kind", "grp", *_GIVEN, "tags", "expires_at", "address", "identity")
"""The columns of what is refreshed, in the order of its rows."""
_COLUMNS = (
    *("id", "registered_at", "expires_at", "app", "binding", "generation", "shard", "usr", "digest", "kind", "grp"),
    *(*_GIVEN, "tags", "address", "identity"),
)
"""Those of what is new."""


def _unnested(names: Sequence[str]) -> str:
    arrays = ", ".join(f"${place}::{_TYPES.get(name, 'text')}[]" for place, name in enumerate(names, 1))
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


async def _known(
    db: Db, wanted: Sequence[Registration], places: Sequence[_Place], *, takes: bool = True
) -> tuple[dict[int, _Known], dict[int, list[_Known]]]:
    """By index: the holder of each address now, and endpoints of the same user that had it once; locked, all of them by id in one pass.

    Without `takes`, what had an address that somebody holds is not looked for where it is nobody's.
    """
    rows = await db.rows(
        _KNOWN,
        [place[1] for place in places],
        [place[2] for place in places],
        [new.user for new in wanted],
        [shard_of(new.user, place[2]) for new, place in zip(wanted, places, strict=True)],
        await db.value("SELECT EXISTS (SELECT 1 FROM endpoint WHERE state <> 'active')"),
        takes,
    )
    holders: dict[int, _Known] = {}
    former: dict[int, list[_Known]] = {}
    for i, holds, id, user, generation, tags, inactive, same in rows:
        if holds:
            if inactive:
                # It was active when `address` was read, and whoever changed it since has committed while we waited for its row.
                raise Again
            holders[i - 1] = (id, user, generation, tags)
        elif inactive and same:
            former.setdefault(i - 1, []).append((id, user, generation, ()))
    return holders, former


async def _numbers(db: Db, count: int) -> list[int]:
    """So many numbers that were never used, ascending."""
    if not count:
        return []
    numbers: list[int] = await db.value(
        "SELECT array_agg(nextval('endpoint_number')) FROM generate_series(1, $1)", count
    )
    return numbers


async def _write(
    db: Db,
    fresh: Sequence[tuple[Any, ...]],
    free: list[tuple[int, bytes, int]],
    handed: Sequence[tuple[int, bytes, int]],
) -> None:
    """Store new endpoints, and who holds which address: `free` ones were nobody's, `handed` ones somebody else's."""
    # In one order, so that two who enter the same addresses wait for one another only one way.
    free.sort(key=lambda row: row[1])
    columns = ("binding", "digest", "endpoint")
    if len(free) >= COPY_FROM:
        await db.copy("address", columns, free)
    else:
        await db.many(
            "INSERT INTO address (binding, digest, endpoint) SELECT * FROM unnest($1::int[], $2::bytea[], $3::bigint[])",
            free,
        )
    await db.many(
        "UPDATE address a SET endpoint = j.endpoint FROM unnest($1::int[], $2::bytea[], $3::bigint[]) j (binding, digest, endpoint) "
        "WHERE a.digest = ANY (ARRAY[j.digest]) AND a.binding = j.binding",
        handed,
    )
    if len(fresh) >= COPY_FROM:
        await db.copy("endpoint", _COLUMNS, fresh)
    else:
        await db.many(_INSERT, [(*row[:12], _array_text(row[12]), *row[13:]) for row in fresh])


async def intern(db: Db, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
    """Ids for addresses, in order; each that nobody holds becomes an endpoint without a user."""
    await db.take_turns()
    unique = list({address.digest: address for address in addresses}.values())
    wanted = [Registration(user="", app=app, binding=binding, address=address) for address in unique]
    places = await _places(db, wanted)
    holders, former = await _known(db, wanted, places, takes=False)
    ids = {unique[i].digest: holder[0] for i, holder in holders.items()}
    unknown = [i for i, address in enumerate(unique) if address.digest not in ids]
    had = {n: former[i] for n, i in enumerate(unknown) if i in former}
    entered = await _enter(db, [wanted[i] for i in unknown], [places[i] for i in unknown], now, ({}, had))
    ids.update((unique[i].digest, endpoint.id) for i, endpoint in zip(unknown, entered, strict=True))
    return [ids[address.digest] for address in addresses]
