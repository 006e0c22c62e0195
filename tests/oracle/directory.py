"""The directory: registration, interning, and what becomes of an endpoint afterwards."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fanout.core.address import Address
from fanout.core.columns import DEFAULTS, shown
from fanout.core.endpoint import Endpoint, EndpointState, Registration
from fanout.core.model import Target
from fanout.core.records import AddressMoved, EndpointFilter, EndpointGone
from fanout.storage.erasing import SHADOW
from tests.oracle.tables import Tables, log

__all__ = [
    "audience",
    "change",
    "count",
    "covers",
    "erase",
    "expire",
    "intern",
    "listing",
    "mark",
    "register",
    "remove",
    "restore",
    "wipe",
]

_ACTIVE = EndpointState.ACTIVE


def register(t: Tables, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
    """Enter each, in order."""
    return [_register(t, registration, now) for registration in registrations]


def _register(t: Tables, new: Registration, now: float) -> Endpoint:
    d = t.directory
    place = (new.app, new.binding, new.address.digest)
    holder = d.endpoints[d.active[place]] if place in d.active else None
    if holder is not None and holder.user == new.user:
        known: Endpoint | None = holder
    else:
        known = d.endpoints.get(max(d.known.get((*place, new.user)) or (0,)))
    endpoint = Endpoint(
        id=known.id if known else d.last_id + 1,
        app=new.app,
        user=new.user,
        binding=new.binding,
        address=new.address,
        tags=tuple(dict.fromkeys(new.tags)),
        generation=known.generation + 1 if known else 1,
        registered_at=now,
        expires_at=new.expires_at,
        **shown(new),
    )
    if holder is not None and holder.id != endpoint.id:
        mark(t, holder, EndpointState.REPLACED, now, "registered again", by=endpoint.id)
    _enter(t, endpoint)
    return endpoint


def _enter(t: Tables, endpoint: Endpoint) -> None:
    """Make it the active endpoint of its address."""
    d = t.directory
    place = (endpoint.app, endpoint.binding, endpoint.address.digest)
    if endpoint.id not in d.endpoints:
        d.last_id = endpoint.id
        d.users.setdefault((endpoint.app, endpoint.user), []).append(endpoint.id)
        d.audiences.setdefault((endpoint.app, endpoint.binding), []).append(endpoint.id)
    d.endpoints[endpoint.id] = endpoint
    d.active[place] = endpoint.id
    d.known.setdefault((*place, endpoint.user), set()).add(endpoint.id)


def intern(t: Tables, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
    """Ids for addresses; each that nobody holds becomes an endpoint without a user."""
    d = t.directory
    ids = []
    for address in addresses:
        id = d.active.get((app, binding, address.digest))
        if id is None:
            id = _register(t, Registration(user="", app=app, binding=binding, address=address), now).id
        ids.append(id)
    return ids


def mark(
    t: Tables,
    endpoint: Endpoint,
    state: EndpointState,
    now: float,
    reason: str = "",
    *,
    at: float | None = None,
    by: int | None = None,
) -> None:
    """It is active no more (or, being gone, is removed); the log says so, except that time alone needs no line."""
    d = t.directory
    place = (endpoint.app, endpoint.binding, endpoint.address.digest)
    if d.active.get(place) == endpoint.id:
        del d.active[place]
    d.endpoints[endpoint.id] = replace(endpoint, state=state, state_at=now if at is None else at, reason=reason)
    if state is not EndpointState.EXPIRED:
        more = {"by": by} if by is not None else {}
        log(t, now, endpoint.app, f"endpoint.{state.value}", _about(endpoint) | {"reason": reason} | more)


def remove(t: Tables, app: str, ids: Sequence[int], now: float) -> int:
    """Active and gone ones become removed; how many."""
    done = 0
    for id in dict.fromkeys(ids):
        endpoint = t.directory.endpoints.get(id)
        if endpoint and endpoint.app == app and endpoint.state in (_ACTIVE, EndpointState.GONE):
            mark(t, endpoint, EndpointState.REMOVED, now)
            done += 1
    return done


def erase(t: Tables, app: str, user: str, now: float) -> int:
    """Nothing of a user is left but ids without an owner; how many."""
    d = t.directory
    ids = d.users.pop((app, user), []) if user else []
    for id in ids:
        endpoint = d.endpoints[id]
        place = (app, endpoint.binding, endpoint.address.digest)
        if d.active.get(place) == id:
            del d.active[place]
        d.known[(*place, user)].discard(id)
        insort(d.users.setdefault((app, ""), []), id)
        bare = replace(endpoint, user="", address=Address(""), tags=(), **DEFAULTS)
        d.endpoints[id] = bare
        mark(t, bare, EndpointState.REMOVED, now, "erased")
    return len(ids)


def wipe(t: Tables, id: int, now: float) -> None:
    """Nothing of it is left but its number."""
    d, endpoint = t.directory, t.directory.endpoints[id]
    place = (endpoint.app, endpoint.binding, endpoint.address.digest)
    if d.active.get(place) == id:
        del d.active[place]
    d.known.get((*place, endpoint.user), set()).discard(id)
    if endpoint.user:
        d.users[endpoint.app, endpoint.user].remove(id)
        insort(d.users.setdefault((endpoint.app, ""), []), id)
    d.endpoints[id] = replace(
        endpoint,
        user="",
        address=Address(""),
        tags=(),
        **DEFAULTS,
        state=EndpointState.REMOVED,
        state_at=now,
        reason=SHADOW,
    )


def restore(t: Tables, app: str, ids: Sequence[int], now: float) -> int:
    """Gone, removed and expired ones become active again, where nobody else holds the address; how many."""
    done = 0
    for id in dict.fromkeys(ids):
        endpoint = t.directory.endpoints.get(id)
        if endpoint is None or endpoint.app != app or endpoint.state in (_ACTIVE, EndpointState.REPLACED):
            continue
        if not endpoint.address.value:
            continue  # erased
        if (app, endpoint.binding, endpoint.address.digest) in t.directory.active:
            continue
        until = endpoint.expires_at if endpoint.expires_at is not None and endpoint.expires_at > now else None
        generation = endpoint.generation + 1
        _enter(t, replace(endpoint, state=_ACTIVE, state_at=None, reason="", generation=generation, expires_at=until))
        log(t, now, app, "endpoint.restored", _about(endpoint))
        done += 1
    return done


def change(t: Tables, what: EndpointGone | AddressMoved, now: float) -> None:
    """What a gateway said of an endpoint, if it is still active and of that generation."""
    d = t.directory
    endpoint = d.endpoints.get(what.endpoint)
    if endpoint is None or endpoint.state is not _ACTIVE or endpoint.generation != what.generation:
        return
    if isinstance(what, EndpointGone):
        mark(t, endpoint, EndpointState.GONE, now, what.reason, at=what.at)
        return
    holder = d.active.get((endpoint.app, endpoint.binding, what.address.digest))
    if holder is not None and holder != endpoint.id:
        mark(t, endpoint, EndpointState.REPLACED, now, "moved to a known address", at=what.at, by=holder)
        return
    place = (endpoint.app, endpoint.binding, endpoint.address.digest)
    del d.active[place]
    d.known[(*place, endpoint.user)].discard(endpoint.id)
    _enter(t, replace(endpoint, address=what.address, generation=endpoint.generation + 1))
    log(t, now, endpoint.app, "endpoint.moved", _about(endpoint))


def expire(t: Tables, now: float, limit: int) -> int:
    """Endpoints past their own time become expired; how many."""
    endpoints = t.directory.endpoints
    due = [
        (until, id)
        for id in t.directory.active.values()
        if (until := endpoints[id].expires_at) is not None and until <= now
    ]
    for _, id in sorted(due)[:limit]:
        mark(t, endpoints[id], EndpointState.EXPIRED, now)
    return len(due[:limit])


def listing(t: Tables, which: EndpointFilter, after: int, limit: int) -> list[Endpoint]:
    """The endpoints that fit, by id."""
    found: list[Endpoint] = []
    for endpoint in _candidates(t, which, after):
        if len(found) >= limit:
            break
        if (
            (which.user is not None or endpoint.user)
            and (which.binding is None or endpoint.binding == which.binding)
            and (which.tag is None or which.tag in endpoint.tags)
            and (which.state is None or endpoint.state is which.state)
        ):
            found.append(endpoint)
    return found


def _candidates(t: Tables, which: EndpointFilter, after: int) -> Iterator[Endpoint]:
    d = t.directory
    if which.user is not None:
        ids = d.users.get((which.app, which.user), [])
        ids = ids[bisect_right(ids, after) :]
        return (d.endpoints[id] for id in ids if id in d.endpoints)
    return (each for id, each in d.endpoints.items() if id > after and each.app == which.app)


def audience(t: Tables, app: str, target: Target) -> dict[str, list[int]]:
    """The active endpoints that a target names now, by binding, ids ascending. Addresses are found where they are
    known."""
    d = t.directory
    ids: set[int] = set()
    if target.kind in ("user", "users"):
        ids.update(id for user in target.names for id in d.users.get((app, user), ()))
    elif target.kind == "endpoints":
        ids.update(target.ids)
    elif target.kind == "addresses":
        places = [(app, target.binding, address.digest) for address in target.addresses]
        ids.update(d.active[place] for place in places if place in d.active)
    else:
        tag = target.names[0] if target.kind == "topic" else None
        for owner, binding in d.audiences:
            if owner == app:
                ids.update(each.id for each in t.open_endpoints(app, binding) if tag is None or tag in each.tags)
    found: dict[str, list[int]] = {}
    for id in sorted(ids):
        endpoint = d.endpoints.get(id)
        if endpoint is not None and endpoint.app == app and endpoint.state is _ACTIVE:
            found.setdefault(endpoint.binding, []).append(id)
    return found


def covers(target: Target, endpoint: Endpoint) -> bool:
    """Whether the target names this endpoint, as that stands now."""
    match target.kind:
        case "user" | "users":
            return endpoint.user in target.names
        case "endpoints":
            return endpoint.id in target.ids
        case "topic":
            return bool(endpoint.user) and target.names[0] in endpoint.tags
        case _:
            return bool(endpoint.user)


def count(t: Tables, app: str, target: Target) -> dict[str, int]:
    """How many active endpoints the target names, by binding."""
    return {binding: len(ids) for binding, ids in audience(t, app, target).items()}


def _about(endpoint: Endpoint) -> dict[str, object]:
    return {"endpoint": endpoint.id, "user": endpoint.user, "binding": endpoint.binding}
