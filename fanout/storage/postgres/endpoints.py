"""What becomes of an endpoint after its registration, and how endpoints are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fanout.core.model import Endpoint, EndpointState
from fanout.core.records import AddressMoved, EndpointFilter, EndpointGone
from fanout.core.shard import SHARDS, shard_of
from fanout.plugin import Seal, place_of
from fanout.storage.postgres.db import Db
from fanout.storage.sealing import kept, lookup_digest, opened

__all__ = [
    "COPY_FROM",
    "array_text",
    "change",
    "erase",
    "expire",
    "listing",
    "lock",
    "read",
    "remove",
    "restore",
    "retire",
    "tag",
    "take_turns",
    "untag",
    "wipe",
]

_IS_CHOSEN = "e.id = ANY (ARRAY[j.id]) AND e.shard = (j.id & 15)::smallint"


COPY_FROM = 50
"""Rows from which on COPY, which takes two more round trips, is preferred to INSERT."""


def array_text(values: Sequence[str]) -> str:
    """A text[] as PostgreSQL writes it: in a row of `Db.many` an array cannot stand as it is."""
    return "{" + ",".join('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values) + "}"


async def take_turns(db: Db) -> None:
    """Whoever was overtaken twice waits here for others of that kind, so that each gets through when many want the same addresses."""
    if db.repeats > 1:
        await db.value("SELECT pg_advisory_xact_lock($1)", _TURNS)


_TURNS = 0x46414E4F_45503031
"""A key of its own among the advisory locks of the database."""


# -- topics


async def untag(db: Db, tagged: Iterable[tuple[int, int, Sequence[str]]]) -> None:
    """Take endpoints out of topics: (id, binding's number, tags)."""
    await db.many(
        "DELETE FROM endpoint_tag d USING unnest($1::bigint[], $2::int[], $3::text[]) j (id, binding, tag) "
        "WHERE d.binding = ANY (ARRAY[j.binding]) AND d.tag = j.tag AND d.endpoint = j.id AND d.shard = (j.id & 15)::smallint",
        [(id, binding, tag) for id, binding, tags in tagged for tag in tags],
    )


async def tag(db: Db, tagged: Iterable[tuple[int, int, Sequence[str]]]) -> None:
    """Put these active endpoints of somebody into topics: (id, binding's number, tags)."""
    tagged = [each for each in tagged if each[2]]
    # Not as a list where they are many: the cycle collector would look at tens of thousands of tuples again and again.
    rows = ((id, binding, id & (SHARDS - 1), name) for id, binding, tags in tagged for name in tags)
    if len(tagged) >= COPY_FROM:
        await db.copy("endpoint_tag", ("endpoint", "binding", "shard", "tag"), rows)
    else:
        await db.many(
            "INSERT INTO endpoint_tag (endpoint, binding, shard, tag) "
            "SELECT * FROM unnest($1::bigint[], $2::int[], $3::smallint[], $4::text[])",
            rows,
        )


# -- changes of state


async def retire(
    db: Db, pairs: Sequence[tuple[int, int]], now: float, reason: str = "registered again", at: float | None = None
) -> None:
    """The first of each pair becomes replaced by the second, to whom the caller gives its address."""
    if pairs:
        at = now if at is None else at
        left = await _leave(db, [(old, at, reason) for old, _ in pairs], EndpointState.REPLACED)
        await _tell(db, left, EndpointState.REPLACED, now, dict(pairs))


_LEAVE = f"""
UPDATE endpoint e SET state = $4, state_at = j.at, reason = j.reason
FROM unnest($1::bigint[], $2::float8[], $3::text[]) j (id, at, reason)
WHERE {_IS_CHOSEN}
RETURNING e.id, e.app, e.usr, e.binding, e.digest, e.tags, e.reason
"""


async def _leave(db: Db, rows: Sequence[tuple[int, float, str]], state: EndpointState) -> Sequence[Any]:
    """These endpoints (id, since when, reason) are active no more, and in no topic: (id, app, user, binding, digest, tags, reason)."""
    if not rows:
        return []
    rows = sorted(rows)
    left = await db.rows(_LEAVE, *zip(*rows, strict=True), state.value)
    await _untag(db, left)
    return left


async def _untag(db: Db, left: Sequence[Any]) -> None:
    await untag(db, ((row["id"], row["binding"], row["tags"]) for row in left))


async def _free(db: Db, left: Sequence[Any]) -> None:
    """Their addresses are nobody's now."""
    await db.many(
        "DELETE FROM address a USING unnest($1::int[], $2::bytea[], $3::bigint[]) j (binding, digest, id) "
        "WHERE a.digest = ANY (ARRAY[j.digest]) AND a.binding = j.binding AND a.endpoint = j.id",
        [(row["binding"], row["digest"], row["id"]) for row in left],
    )


async def _tell(
    db: Db, left: Sequence[Any], state: EndpointState, now: float, by: dict[int, int] | None = None
) -> None:
    """The log says what became of them."""
    events = []
    for row in left:
        about = {**await _about(db, row), "reason": row["reason"]}
        if by is not None:
            about["by"] = by[row["id"]]
        events.append((row["app"], f"endpoint.{state.value}", about))
    await db.log(now, events)


async def _about(db: Db, row: Any) -> dict[str, Any]:
    """What an event says of an endpoint."""
    return {"endpoint": row["id"], "user": row["usr"], "binding": await db.binding_name(row["binding"])}


async def remove(db: Db, app: str, ids: Sequence[int], now: float) -> int:
    """Active and gone ones become removed; how many."""
    number = await db.app(app)
    found = await _of(db, number, ids, "e.state IN ('active', 'gone')")
    left = await _leave(db, [(row["id"], now, "") for row in found], EndpointState.REMOVED)
    await _free(db, left)
    await _tell(db, left, EndpointState.REMOVED, now)
    if db.again and not left:
        return len(await _of(db, number, ids, "e.state = 'removed' AND e.state_at = $3", now))
    return len(left)


async def erase(db: Db, number: int, user: str, now: float) -> int:
    """Of this user's endpoints nothing is left but their numbers, as removed; how many there were."""
    left = await db.rows(
        "SELECT id, app, '' AS usr, binding, digest, tags, 'erased' AS reason FROM endpoint "
        "WHERE app = $1 AND usr = $2 AND usr <> '' AND shard = $3 ORDER BY id FOR NO KEY UPDATE",
        number,
        user,
        shard_of(user, b""),
    )
    if not left:
        return await _erased(db, number, now) if db.again else 0
    await wipe(db, [row["id"] for row in left], now, "erased")
    await _tell(db, left, EndpointState.REMOVED, now)
    return len(left)


async def lock(db: Db, ids: Iterable[int]) -> None:
    """Lock these by id, as everybody does.

    A condition on what a change may alter would not keep the order: a row that was waited for stays locked, also where it no longer fits.
    """
    await db.rows("SELECT id FROM endpoint WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE", sorted(ids))


async def wipe(db: Db, ids: Sequence[int], now: float, reason: str) -> None:
    """Nothing of these is left but their numbers: they are removed, and cannot be restored."""
    for id in ids:  # of one user, and seldom: not a statement over many rows
        place = (id, id & (SHARDS - 1))
        found = "SELECT id, binding, digest, tags FROM endpoint WHERE id = $1 AND shard = $2 AND digest <> '' FOR NO KEY UPDATE"
        left = await db.rows(found, *place)
        await _untag(db, left)
        await _free(db, left)
        if left:
            await db.run(
                "UPDATE endpoint SET usr = '', address = '', identity = '', digest = '', tags = '{}', kind = '', grp = '', platform = '', "
                "state = 'removed', state_at = $3, reason = $4 WHERE id = $1 AND shard = $2",
                *place,
                now,
                reason,
            )


async def _erased(db: Db, app: int, now: float) -> int:
    """How many the same call erased when nobody heard its answer."""
    return int(
        await db.value(
            "SELECT count(*) FROM endpoint WHERE app = $1 AND state <> 'active' AND state_at = $2 AND reason = 'erased'",
            app,
            now,
        )
    )


async def restore(db: Db, app: str, ids: Sequence[int], now: float) -> int:
    """Gone, removed and expired ones become active again, where nobody else holds the address; how many."""
    await take_turns(db)
    found = await _of(
        db,
        await db.app(app),
        ids,
        "e.state IN ('gone', 'removed', 'expired') AND e.address <> '' AND NOT EXISTS (SELECT FROM address a "
        "WHERE a.digest = e.digest AND a.binding = e.binding OFFSET 0)",
    )
    order = {id: i for i, id in enumerate(dict.fromkeys(ids))}
    first: dict[tuple[int, bytes], Any] = {}
    for row in sorted(found, key=lambda row: order[row["id"]]):
        first.setdefault((row["binding"], row["digest"]), row)
    chosen = sorted(first.values(), key=lambda row: int(row["id"]))
    if chosen:
        await db.run(
            "UPDATE endpoint e SET state = 'active', state_at = NULL, reason = '', generation = generation + 1, "
            "expires_at = CASE WHEN expires_at > $2 THEN expires_at END FROM unnest($1::bigint[]) j (id) "
            f"WHERE {_IS_CHOSEN}",
            [row["id"] for row in chosen],
            now,
        )
        # Somebody may be registering one of them at this moment: the key of `address` then has this run again.
        await db.many(
            "INSERT INTO address (binding, digest, endpoint) SELECT * FROM unnest($1::int[], $2::bytea[], $3::bigint[])",
            sorted(((row["binding"], row["digest"], row["id"]) for row in chosen), key=lambda row: row[1]),
        )
        await tag(db, [(row["id"], row["binding"], row["tags"]) for row in chosen if row["usr"]])
        await db.log(now, [(row["app"], "endpoint.restored", await _about(db, row)) for row in chosen])
    return len(chosen)


async def _of(db: Db, app: int, ids: Sequence[int], condition: str, *more: Any) -> Sequence[Any]:
    """The app's endpoints among `ids` for which the condition holds, locked, by id. Others are not locked."""
    return await db.rows(
        "WITH f AS MATERIALIZED (SELECT e.id FROM unnest($1::bigint[]) j (id) CROSS JOIN LATERAL "
        "(SELECT * FROM endpoint WHERE id = j.id AND shard = (j.id & 15)::smallint OFFSET 0) e "
        f"WHERE e.app = $2 AND {condition}) "
        "SELECT e.id, e.app, e.usr, e.binding, e.digest, e.tags FROM f CROSS JOIN LATERAL "
        "(SELECT * FROM endpoint WHERE id = f.id AND shard = (f.id & 15)::smallint OFFSET 0 FOR NO KEY UPDATE) e "
        f"WHERE e.app = $2 AND {condition}",
        sorted(set(ids)),
        app,
        *more,
    )


async def change(db: Db, changes: Sequence[EndpointGone | AddressMoved], now: float) -> None:
    """What gateways said of endpoints, in order, each if it is still active and of that generation."""
    gone: dict[tuple[int, int], EndpointGone] = {}
    if any(isinstance(what, AddressMoved) for what in changes):
        await lock(db, {what.endpoint for what in changes})
    for what in changes:
        if isinstance(what, EndpointGone):
            gone.setdefault((what.endpoint, what.generation), what)
        else:
            await _gone(db, list(gone.values()), now)
            gone = {}
            await _moved(db, what, now)
    await _gone(db, list(gone.values()), now)


_GONE = f"""
UPDATE endpoint e SET state = 'gone', state_at = j.at, reason = j.reason
FROM unnest($1::bigint[], $2::int[], $3::float8[], $4::text[]) j (id, generation, at, reason)
WHERE {_IS_CHOSEN} AND e.generation = j.generation AND e.state = 'active'
RETURNING e.id, e.app, e.usr, e.binding, e.digest, e.tags, e.reason
"""


async def _gone(db: Db, gone: Sequence[EndpointGone], now: float) -> None:
    if gone:
        rows = sorted((what.endpoint, what.generation, what.at, what.reason) for what in gone)
        left = await db.rows(_GONE, *zip(*rows, strict=True))
        await _untag(db, left)
        await _free(db, left)
        await _tell(db, left, EndpointState.GONE, now)


async def _moved(db: Db, what: AddressMoved, now: float) -> None:
    address = what.address
    mine = await db.row(
        "SELECT id, app, usr, binding, digest, tags FROM endpoint WHERE id = $1 AND shard = $2 AND generation = $3 "
        "AND state = 'active' FOR NO KEY UPDATE",
        what.endpoint,
        what.endpoint & (SHARDS - 1),
        what.generation,
    )
    if mine is None:
        return
    seal, place = await db.seal(), (await db.places([mine["binding"]]))[mine["binding"]]
    digest = bytes.fromhex(lookup_digest(seal, place, address))
    holder = await db.value("SELECT endpoint FROM address WHERE binding = $1 AND digest = $2", mine["binding"], digest)
    if holder is not None and holder != what.endpoint:
        await _free(db, [mine])
        await retire(db, [(what.endpoint, holder)], now, "moved to a known address", what.at)
        return
    await db.run(
        "UPDATE endpoint SET address = $3, identity = $4, kind = $5, grp = $6, digest = $7, generation = generation + 1 "
        "WHERE id = $1 AND shard = $2",
        what.endpoint,
        what.endpoint & (SHARDS - 1),
        *kept(seal, place, address),
        address.kind,
        address.group,
        digest,
    )
    if holder is None:
        await _free(db, [mine])
        await db.run(
            "INSERT INTO address (binding, digest, endpoint) VALUES ($1, $2, $3)",
            mine["binding"],
            digest,
            what.endpoint,
        )
    await db.log(now, [(mine["app"], "endpoint.moved", await _about(db, mine))])


async def expire(db: Db, now: float, limit: int) -> int:
    """Endpoints past their own time become expired; how many."""
    found = await db.rows(
        "SELECT id FROM endpoint WHERE state = 'active' AND expires_at IS NOT NULL AND expires_at <= $1 "
        "ORDER BY expires_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED",
        now,
        limit,
    )
    left = await _leave(db, [(row["id"], now, "") for row in found], EndpointState.EXPIRED)
    await _free(db, left)
    return len(left)


# -- reading

_COLUMNS = (
    "e.id, a.name AS app, e.usr, b.name AS binding, e.address, e.kind, e.grp, e.identity, e.platform, e.tags, e.generation, "
    "e.registered_at, e.expires_at, e.state, e.state_at, e.reason"
)
_NAMED = "JOIN app a ON a.id = e.app JOIN binding b ON b.id = e.binding"


def _endpoint(row: Any, seal: Seal | None) -> Endpoint:
    id, app, user, binding, value, kind, group, identity, platform, tags, generation, *times, state, at, why = row
    return Endpoint(
        id=id,
        app=app,
        user=user,
        binding=binding,
        address=opened(seal, place_of(app, binding), value, kind, group, identity),
        platform=platform,
        tags=tuple(tags),
        generation=generation,
        registered_at=times[0],
        expires_at=times[1],
        state=EndpointState(state),
        state_at=at,
        reason=why,
    )


async def read(db: Db, app: str, id: int) -> Endpoint | None:
    """One endpoint in whatever state."""
    row = await db.row(
        f"SELECT {_COLUMNS} FROM endpoint e {_NAMED} WHERE e.id = $1 AND e.shard = $2 AND a.name = $3",
        id,
        id & (SHARDS - 1),
        app,
    )
    return None if row is None else _endpoint(row, await db.seal())


async def listing(db: Db, which: EndpointFilter, after: int, limit: int) -> list[Endpoint]:
    """The endpoints that fit, by id."""
    arguments: list[Any] = [await db.app(which.app), after, limit]

    def is_(column: str, value: Any) -> str:
        arguments.append(value)
        return column.format(f"${len(arguments)}")

    where = ["app = $1", "id > $2", "usr <> ''" if which.user is None else is_("usr = {}", which.user)]
    if which.user:
        where += ["usr <> ''", is_("shard = {}", shard_of(which.user, b""))]
    if which.binding is not None:
        where.append(is_("binding = {}", await db.binding(arguments[0], which.binding)))
    if which.tag is not None:
        where.append(is_("{} = ANY (tags)", which.tag))
    if which.state is not None:
        where.append(f"state = '{which.state.value}'")
    page = f"SELECT * FROM endpoint WHERE {' AND '.join(where)} ORDER BY id LIMIT $3"
    rows = await db.rows(f"SELECT {_COLUMNS} FROM ({page}) e {_NAMED} ORDER BY e.id", *arguments)
    seal = await db.seal()
    return [_endpoint(row, seal) for row in rows]
