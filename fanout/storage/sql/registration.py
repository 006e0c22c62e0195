"""Registering and interning: addresses enter the directory, thousands at a time.

Transactions wait for an endpoint's row: a transaction that changes one, or its claim of an address, has locked
it first, in the order of ids. The code for each endpoint is plain Python with few objects: an import registers
millions.
"""

from __future__ import annotations

from collections.abc import Sequence

from fanout.core.address import Address
from fanout.core.columns import shown
from fanout.core.endpoint import Endpoint, Registration
from fanout.plugin import place_of
from fanout.storage.sealing import kept, lookup_digest
from fanout.storage.sql.db import Db
from fanout.storage.sql.directory import Entries, Known, Place
from fanout.storage.sql.endpoints import retire

__all__ = ["intern", "register"]


async def register(db: Db, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
    """Enter each, in order, and return the endpoints in the same order."""
    await db.take_turns()
    places = await _places(db, registrations)
    known = await db.hot.known(db, registrations, places, True)
    if len({(binding, digest) for _, binding, digest in places}) == len(places):
        return await _enter(db, registrations, places, now, known)
    # Where an address occurs twice, a new run begins, so that each registration finds the row that the one before it
    # left.
    endpoints: list[Endpoint] = []
    start = 0
    run: set[tuple[int, str]] = set()
    for i, place in enumerate([*places, None]):
        if place is None or place[1:] in run:
            wanted, there = registrations[start:i], places[start:i]
            endpoints += await _enter(db, wanted, there, now, await db.hot.known(db, wanted, there, True))
            start, run = i, set()
        if place is not None:
            run.add(place[1:])
    return endpoints


async def intern(db: Db, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
    """Ids for addresses, in order; each that no endpoint has becomes an endpoint without a user."""
    await db.take_turns()
    unique = list({address.digest: address for address in addresses}.values())
    wanted = [Registration(user="", app=app, binding=binding, address=address) for address in unique]
    places = await _places(db, wanted)
    holders, former = await db.hot.known(db, wanted, places, False)
    ids = {unique[i].digest: holder[0] for i, holder in holders.items()}
    unknown = [i for i, address in enumerate(unique) if address.digest not in ids]
    had = {n: former[i] for n, i in enumerate(unknown) if i in former}
    entered = await _enter(db, [wanted[i] for i in unknown], [places[i] for i in unknown], now, ({}, had))
    ids.update((unique[i].digest, endpoint.id) for i, endpoint in zip(unknown, entered, strict=True))
    return [ids[address.digest] for address in addresses]


async def _places(db: Db, registrations: Sequence[Registration]) -> list[Place]:
    seal = await db.seal()
    numbers: dict[tuple[str, str], tuple[int, int, bytes]] = {}
    places = []
    for new in registrations:
        name = (new.app, new.binding)
        if name not in numbers:
            app = await db.app(new.app, create=True)
            numbers[name] = (app, await db.binding(app, new.binding, create=True), place_of(*name))
        app, binding, place = numbers[name]
        places.append((app, binding, lookup_digest(seal, place, new.address)))
    return places


async def _enter(
    db: Db,
    registrations: Sequence[Registration],
    places: Sequence[Place],
    now: float,
    known: tuple[dict[int, Known], dict[int, list[Known]]],
) -> list[Endpoint]:
    """Enter addresses of which none occurs twice, and of which this is known: decide, then write."""
    if not registrations:
        return []
    holders, former = known
    decided: list[Known | None] = [None] * len(places)
    if holders or former:
        decided = [_mine(new.user, holders.get(i), former.get(i, ())) for i, new in enumerate(registrations)]
    seal = await db.seal()
    homes = {binding: await db.place(binding) for binding in {place[1] for place in places}} if seal is not None else {}
    unknown = [i for i, mine in enumerate(decided) if mine is None]
    numbers = iter(await db.hot.numbers(db, unknown, registrations, places))
    entries = Entries()
    replaced: list[tuple[int, int]] = []
    tagged: list[tuple[int, int, Sequence[str]]] = []
    untagged: list[tuple[int, int, Sequence[str]]] = []
    endpoints: list[Endpoint] = []
    for i, (new, place, mine) in enumerate(zip(registrations, places, decided, strict=True)):
        _, binding, digest = place
        address = new.address
        text, identity = kept(seal, homes.get(binding, b""), address)
        tags = tuple(dict.fromkeys(new.tags)) if new.tags else ()
        if mine is None:
            id, generation = next(numbers), 1
            entries.fresh.append((id, new, tags, text, identity, place))
        else:
            id, generation = mine[0], mine[2] + 1
            entries.refreshed.append((id, generation, new, tags, text, identity))
        holder = holders.get(i)
        if holder is None:
            entries.free.append((binding, digest, id))
        elif holder[0] != id:
            entries.handed.append((binding, digest, id))
            replaced.append((holder[0], id))
        if new.user and (tags or mine):
            had = mine[3] if mine else ()
            if tags:
                tagged.append((id, binding, [tag for tag in tags if tag not in had] if had else tags))
            if mine:
                untagged.append((id, binding, [tag for tag in had if tag not in tags] if had else ()))
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
    await db.hot.enter(db, entries, now)
    await db.tag(tagged)
    return endpoints


def _mine(user: str, holder: Known | None, former: Sequence[Known]) -> Known | None:
    """The endpoint of this user that the address belongs to, or last belonged to."""
    if holder is not None and holder[1] == user:
        return holder
    return max((each for each in former if each[1] == user), default=None, key=lambda each: each[0])
