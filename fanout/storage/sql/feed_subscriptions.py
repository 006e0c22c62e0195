"""Subscriptions: a device's endpoint together with its client's view of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fanout.core.endpoint import Endpoint, Registration
from fanout.core.feed import Subscribed, Subscription, SubscriptionRequest, crowded_out, proves
from fanout.core.records import AddressMoved
from fanout.plugin import place_of
from fanout.storage.sealing import lookup_digest
from fanout.storage.sql import endpoints
from fanout.storage.sql.db import Db, column
from fanout.storage.sql.registration import register

__all__ = ["by_unsid", "delete", "expiring", "listing", "see", "subscribe", "unsubscribe"]


_FIELDS = {
    "id": "s.id",
    "unsid": "s.unsid",
    "app": "a.name",
    "user": "s.usr",
    "device": "s.device",
    "binding": "coalesce(b.name, '')",
    "platform": "s.platform",
    "receive": "s.receive",
    "created_at": "s.created_at",
    "renewed_at": "s.renewed_at",
    "expires_at": "s.expires_at",
    "endpoint": "s.endpoint",
    "endpoint_state": "coalesce(e.state, '')",
}
"""Those of a `Subscription`, and where each stands."""


async def _subscriptions(db: Db, rest: str, *arguments: Any) -> list[Subscription]:
    rows = await db.rows(
        f"SELECT {', '.join(_FIELDS.values())} FROM subscription s JOIN app a ON a.id = s.app "
        f"LEFT JOIN endpoint e ON e.id = s.endpoint{db.part('e', 's.endpoint & 15')} LEFT JOIN binding b ON b.id = e.binding {rest}",
        *arguments,
    )
    return [Subscription(**dict(zip(_FIELDS, row, strict=True))) for row in rows]


async def listing(db: Db, app: str, user: str) -> list[Subscription]:
    """A user's, by id."""
    return await _subscriptions(db, "WHERE s.app = $1 AND s.usr = $2 ORDER BY s.id", await db.app(app), user)


async def by_unsid(db: Db, app: str, unsid: str) -> Subscription | None:
    """The one of that UNSID."""
    found = await _subscriptions(db, "WHERE s.unsid = $1 AND s.app = $2", unsid, await db.app(app))
    return found[0] if found else None


async def expiring(db: Db, app: str, after: float, until: float, limit: int) -> list[Subscription]:
    """Subscriptions that end in (after, until], soonest first."""
    return await _subscriptions(
        db,
        "WHERE s.app = $1 AND s.expires_at > $2 AND s.expires_at <= $3 ORDER BY s.expires_at, s.id LIMIT $4",
        await db.app(app),
        after,
        until,
        limit,
    )


async def subscribe(db: Db, wanted: SubscriptionRequest, now: float) -> Subscribed:
    """Enter or renew, and end the subscriptions that it replaces."""
    app = await db.app(wanted.app, create=True)
    left = await db.rows(
        f"SELECT id, endpoint FROM subscription WHERE unsid = $1 AND app = $2 AND usr <> $3{db.hold()}",
        wanted.former,
        app,
        wanted.user,
    )
    holder = await _holder(db, wanted)
    if holder is not None and not _may_take(holder, wanted, [row[1] for row in left]):
        return Subscribed.refusal(wanted, now)
    ended = [row[0] for row in left]
    if ended:
        await end(db, wanted.app, ended, now)
    row = await db.row(
        f"SELECT id, endpoint, unsid FROM subscription WHERE app = $1 AND device = $2 AND usr = $3{db.hold()}",
        app,
        wanted.device,
        wanted.user,
    )
    id, former, unsid = row if row is not None else (0, 0, "")
    renewed = bool(id)
    if db.again and unsid == wanted.unsid:
        renewed = False  # an earlier run made it, and its answer was lost
    endpoint = await _endpoint(db, wanted, former, now)
    if former and former != endpoint:
        await endpoints.remove(db, wanted.app, [former], now)
    if endpoint:
        await db.run(
            f"UPDATE endpoint SET receive = $1 WHERE id = $2{db.part('endpoint', 'CAST($2 AS bigint) & 15')}",
            wanted.receive,
            endpoint,
        )
        ended += await _displaced(db, endpoint, id)
    values = (wanted.platform, wanted.receive, endpoint, now, wanted.expires_at)
    if id:
        await db.run(
            "UPDATE subscription SET platform = $1, receive = $2, endpoint = $3, renewed_at = $4, expires_at = $5 WHERE id = $6",
            *values,
            id,
        )
    else:
        # Two of one device at once meet at the key, and the later is run again.
        id = await db.value(
            "INSERT INTO subscription (platform, receive, endpoint, renewed_at, expires_at, created_at, app, usr, device, unsid) "
            "VALUES ($1, $2, $3, $4, $5, $4, $6, $7, $8, $9) RETURNING id",
            *values,
            app,
            wanted.user,
            wanted.device,
            wanted.unsid,
        )
        if wanted.most:
            ended += await _crowd_out(db, wanted, app, id, now)
    (subscription,) = await _subscriptions(db, "WHERE s.id = $1", id)
    return Subscribed(subscription=subscription, renewed=renewed, ended=tuple(sorted(ended)))


async def _crowd_out(db: Db, wanted: SubscriptionRequest, app: int, mine: int, now: float) -> list[int]:
    """End those of the user's subscriptions that are too many, and say which they were."""
    found = await db.rows(
        f"SELECT id, device FROM subscription WHERE app = $1 AND usr = $2 AND id <> $3 ORDER BY renewed_at DESC, id DESC{db.hold()}",
        app,
        wanted.user,
        mine,
    )
    found = found[wanted.most - 1 :]
    ids = [row[0] for row in found]
    if ids:
        await end(db, wanted.app, ids, now)
        await db.log(now, [(app, *crowded_out(row[0], wanted.user, row[1])) for row in found])
    return ids


async def _address(db: Db, app: str, new: Registration) -> tuple[int, bytes]:
    """The binding's number and the digest by which the directory finds the address."""
    digest = lookup_digest(await db.seal(), place_of(app, new.binding), new.address)
    return await db.binding(await db.app(app), new.binding), bytes.fromhex(digest)


async def _holder(db: Db, wanted: SubscriptionRequest) -> Endpoint | None:
    """The active endpoint of another user that has the address."""
    new = wanted.registration
    if new is None:
        return None
    id = await db.value(
        f"SELECT e.id FROM {db.holder(1, 2)} WHERE e.usr <> $3 AND e.usr <> ''",
        *await _address(db, wanted.app, new),
        wanted.user,
    )
    return None if id is None else await endpoints.read(db, wanted.app, id)


def _may_take(holder: Endpoint, wanted: SubscriptionRequest, left: Sequence[int]) -> bool:
    assert wanted.registration is not None
    return holder.id in left or proves(holder.address, wanted.registration.address)


async def _endpoint(db: Db, wanted: SubscriptionRequest, former: int, now: float) -> int:
    """The endpoint of the device's address: the former one where it can go on. 0 for a device that only polls."""
    new = wanted.registration
    if new is None:
        return 0
    old = await endpoints.read(db, wanted.app, former) if former else None
    tags = list(old.tags) if old is not None else []
    if old is not None and _moves(old, new):
        await endpoints.change(db, [AddressMoved(former, old.generation, now, new.address)], now)
    # The host may have put the address into topics, by registering it itself.
    mine = f"SELECT e.tags FROM {db.holder(1, 2)} WHERE e.usr = $3"
    endpoint = await db.value(mine, *await _address(db, wanted.app, new), wanted.user)
    kept = tuple(dict.fromkeys([*new.tags, *tags, *(() if endpoint is None else db.list_of(endpoint))]))
    registration = replace(
        new,
        app=wanted.app,
        user=wanted.user,
        platform=wanted.platform,
        tags=kept,
        expires_at=wanted.expires_at,
    )
    return (await register(db, [registration], now))[0].id


def _moves(old: Endpoint, new: Registration) -> bool:
    return old.state == "active" and old.binding == new.binding and old.address.digest != new.address.digest


async def _displaced(db: Db, endpoint: int, mine: int) -> list[int]:
    """End the other subscriptions of the endpoint's address, and say which they were."""
    place = await db.row(
        f"SELECT binding, digest FROM endpoint WHERE id = $1{db.part('endpoint', 'CAST($1 AS bigint) & 15')}", endpoint
    )
    former = await column(db, f"SELECT e.id FROM {db.holder(1, 2, former=True)} WHERE e.state = 'replaced'", *place)
    ids = await column(
        db,
        f"SELECT id FROM subscription WHERE id <> $1 AND endpoint > 0 AND endpoint {db.among(2, 'bigint')}{db.hold('id')}",
        mine,
        [endpoint, *former],
    )
    await delete(db, ids)
    return ids


async def end(db: Db, app: str, ids: Sequence[int], now: float) -> None:
    """These subscriptions, which are locked, end with their endpoints."""
    which = f"endpoint > 0 AND id {db.among(1, 'bigint')}"
    left = await column(db, f"SELECT endpoint FROM subscription WHERE {which}", list(ids))
    await endpoints.remove(db, app, left, now)
    await delete(db, ids)


async def delete(db: Db, ids: Sequence[int]) -> None:
    """These subscriptions are gone, and the record of their reads with them."""
    if ids:
        await db.run(f"DELETE FROM subscription WHERE id {db.among(1, 'bigint')}", list(ids))
        await db.run(f"DELETE FROM feed_seen WHERE subscription {db.among(1, 'bigint')}", list(ids))


async def unsubscribe(db: Db, app: str, user: str, id: int, now: float) -> bool:
    """End one; False where the user has no such."""
    endpoint = await db.value(
        f"SELECT id FROM subscription WHERE id = $1 AND app = $2 AND usr = $3{db.hold()}", id, await db.app(app), user
    )
    if endpoint is None:
        return db.again  # then an earlier run ended it: the caller asks again because that answer was lost
    await end(db, app, [id], now)
    return True


async def see(db: Db, app: str, user: str, unsid: str, items: Sequence[str], now: float) -> None:
    """The device has these items."""
    number = await db.app(app)
    item = db.joined(1, "feed_item i", app="int", usr="text", uuid="text")
    await db.many(
        "WITH s AS MATERIALIZED (SELECT id, app, usr FROM subscription WHERE unsid = $4) "
        f"INSERT INTO feed_seen (item, subscription) SELECT i.id, s.id FROM s CROSS JOIN {item} "
        "WHERE i.fallback_at > $5 AND s.app = $6 AND s.usr = $7 ORDER BY 1, 2 ON CONFLICT DO NOTHING",
        [(number, user, id) for id in items],
        unsid,
        now,
        number,
        user,
    )
