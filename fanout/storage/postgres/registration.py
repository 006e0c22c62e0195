"""Registering and interning: addresses enter the directory, thousands at a time.

An endpoint's row is what transactions wait for: whoever changes one, or the row of `address` that names it, has locked it first, in
the order of ids. Two that enter an unknown address at once meet at the key of `address`; the later is run again, and finds it known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.address import Address
from fanout.core.model import Endpoint, Registration
from fanout.core.shard import SHARDS, shard_of
from fanout.plugin import place_of
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.endpoints import COPY_FROM, array_text, retire, tag, take_turns, untag
from fanout.storage.postgres.failure import Again
from fanout.storage.sealing import kept, lookup_digest

__all__ = ["intern", "register"]

_Place = tuple[int, int, bytes]
"""(app's number, binding's number, address digest)."""

_Known = tuple[int, str, int, Sequence[str]]
"""(id, user, generation, tags by which topics name it) of an endpoint that has, or had, an address."""


async def register(db: Db, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
    """Enter each, in order, and return the endpoints in the same order."""
    await take_turns(db)
    places = await _places(db, registrations)
    if len({(binding, digest) for _, binding, digest in places}) == len(places):
        return await _enter(db, registrations, places, now)
    # Where an address occurs twice, a new run begins, so that each registration finds what the one before it left.
    endpoints: list[Endpoint] = []
    start = 0
    run: set[tuple[int, bytes]] = set()
    for i, place in enumerate([*places, None]):
        if place is None or place[1:] in run:
            endpoints += await _enter(db, registrations[start:i], places[start:i], now)
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


async def _enter(db: Db, registrations: Sequence[Registration], places: Sequence[_Place], now: float) -> list[Endpoint]:
    """Enter addresses of which none occurs twice: look all up, then decide, then write."""
    if not registrations:
        return []
    holders = await _holders(db, places)
    former = await _former(db, registrations, places, holders)
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
    for i, (new, (app, binding, digest), known) in enumerate(zip(registrations, places, decided, strict=True)):
        address = new.address
        text, identity = kept(seal, homes.get(binding, b""), address)
        tags = tuple(dict.fromkeys(new.tags)) if new.tags else ()
        if known is None:
            shard = shard_of(new.user, digest)
            id, generation = next(numbers) * SHARDS + shard, 1
            fresh.append(
                (
                    *(id, now, new.expires_at, app, binding, 1, shard, new.user, digest, address.kind, address.group),
                    *(new.platform, tags, text, identity),
                )
            )
        else:
            id, generation = known[0], known[2] + 1
            refreshed.append(
                (
                    *(id, generation, address.kind, address.group, new.platform, array_text(tags), new.expires_at),
                    *(text, identity),
                )
            )
        holder = holders.get(i)
        if holder is None:
            free.append((binding, digest, id))
        elif holder[0] != id:
            handed.append((binding, digest, id))
            replaced.append((holder[0], id))
        if new.user and (tags or known):
            had = known[3] if known else ()
            tagged.append((id, binding, [tag for tag in tags if tag not in had]))
            untagged.append((id, binding, [tag for tag in had if tag not in tags]))
        endpoints.append(
            Endpoint(
                id=id,
                app=new.app,
                user=new.user,
                binding=new.binding,
                address=address,
                platform=new.platform,
                tags=tags,
                generation=generation,
                registered_at=now,
                expires_at=new.expires_at,
            )
        )
    await retire(db, replaced, now)
    await untag(db, untagged)
    await db.many(_REFRESH, sorted(refreshed), now)
    await _write(db, fresh, free, handed)
    await tag(db, tagged)
    return endpoints


def _mine(user: str, holder: _Known | None, former: Sequence[_Known]) -> _Known | None:
    """The endpoint of this user that the address belongs to, or last belonged to."""
    if holder is not None and holder[1] == user:
        return holder
    return max((each for each in former if each[1] == user), default=None, key=lambda each: each[0])


_LOCKED = """
CROSS JOIN LATERAL (SELECT * FROM endpoint WHERE id = f.id AND shard = (f.id & 15)::smallint OFFSET 0 FOR NO KEY UPDATE) e
"""
_HOLDERS = f"""
WITH f AS MATERIALIZED (
  SELECT j.i, a.id FROM unnest($1::int[], $2::bytea[]) WITH ORDINALITY j (binding, digest, i)
  CROSS JOIN LATERAL (SELECT endpoint AS id FROM address WHERE digest = j.digest AND binding = j.binding OFFSET 0) a ORDER BY a.id
) SELECT f.i, e.id, e.usr, e.generation, e.tags, e.state FROM f {_LOCKED}
"""

_FORMER = f"""
WITH f AS MATERIALIZED (
  SELECT j.*, e.id FROM unnest($1::int[], $2::bytea[], $3::text[]{{0}}) j (binding, digest, usr, i{{1}}) CROSS JOIN LATERAL (
    SELECT id, usr FROM endpoint WHERE binding = j.binding AND digest = j.digest AND state_at IS NOT NULL{{2}} OFFSET 0
  ) e WHERE e.usr = j.usr ORDER BY e.id
) SELECT f.i, e.id, e.usr, e.generation FROM f {_LOCKED}
WHERE e.binding = f.binding AND e.digest = f.digest AND e.usr = f.usr AND e.state <> 'active'
"""
_FORMER_OF_USERS = _FORMER.format(", $4::bigint[], $5::smallint[]", ", shard", " AND shard = j.shard")
_FORMER_OF_NOBODY = _FORMER.format(", $4::bigint[]", "", "")

_REFRESH = """
UPDATE endpoint e SET
  generation = j.generation, kind = j.kind, grp = j.grp, platform = j.platform, tags = j.tags::text[],
  registered_at = $10, expires_at = j.expires_at, address = j.address, identity = j.identity,
  state = 'active', state_at = NULL, reason = ''
FROM unnest($1::bigint[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::float8[], $8::text[], $9::text[])
  j (id, generation, kind, grp, platform, tags, expires_at, address, identity)
WHERE e.id = ANY (ARRAY[j.id]) AND e.shard = (j.id & 15)::smallint
"""

_COLUMNS = (
    *("id", "registered_at", "expires_at", "app", "binding", "generation", "shard", "usr", "digest", "kind", "grp"),
    *("platform", "tags", "address", "identity"),
)

_INSERT = f"""
INSERT INTO endpoint ({", ".join(_COLUMNS)})
SELECT id, registered_at, expires_at, app, binding, generation, shard, usr, digest, kind, grp, platform, tags::text[], address, identity
FROM unnest($1::bigint[], $2::float8[], $3::float8[], $4::int[], $5::int[], $6::int[], $7::smallint[], $8::text[], $9::bytea[],
  $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[]) j ({", ".join(_COLUMNS)})
"""


async def _holders(db: Db, places: Sequence[_Place]) -> dict[int, _Known]:
    """Who holds each address now, by index, locked until the end of the transaction."""
    rows = await db.rows(_HOLDERS, [place[1] for place in places], [place[2] for place in places])
    found: dict[int, _Known] = {}
    for i, id, user, generation, tags, state in rows:
        if state != "active":
            # It was active when `address` was read, and whoever changed it since has committed while we waited for its row.
            raise Again
        found[i - 1] = (id, user, generation, tags)
    return found


async def _former(
    db: Db, registrations: Sequence[Registration], places: Sequence[_Place], holders: dict[int, _Known]
) -> dict[int, list[_Known]]:
    """Endpoints of the same user that had each address once, by index, where nobody of that name holds it; locked like holders."""
    wanted = [i for i, new in enumerate(registrations) if i not in holders or holders[i][1] != new.user]
    if not wanted or not await db.value("SELECT EXISTS (SELECT 1 FROM endpoint WHERE state <> 'active')"):
        return {}
    rows = []
    named = [i for i in wanted if registrations[i].user]
    if named:
        rows += await db.rows(
            _FORMER_OF_USERS,
            [places[i][1] for i in named],
            [places[i][2] for i in named],
            [registrations[i].user for i in named],
            named,
            [shard_of(registrations[i].user, places[i][2]) for i in named],
        )
    nameless = [i for i in wanted if not registrations[i].user]
    if nameless:
        # One that was moved stands in the part of an address that it no longer has: so all parts are looked into.
        rows += await db.rows(
            _FORMER_OF_NOBODY,
            [places[i][1] for i in nameless],
            [places[i][2] for i in nameless],
            [""] * len(nameless),
            nameless,
        )
    found: dict[int, list[_Known]] = {}
    for i, id, user, generation in rows:
        found.setdefault(i, []).append((id, user, generation, ()))
    return found


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
        await db.many(_INSERT, [(*row[:12], array_text(row[12]), *row[13:]) for row in fresh])


async def intern(db: Db, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
    """Ids for addresses, in order; each that nobody holds becomes an endpoint without a user."""
    await take_turns(db)
    unique = list({address.digest: address for address in addresses}.values())
    wanted = [Registration(user="", app=app, binding=binding, address=address) for address in unique]
    places = await _places(db, wanted)
    ids = {unique[i].digest: holder[0] for i, holder in (await _holders(db, places)).items()}
    unknown = [i for i, address in enumerate(unique) if address.digest not in ids]
    entered = await _enter(db, [wanted[i] for i in unknown], [places[i] for i in unknown], now)
    ids.update((unique[i].digest, endpoint.id) for i, endpoint in zip(unknown, entered, strict=True))
    return [ids[address.digest] for address in addresses]
