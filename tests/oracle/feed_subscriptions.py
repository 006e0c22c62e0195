"""Subscriptions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fanout.core.endpoint import EndpointState
from fanout.core.feed import Subscribed, Subscription, SubscriptionRequest, crowded_out, proves
from fanout.core.records import AddressMoved
from tests.oracle import directory
from tests.oracle.tables import Tables, log

__all__ = ["by_unsid", "drop", "expiring", "listing", "see", "subscribe", "unsubscribe"]


def _shown(t: Tables, held: Subscription) -> Subscription:
    endpoint = t.directory.endpoints.get(held.endpoint)
    if endpoint is None:
        return held
    return replace(held, binding=endpoint.binding, endpoint_state=endpoint.state.value)


def listing(t: Tables, app: str, user: str) -> list[Subscription]:
    """A user's, by id."""
    return [_shown(t, each) for each in t.feed.subscriptions.values() if (each.app, each.user) == (app, user)]


def by_unsid(t: Tables, app: str, unsid: str) -> Subscription | None:
    """The one of that UNSID."""
    for each in t.feed.subscriptions.values():
        if (each.app, each.unsid) == (app, unsid):
            return _shown(t, each)
    return None


def expiring(t: Tables, app: str, after: float, until: float, limit: int) -> list[Subscription]:
    """Those that end in (after, until], soonest first."""
    found = [each for each in t.feed.subscriptions.values() if each.app == app and after < each.expires_at <= until]
    return [_shown(t, each) for each in sorted(found, key=lambda each: (each.expires_at, each.id))[:limit]]


def subscribe(t: Tables, wanted: SubscriptionRequest, now: float) -> Subscribed:
    """Enter or renew, and end what it takes the place of."""
    left = [
        s
        for s in t.feed.subscriptions.values()
        if (s.app, s.unsid) == (wanted.app, wanted.former) and s.user != wanted.user
    ]
    new = wanted.registration
    if new is not None:
        holder = t.directory.endpoints.get(t.directory.active.get((wanted.app, new.binding, new.address.digest), 0))
        another = holder is not None and holder.user not in ("", wanted.user)
        if (
            holder is not None
            and another
            and holder.id not in [s.endpoint for s in left]
            and not proves(holder.address, new.address)
        ):
            return Subscribed.refusal(wanted, now)
    ended = [s.id for s in left]
    end(t, ended, now)
    held = next(
        (
            s
            for s in t.feed.subscriptions.values()
            if (s.app, s.user, s.device) == (wanted.app, wanted.user, wanted.device)
        ),
        None,
    )
    former = held.endpoint if held is not None else 0
    endpoint = _endpoint(t, wanted, former, now)
    if former and former != endpoint:
        directory.remove(t, wanted.app, [former], now)
    if endpoint:
        t.feed.receive[endpoint] = wanted.receive
        others = _displaced(t, endpoint, held.id if held is not None else 0)
        drop(t, others)
        ended += others
    if held is None:
        t.feed.last_subscription += 1
    made = Subscription(
        id=held.id if held is not None else t.feed.last_subscription,
        unsid=held.unsid if held is not None else wanted.unsid,
        app=wanted.app,
        user=wanted.user,
        device=wanted.device,
        binding="",
        platform=wanted.platform,
        receive=wanted.receive,
        created_at=held.created_at if held is not None else now,
        renewed_at=now,
        expires_at=wanted.expires_at,
        endpoint=endpoint,
    )
    t.feed.subscriptions[made.id] = made
    if wanted.most and held is None:
        hers = [
            s for s in t.feed.subscriptions.values() if (s.app, s.user) == (made.app, made.user) and s.id != made.id
        ]
        for extra in sorted(hers, key=lambda s: (-s.renewed_at, -s.id))[wanted.most - 1 :]:
            end(t, [extra.id], now)
            log(t, now, extra.app, *crowded_out(extra.id, extra.user, extra.device))
            ended.append(extra.id)
    return Subscribed(subscription=_shown(t, made), renewed=held is not None, ended=tuple(sorted(ended)))


def _endpoint(t: Tables, wanted: SubscriptionRequest, former: int, now: float) -> int:
    new = wanted.registration
    if new is None:
        return 0
    d = t.directory
    old = d.endpoints.get(former)
    tags = list(old.tags) if old is not None else []
    if (
        old is not None
        and old.state is EndpointState.ACTIVE
        and old.binding == new.binding
        and old.address.digest != new.address.digest
    ):
        directory.change(t, AddressMoved(former, old.generation, now, new.address), now)
    holder = d.endpoints.get(d.active.get((wanted.app, new.binding, new.address.digest), 0))
    if holder is not None and holder.user == wanted.user:
        tags += holder.tags
    registration = replace(
        new,
        app=wanted.app,
        user=wanted.user,
        platform=wanted.platform,
        tags=tuple(dict.fromkeys([*new.tags, *tags])),
        expires_at=wanted.expires_at,
    )
    return directory.register(t, [registration], now)[0].id


def _displaced(t: Tables, endpoint: int, mine: int) -> list[int]:
    """The other subscriptions of the endpoint's address."""
    endpoints = t.directory.endpoints
    here = endpoints[endpoint]
    found = []
    for each in t.feed.subscriptions.values():
        other = endpoints.get(each.endpoint)
        if each.id == mine or other is None:
            continue
        same = (other.app, other.binding, other.address.digest) == (here.app, here.binding, here.address.digest)
        if same and (other.id == endpoint or other.state is EndpointState.REPLACED):
            found.append(each.id)
    return found


def end(t: Tables, ids: Sequence[int], now: float) -> None:
    """These subscriptions end, with their endpoints."""
    for id in ids:
        held = t.feed.subscriptions[id]
        if held.endpoint:
            directory.remove(t, held.app, [held.endpoint], now)
    drop(t, ids)


def drop(t: Tables, ids: Collection[int]) -> None:
    """These subscriptions are forgotten."""
    for id in ids:
        del t.feed.subscriptions[id]
    for entry in t.feed.items.values():
        entry.seen.difference_update(ids)


def unsubscribe(t: Tables, app: str, user: str, id: int, now: float) -> bool:
    """End one; False where the user has no such."""
    held = t.feed.subscriptions.get(id)
    if held is None or (held.app, held.user) != (app, user):
        return False
    end(t, [id], now)
    return True


def see(t: Tables, app: str, user: str, unsid: str, items: Sequence[str], now: float) -> None:
    """The device has these items."""
    held = by_unsid(t, app, unsid)
    if held is None or held.user != user:
        return
    for entry in t.feed.items.values():
        until = entry.item.fallback_at
        if (entry.app, entry.user) == (app, user) and entry.item.id in items and until is not None and until > now:
            entry.seen.add(held.id)
