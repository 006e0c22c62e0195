"""Registering and interning: addresses enter the directory, thousands at a time.

An import is the one place where the work per row matters in Python too: hence parallel lists, and no object per row but the
endpoint that is returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.address import Address
from fanout.core.columns import GIVEN, given, shown
from fanout.core.model import Endpoint, Registration
from fanout.plugin import place_of
from fanout.storage.sealing import kept, lookup_digest
from fanout.storage.sql.endpoints import retire
from fanout.storage.sqlite.db import Db, dumps
from fanout.storage.sqlite.session import shared
from fanout.storage.sqlite.topics import tag, untag

__all__ = ["intern", "register"]

_Place = tuple[int, int, str]
"""(app's number, binding's number, address digest)."""

_Known = tuple[int, str, int]
"""(id, user, generation) of an endpoint that has, or had, an address."""


def register(db: Db, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
    """Enter each, in order, and return the endpoints in the same order."""
    places = _places(db, registrations)
    if len({place[1:] for place in places}) == len(places):
        return _enter(db, registrations, places, now)
    # Where an address occurs twice, a new run begins, so that each registration finds what the one before it left.
    endpoints: list[Endpoint] = []
    start = 0
    run: set[tuple[int, str]] = set()
    for i, place in enumerate([*places, None]):
        if place is None or place[1:] in run:
            endpoints += _enter(db, registrations[start:i], places[start:i], now)
            start, run = i, set()
        if place is not None:
            run.add(place[1:])
    return endpoints


def _places(db: Db, registrations: Sequence[Registration]) -> list[_Place]:
    seal = db.seal()
    numbers: dict[tuple[str, str], tuple[int, int, bytes]] = {}
    places = []
    for new in registrations:
        name = (new.app, new.binding)
        if name not in numbers:
            app = db.app(new.app, create=True)
            numbers[name] = (app, db.binding(app, new.binding, create=True), place_of(*name))
        app, binding, place = numbers[name]
        places.append((app, binding, lookup_digest(seal, place, new.address)))
    return places


def _enter(db: Db, registrations: Sequence[Registration], places: Sequence[_Place], now: float) -> list[Endpoint]:
    """Enter addresses of which none occurs twice: look all up, then decide, then write."""
    holders = _known(db, places, "=")
    former = _known(db, places, "<>") if db.value("SELECT 1 FROM endpoint WHERE state <> 'active' LIMIT 1") else {}
    seal = db.seal()
    next_id = db.next_id("endpoint")
    fresh: list[tuple[Any, ...]] = []
    refreshed: list[tuple[Any, ...]] = []
    replaced: list[tuple[int, int]] = []
    tagged: list[int] = []
    endpoints: list[Endpoint] = []
    for i, new in enumerate(registrations):
        known: _Known | None = None
        if i in holders or i in former:
            known = _mine(new.user, holders.get(i, []), former.get(i, []))
        if known is None:
            id, generation = next_id, 1
            next_id += 1
        else:
            id, generation = known[0], known[2] + 1
        replaced += [(holder[0], id) for holder in holders.get(i, ()) if holder[0] != id]
        tags = tuple(dict.fromkeys(new.tags)) if new.tags else ()
        if tags and new.user:
            tagged.append(id)
        address = new.address
        text, identity = kept(seal, db.place(places[i][1]), address)
        row = (id, generation, address.kind, address.group, *given(new), tags, now, new.expires_at, text, identity)
        if known is None:
            fresh.append((*row, new.user, *places[i]))
        else:
            refreshed.append(row)
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
    if replaced:
        shared(db, retire, replaced, now)
    untag(db, [row[0] for row in refreshed])
    db.many(_REFRESH, refreshed)
    db.many(_INSERT, fresh)
    tag(db, tagged)
    return endpoints


def _mine(user: str, holders: Sequence[_Known], former: Sequence[_Known]) -> _Known | None:
    """The endpoint of this user that the address belongs to, or last belonged to."""
    for holder in holders:
        if holder[1] == user:
            return holder
    return max((each for each in former if each[1] == user), default=None)


_ROW = (
    *("id", "generation", "kind", "grp", *(column.name for column in GIVEN), "tags", "registered_at", "expires_at"),
    *("address", "identity"),
)
"""The columns of what is refreshed, in the order of its rows."""
_FRESH = (*_ROW, "usr", "app", "binding", "digest")
"""Those of what is new."""


def _value(place: int, name: str) -> str:
    return {"tags": f"value->{place}", "digest": f"unhex(value->>{place})"}.get(name, f"value->>{place}")


_REFRESH = f"""
UPDATE endpoint SET
  {", ".join(f"{name} = j.{_value(place, name)}" for place, name in enumerate(_ROW) if place)},
  state = 'active', state_at = NULL, reason = ''
FROM jsonb_each(?) j WHERE endpoint.id = j.value->>0
"""

_INSERT = f"""
INSERT INTO endpoint ({", ".join(_FRESH)}, state, reason)
SELECT {", ".join(_value(*each) for each in enumerate(_FRESH))}, 'active', ''
FROM jsonb_each(?)
"""

_LOOK_UP = """
jsonb_each(?) j CROSS JOIN endpoint e
WHERE e.binding = j.value->>0 AND e.digest = unhex(j.value->>1) AND e.state {} 'active'
"""


def _known(db: Db, places: Sequence[_Place], comparison: str) -> dict[int, list[_Known]]:
    """The endpoints of each address whose state is (or is not) active, by index."""
    found: dict[int, list[_Known]] = {}
    wanted = dumps([place[1:] for place in places])
    for i, id, user, generation in db.rows("j.key, e.id, e.usr, e.generation", _LOOK_UP.format(comparison), wanted):
        found.setdefault(i, []).append((id, user, generation))
    return found


def intern(db: Db, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
    """Ids for addresses, in order; each that nobody holds becomes an endpoint without a user."""
    unique = list({address.digest: address for address in addresses}.values())
    wanted = [Registration(user="", app=app, binding=binding, address=address) for address in unique]
    places = _places(db, wanted)
    ids = {unique[i].digest: holders[0][0] for i, holders in _known(db, places, "=").items()}
    unknown = [i for i, address in enumerate(unique) if address.digest not in ids]
    entered = _enter(db, [wanted[i] for i in unknown], [places[i] for i in unknown], now) if unknown else []
    ids.update((unique[i].digest, endpoint.id) for i, endpoint in zip(unknown, entered, strict=True))
    return [ids[address.digest] for address in addresses]
