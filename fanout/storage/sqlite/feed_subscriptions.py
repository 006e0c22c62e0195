"""Subscriptions: a device's endpoint together with what its client sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fanout.core.feed import Subscribed, Subscription, SubscriptionRequest, crowded_out, proves
from fanout.core.model import Endpoint, Registration
from fanout.core.records import AddressMoved
from fanout.plugin import place_of
from fanout.storage.feed_subscriptions import subscription
from fanout.storage.sealing import lookup_digest
from fanout.storage.sql import endpoints
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.registration import register
from fanout.storage.sqlite.session import shared

__all__ = ["by_unsid", "expiring", "listing", "see", "subscribe", "unsubscribe"]

_COLUMNS = (
    "s.id, s.unsid, a.name, s.usr, s.device, coalesce(b.name, ''), s.platform, s.receive, s.created_at, s.renewed_at, "
    "s.expires_at, s.endpoint, coalesce(e.state, '')"
)
_JOINED = (
    "subscription s CROSS JOIN app a ON a.id = s.app LEFT JOIN endpoint e ON e.id = s.endpoint "
    "LEFT JOIN binding b ON b.id = e.binding"
)


def _subscriptions(db: Db, rest: str, *arguments: Any) -> list[Subscription]:
    rows = db.rows(_COLUMNS, f"{_JOINED} {rest}", *arguments)
    return list(map(subscription, rows))


def listing(db: Db, app: str, user: str) -> list[Subscription]:
    """A user's, by id."""
    found = _subscriptions(db, "WHERE s.app = ? AND s.usr = ?", db.app(app), user)
    return sorted(found, key=lambda each: each.id)


def by_unsid(db: Db, app: str, unsid: str) -> Subscription | None:
    """The one of that UNSID."""
    found = _subscriptions(db, "WHERE s.unsid = ? AND s.app = ?", unsid, db.app(app))
    return found[0] if found else None


def expiring(db: Db, app: str, after: float, until: float, limit: int) -> list[Subscription]:
    """Those that end in (after, until], soonest first."""
    ids = db.json(
        "SELECT json_group_array(id) FROM (SELECT id FROM subscription WHERE app = ? AND expires_at > ? AND expires_at <= ? "
        "ORDER BY expires_at, id LIMIT ?)",
        db.app(app),
        after,
        until,
        limit,
    )
    found = _subscriptions(db, "WHERE s.id IN (SELECT value FROM json_each(?))", dumps(ids))
    return sorted(found, key=lambda each: (each.expires_at, each.id))


def subscribe(db: Db, wanted: SubscriptionRequest, now: float) -> Subscribed:
    """Enter or renew, and end what it takes the place of."""
    app = db.app(wanted.app, create=True)
    left = db.rows(
        "id, endpoint",
        "subscription WHERE unsid = ? AND app = ? AND usr <> ?",
        wanted.former,
        app,
        wanted.user,
    )
    holder = _holder(db, wanted)
    if holder is not None and not _may_take(holder, wanted, [endpoint for _, endpoint in left]):
        return Subscribed.refusal(wanted, now)
    ended = [id for id, _ in left]
    end(db, wanted.app, ended, now)
    rows = db.rows(
        "id, endpoint", "subscription WHERE app = ? AND device = ? AND usr = ?", app, wanted.device, wanted.user
    )
    id, former = rows[0] if rows else (0, 0)
    endpoint = _endpoint(db, wanted, former, now)
    if former and former != endpoint:
        shared(db, endpoints.remove, wanted.app, [former], now)
    if endpoint:
        db.run("UPDATE endpoint SET receive = ? WHERE id = ?", wanted.receive, endpoint)
        ended += _displaced(db, wanted.app, endpoint, id)
    values = (wanted.platform, wanted.receive, endpoint, now, wanted.expires_at)
    if id:
        db.run(
            "UPDATE subscription SET platform = ?, receive = ?, endpoint = ?, renewed_at = ?, expires_at = ? WHERE id = ?",
            *values,
            id,
        )
    else:
        db.run(
            "INSERT INTO subscription (platform, receive, endpoint, renewed_at, expires_at, created_at, app, usr, device, unsid) "
            "VALUES (?1, ?2, ?3, ?4, ?5, ?4, ?6, ?7, ?8, ?9)",
            *values,
            app,
            wanted.user,
            wanted.device,
            wanted.unsid,
        )
    made = id or db.connection.last_insert_rowid()
    if wanted.most and not id:
        ended += _crowd_out(db, wanted, app, made, now)
    (subscription,) = _subscriptions(db, "WHERE s.id = ?", made)
    return Subscribed(subscription=subscription, renewed=bool(id), ended=tuple(sorted(ended)))


def _crowd_out(db: Db, wanted: SubscriptionRequest, app: int, mine: int, now: float) -> list[int]:
    """End those of the user's subscriptions that are too many, and say which they were."""
    found = db.json(
        "SELECT json_group_array(json_array(id, device)) FROM (SELECT id, device FROM subscription WHERE app = ? AND usr = ? AND id <> ? "
        "ORDER BY renewed_at DESC, id DESC LIMIT -1 OFFSET ?)",
        app,
        wanted.user,
        mine,
        wanted.most - 1,
    )
    ids = [id for id, _ in found]
    if ids:
        end(db, wanted.app, ids, now)
        db.log(now, [(app, *crowded_out(id, wanted.user, device)) for id, device in found])
    return ids


def _holder(db: Db, wanted: SubscriptionRequest) -> Endpoint | None:
    """The active endpoint of another user that has the address."""
    new = wanted.registration
    if new is None:
        return None
    rows = db.rows(
        "e.id",
        "endpoint e WHERE e.binding = ? AND e.digest = unhex(?) AND e.state = 'active' AND e.usr NOT IN ('', ?)",
        db.binding(db.app(wanted.app), new.binding),
        lookup_digest(db.seal(), place_of(wanted.app, new.binding), new.address),
        wanted.user,
    )
    return shared(db, endpoints.read, wanted.app, rows[0][0]) if rows else None


def _may_take(holder: Endpoint, wanted: SubscriptionRequest, left: Sequence[int]) -> bool:
    assert wanted.registration is not None
    return holder.id in left or proves(holder.address, wanted.registration.address)


def _endpoint(db: Db, wanted: SubscriptionRequest, former: int, now: float) -> int:
    """The endpoint of the device's address: the former one where it can go on. 0 for a device that only polls."""
    new = wanted.registration
    if new is None:
        return 0
    old = shared(db, endpoints.read, wanted.app, former) if former else None
    tags = list(old.tags) if old is not None else []
    if old is not None and _moves(old, new):
        shared(db, endpoints.change, [AddressMoved(former, old.generation, now, new.address)], now)
    # The host may have put the address into topics, by registering it itself.
    rows = db.rows(
        "json(e.tags)",
        "endpoint e WHERE e.binding = ? AND e.digest = unhex(?) AND e.state = 'active' AND e.usr = ?",
        db.binding(db.app(wanted.app), new.binding),
        lookup_digest(db.seal(), place_of(wanted.app, new.binding), new.address),
        wanted.user,
    )
    for row in rows:
        tags += row[0]
    kept = tuple(dict.fromkeys([*new.tags, *tags]))
    registration = replace(
        new,
        app=wanted.app,
        user=wanted.user,
        platform=wanted.platform,
        tags=kept,
        expires_at=wanted.expires_at,
    )
    return register(db, [registration], now)[0].id


def _moves(old: Endpoint, new: Registration) -> bool:
    return old.state == "active" and old.binding == new.binding and old.address.digest != new.address.digest


def _displaced(db: Db, app: str, endpoint: int, mine: int) -> list[int]:
    """End the other subscriptions of the endpoint's address, and say which they were."""
    ids: list[int] = db.json(
        "SELECT json_group_array(s.id) FROM subscription s WHERE s.id <> ?1 AND s.endpoint > 0 AND s.endpoint IN (SELECT ?2 "
        "UNION ALL SELECT f.id FROM endpoint e CROSS JOIN endpoint f ON f.binding = e.binding AND f.digest = e.digest "
        "WHERE e.id = ?2 AND f.state <> 'active' AND f.state = 'replaced')",
        mine,
        endpoint,
    )
    _delete(db, ids)
    return ids


def end(db: Db, app: str, ids: Sequence[int], now: float) -> None:
    """These subscriptions end, with their endpoints."""
    if not ids:
        return
    held = db.json(
        "SELECT json_group_array(endpoint) FROM subscription WHERE endpoint > 0 AND id IN (SELECT value FROM json_each(?))",
        dumps(list(ids)),
    )
    shared(db, endpoints.remove, app, held, now)
    _delete(db, ids)


def _delete(db: Db, ids: Sequence[int]) -> None:
    if ids:
        chosen = dumps(list(ids))
        db.run("DELETE FROM subscription WHERE id IN (SELECT value FROM json_each(?))", chosen)
        db.run("DELETE FROM feed_seen WHERE subscription IN (SELECT value FROM json_each(?))", chosen)


def unsubscribe(db: Db, app: str, user: str, id: int, now: float) -> bool:
    """End one; False where the user has no such."""
    if not db.value("SELECT 1 FROM subscription WHERE id = ? AND app = ? AND usr = ?", id, db.app(app), user):
        return False
    end(db, app, [id], now)
    return True


def see(db: Db, app: str, user: str, unsid: str, items: Sequence[str], now: float) -> None:
    """The device has these items."""
    db.run(
        "INSERT OR IGNORE INTO feed_seen (item, subscription) SELECT i.id, s.id FROM json_each(?1) j "
        "CROSS JOIN feed_item i ON i.app = ?2 AND i.usr = ?3 AND i.uuid = j.value CROSS JOIN subscription s ON s.unsid = ?4 "
        "WHERE i.fallback_at > ?5 AND s.app = ?2 AND s.usr = ?3",
        dumps(list(items)),
        db.app(app),
        user,
        unsid,
        now,
    )
