"""The life of an endpoint after its registration, and how endpoints are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fanout.core.columns import GIVEN
from fanout.core.endpoint import Endpoint, EndpointState
from fanout.core.records import AddressMoved, EndpointFilter, EndpointGone
from fanout.core.shard import shard_of
from fanout.plugin import Seal, place_of
from fanout.storage.sealing import kept, lookup_digest, opened
from fanout.storage.sql.db import Db, made_once

__all__ = ["change", "erase", "expire", "listing", "lock", "read", "remove", "restore", "retire", "wipe"]


@dataclass(slots=True)
class _Found:
    """An endpoint of which something is to change; its row is locked."""

    id: int
    app: int
    user: str
    binding: int
    digest: bytes
    tags: Sequence[str]
    generation: int

    @property
    def address(self) -> tuple[int, bytes, int]:
        """The values that `free_addresses` and `hold_addresses` ask for."""
        return self.binding, self.digest, self.id


@made_once
def _columns(db: Db) -> str:
    return f"e.id, e.app, e.usr, e.binding, {db.binary('e.digest')}, e.tags, e.generation"


def _found(db: Db, rows: Iterable[Any]) -> list[_Found]:
    return [
        _Found(id, app, user, binding, db.bytes_of(digest), db.list_of(tags), generation)
        for id, app, user, binding, digest, tags, generation in rows
    ]


async def _chosen(db: Db, ids: Iterable[int], condition: str, *more: Any) -> list[_Found]:
    """Those of these endpoints for which the condition holds, locked, by id; `more` are its arguments from $2 on.
    Others are not locked."""
    return _found(db, await db.rows(db.endpoints(1, condition, _columns(db)), sorted(set(ids)), *more))


# -- changes of state


async def retire(
    db: Db, pairs: Sequence[tuple[int, int]], now: float, reason: str = "registered again", at: float | None = None
) -> None:
    """The first of each pair becomes replaced by the second, to whom the caller gives its address."""
    if pairs:
        left = await _chosen(db, (old for old, _ in pairs), "e.state = 'active'")
        ends = dict.fromkeys((each.id for each in left), (now if at is None else at, reason))
        await _leave(db, left, EndpointState.REPLACED, ends)
        await _tell(db, left, EndpointState.REPLACED, now, ends, dict(pairs))


async def _leave(db: Db, left: Sequence[_Found], state: EndpointState, ends: Mapping[int, tuple[float, str]]) -> None:
    """These endpoints are active no more, and in no topic; `told`: since when and why, by id."""
    await db.untag([(each.id, each.binding, each.tags) for each in left])
    await db.many(leaving(db), [(each.id, *ends[each.id]) for each in left], state.value)


def leaving(db: Db) -> str:
    """The statement of `_leave`."""
    return (
        f"UPDATE endpoint SET state = $4, state_at = j.at, reason = j.reason FROM {db.given(1, id='bigint', at='float8', reason='text')} "
        f"WHERE {db.keyed('endpoint.id', 'j.id')}{db.part('endpoint', 'j.id & 15')}"
    )


async def _end(
    db: Db,
    left: Sequence[_Found],
    state: EndpointState,
    now: float,
    ends: Mapping[int, tuple[float, str]] | None = None,
) -> None:
    """These endpoints are active no more, and their addresses free; the log says so, except that time alone needs no
    line."""
    ends = dict.fromkeys((each.id for each in left), (now, "")) if ends is None else ends
    await _leave(db, left, state, ends)
    await db.free_addresses([each.address for each in left])
    if state is not EndpointState.EXPIRED:
        await _tell(db, left, state, now, ends)


async def _tell(
    db: Db,
    left: Sequence[_Found],
    state: EndpointState,
    now: float,
    ends: Mapping[int, tuple[float, str]],
    by: Mapping[int, int] | None = None,
) -> None:
    events = []
    for each in left:
        about = {**await _about(db, each), "reason": ends[each.id][1]}
        if by is not None:
            about["by"] = by[each.id]
        events.append((each.app, f"endpoint.{state.value}", about))
    await db.log(now, events)


async def _about(db: Db, each: _Found) -> dict[str, Any]:
    """The data of an event about an endpoint."""
    return {"endpoint": each.id, "user": each.user, "binding": await db.binding_name(each.binding)}


async def remove(db: Db, app: str, ids: Sequence[int], now: float) -> int:
    """Active and gone ones become removed; how many."""
    number = await db.app(app)
    left = await _chosen(db, ids, "e.app = $2 AND e.state IN ('active', 'gone')", number)
    await _end(db, left, EndpointState.REMOVED, now)
    if db.again and not left:
        return len(await _chosen(db, ids, "e.app = $2 AND e.state = 'removed' AND e.state_at = $3", number, now))
    return len(left)


async def restore(db: Db, app: str, ids: Sequence[int], now: float) -> int:
    """Gone, removed and expired ones become active again, where no other endpoint holds the address; how many."""
    await db.take_turns()
    free = f"e.app = $2 AND e.state IN ('gone', 'removed', 'expired') AND e.address <> '' AND {db.unheld('e')}"
    found = await _chosen(db, ids, free, await db.app(app))
    order = {id: i for i, id in enumerate(dict.fromkeys(ids))}
    first: dict[tuple[int, bytes], _Found] = {}
    for each in sorted(found, key=lambda each: order[each.id]):
        first.setdefault((each.binding, each.digest), each)
    chosen = sorted(first.values(), key=lambda each: each.id)
    if chosen:
        await db.run(
            "UPDATE endpoint SET state = 'active', state_at = NULL, reason = '', generation = generation + 1, "
            f"expires_at = CASE WHEN expires_at > $2 THEN expires_at END FROM {db.given(1, id='bigint')} "
            f"WHERE {db.keyed('endpoint.id', 'j.id')}{db.part('endpoint', 'j.id & 15')}",
            [each.id for each in chosen],
            now,
        )
        await db.hold_addresses(sorted((each.address for each in chosen), key=lambda held: held[1]))
        await db.tag([(each.id, each.binding, each.tags) for each in chosen if each.user])
        await db.log(now, [(each.app, "endpoint.restored", await _about(db, each)) for each in chosen])
    return len(chosen)


async def change(db: Db, changes: Sequence[EndpointGone | AddressMoved], now: float) -> None:
    """The verdicts of gateways about endpoints, in order, each if it is still active and of that generation."""
    gone: dict[tuple[int, int], EndpointGone] = {}
    if any(isinstance(what, AddressMoved) for what in changes):
        await lock(db, {what.endpoint for what in changes})
    for what in changes:
        if isinstance(what, EndpointGone):
            gone.setdefault((what.endpoint, what.generation), what)
        else:
            await _gone(db, gone, now)
            gone = {}
            await _moved(db, what, now)
    await _gone(db, gone, now)


async def _gone(db: Db, gone: Mapping[tuple[int, int], EndpointGone], now: float) -> None:
    if gone:
        found = await _chosen(db, (id for id, _ in gone), "e.state = 'active'")
        left = [each for each in found if (each.id, each.generation) in gone]
        ends = {each.id: (what.at, what.reason) for each in left for what in (gone[each.id, each.generation],)}
        await _end(db, left, EndpointState.GONE, now, ends)


async def _moved(db: Db, what: AddressMoved, now: float) -> None:
    address = what.address
    found = await _chosen(db, [what.endpoint], "e.state = 'active' AND e.generation = $2", what.generation)
    if not found:
        return
    mine = found[0]
    seal, place = await db.seal(), await db.place(mine.binding)
    digest = bytes.fromhex(lookup_digest(seal, place, address))
    holder = await db.value(f"SELECT e.id FROM {db.holder(1, 2)}", mine.binding, digest)
    if holder is not None and holder != mine.id:
        await db.free_addresses([mine.address])
        await retire(db, [(mine.id, holder)], now, "moved to a known address", what.at)
        return
    await db.run(
        "UPDATE endpoint SET address = $2, identity = $3, kind = $4, grp = $5, digest = $6, generation = generation + 1 "
        f"WHERE id = $1{db.part('endpoint', '$1 & 15')}",
        mine.id,
        *kept(seal, place, address),
        address.kind,
        address.group,
        digest,
    )
    if holder is None:
        await db.free_addresses([mine.address])
        await db.hold_addresses([(mine.binding, digest, mine.id)])
    await db.log(now, [(mine.app, "endpoint.moved", await _about(db, mine))])


async def expire(db: Db, now: float, limit: int) -> int:
    """Endpoints past their own time become expired; how many."""
    rows = await db.rows(
        f"SELECT {_columns(db)} FROM endpoint e WHERE e.state = 'active' AND e.expires_at IS NOT NULL AND e.expires_at <= $1 "
        f"ORDER BY e.expires_at LIMIT $2{db.hold(free=True)}",
        now,
        limit,
    )
    left = sorted(_found(db, rows), key=lambda each: each.id)
    await _end(db, left, EndpointState.EXPIRED, now)
    return len(left)


# -- erasing


async def lock(db: Db, ids: Iterable[int]) -> None:
    """Lock these by id, as every transaction does.

    A condition on columns that a change may alter would not keep the order: a row that was waited for stays locked,
    also where it no longer fits.
    """
    await db.rows(f"SELECT id FROM endpoint WHERE id {db.among(1, 'bigint')}{db.hold('id')}", sorted(ids))


async def erase(db: Db, number: int, user: str, now: float) -> int:
    """Of this user's endpoints nothing is left but their numbers, as removed; how many there were."""
    rows = await db.rows(
        f"SELECT {_columns(db)} FROM endpoint e WHERE e.app = $1 AND e.usr = $2 AND e.usr <> ''{db.part('e', '$3')}{db.hold('e.id')}",
        number,
        user,
        shard_of(user, b""),
    )
    left = _found(db, rows)
    if not left:
        return await _erased(db, number, now) if db.again else 0
    for each in left:
        each.user = ""
    await wipe(db, [each.id for each in left], now, "erased")
    await _tell(db, left, EndpointState.REMOVED, now, dict.fromkeys((each.id for each in left), (now, "erased")))
    return len(left)


async def wipe(db: Db, ids: Sequence[int], now: float, reason: str) -> None:
    """Only the numbers of these endpoints are left: they are removed, and cannot be restored."""
    for id in ids:  # of one user, and seldom: not a statement over many rows
        rows = await db.rows(
            f"SELECT {_columns(db)} FROM endpoint e WHERE e.id = $1{db.part('e', '$1 & 15')} AND length(e.digest) > 0{db.hold()}",
            id,
        )
        for each in _found(db, rows):
            await db.untag([(id, each.binding, each.tags)])
            await db.free_addresses([each.address])
            await db.run(
                "UPDATE endpoint SET usr = '', address = '', identity = '', digest = $4, tags = $5, kind = '', grp = '', "
                f"{''.join(f'{each.name} = {each.literal}, ' for each in GIVEN)}"
                f"state = 'removed', state_at = $2, reason = $3 WHERE id = $1{db.part('endpoint', '$1 & 15')}",
                id,
                now,
                reason,
                b"",
                [],
            )


async def _erased(db: Db, app: int, now: float) -> int:
    """How many the same call erased when its answer was lost."""
    return int(
        await db.value(
            "SELECT count(*) FROM endpoint WHERE app = $1 AND state <> 'active' AND state_at = $2 AND reason = 'erased'",
            app,
            now,
        )
    )


# -- reading

_SHOWN = (
    f"e.id, a.name, e.usr, b.name, e.address, e.kind, e.grp, e.identity, {', '.join(f'e.{each.name}' for each in GIVEN)}, e.tags, e.generation, "
    "e.registered_at, e.expires_at, e.state, e.state_at, e.reason"
)
_NAMED = "CROSS JOIN app a CROSS JOIN binding b WHERE a.id = e.app AND b.id = e.binding"


def _endpoint(db: Db, row: Any, seal: Seal | None) -> Endpoint:
    id, app, user, binding, value, kind, group, identity, *given, tags, generation, since, until, state, at, why = row
    return Endpoint(
        id=id,
        app=app,
        user=user,
        binding=binding,
        address=opened(seal, place_of(app, binding), value, kind, group, identity),
        tags=tuple(db.list_of(tags)),
        generation=generation,
        registered_at=since,
        expires_at=until,
        state=EndpointState(state),
        state_at=at,
        reason=why,
        **{column.name: each for column, each in zip(GIVEN, given, strict=True)},
    )


async def read(db: Db, app: str, id: int) -> Endpoint | None:
    """One endpoint in any state."""
    row = await db.row(
        f"SELECT {_SHOWN} FROM endpoint e {_NAMED} AND e.id = $1{db.part('e', '$1 & 15')} AND e.app = $2",
        id,
        await db.app(app),
    )
    return None if row is None else _endpoint(db, row, await db.seal())


async def listing(db: Db, which: EndpointFilter, after: int, limit: int) -> list[Endpoint]:
    """The endpoints that fit, by id."""
    arguments: list[Any] = [await db.app(which.app), after, limit]

    def filled(value: Any) -> int:
        arguments.append(value)
        return len(arguments)

    # All of an app is read by number: by its users it would be read whole, and sorted, for one page of it.
    where = ["app = $1" if which.user else f"{db.unindexed('app')} = $1", "id > $2"]
    where.append("usr <> ''" if which.user is None else f"usr = ${filled(which.user)}")
    if which.user:
        shard = filled(shard_of(which.user, b""))
        where.append(f"usr <> ''{db.part('endpoint', f'${shard}')}")
    if which.binding is not None:
        where.append(f"binding = ${filled(await db.binding(arguments[0], which.binding))}")
    if which.tag is not None:
        where.append(db.has("tags", filled(which.tag)))
    if which.state is not None:
        where.append(f"state = '{which.state.value}'")
    page = f"SELECT * FROM endpoint WHERE {' AND '.join(where)} ORDER BY id LIMIT $3"
    rows = await db.rows(f"SELECT {_SHOWN} FROM ({page}) e {_NAMED}", *arguments)
    seal = await db.seal()
    return sorted((_endpoint(db, row, seal) for row in rows), key=lambda endpoint: endpoint.id)
