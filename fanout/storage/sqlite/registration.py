"""Registering and interning: addresses enter the directory, thousands at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fanout.core.address import Address
from fanout.core.model import Endpoint, Registration
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.endpoints import retire, tag, untag

__all__ = ["intern", "register"]


_Known = tuple[int, str, int]


@dataclass(slots=True)
class _Entry:
    """One registration on its way in: where it belongs, and what became of it."""

    new: Registration
    app: int
    binding: int
    digest: str
    endpoint: Endpoint | None = None


def register(db: Db, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
    """Enter each, in order, and return the endpoints in the same order."""
    entries = []
    for new in registrations:
        app = db.app(new.app, create=True)
        entries.append(_Entry(new, app, db.binding(app, new.binding, create=True), new.address.digest))
    for batch in _rounds(entries):
        _enter(db, batch, now)
    return [entry.endpoint for entry in entries if entry.endpoint is not None]


def _rounds(entries: list[_Entry]) -> Iterator[list[_Entry]]:
    """The entries in batches in which no address occurs twice: those of one address stay in order."""
    while entries:
        first: dict[tuple[int, str], _Entry] = {}
        rest = [entry for entry in entries if first.setdefault((entry.binding, entry.digest), entry) is not entry]
        yield list(first.values())
        entries = rest


def _enter(db: Db, batch: list[_Entry], now: float) -> None:
    """One batch: look every address up, then decide, then write."""
    holders, former = _known(db, batch)
    next_id = db.next_id("endpoint")
    fresh: list[list[Any]] = []
    refreshed: list[list[Any]] = []
    replaced: list[tuple[int, int]] = []
    tagged: list[int] = []
    for i, entry in enumerate(batch):
        new = entry.new
        holder = holders.get(i)
        known: _Known | None
        if holder is not None and holder[1] == new.user:
            known = holder
        else:
            known = max((each for each in former.get(i, ()) if each[1] == new.user), default=None)
        tags = list(dict.fromkeys(new.tags))
        if known is None:
            id, generation = next_id, 1
            next_id += 1
        else:
            id, generation = known[0], known[2] + 1
        if holder is not None and holder[0] != id:
            replaced.append((holder[0], id))
        address = new.address
        row = [
            id,
            generation,
            address.kind,
            address.group,
            new.platform,
            tags,
            now,
            new.expires_at,
            address.value,
            address.identity,
        ]
        if known is None:
            fresh.append([*row, entry.app, entry.binding, new.user, entry.digest])
        else:
            refreshed.append(row)
        if tags and new.user:
            tagged.append(id)
        entry.endpoint = Endpoint(
            id=id,
            app=new.app,
            user=new.user,
            binding=new.binding,
            address=address,
            platform=new.platform,
            tags=tuple(tags),
            generation=generation,
            registered_at=now,
            expires_at=new.expires_at,
        )
    retire(db, replaced, now)
    untag(db, [row[0] for row in refreshed])
    db.many(_REFRESH, refreshed)
    db.many(_INSERT, fresh)
    tag(db, tagged)


_REFRESH = """
UPDATE endpoint SET
  generation = j.value->>1, kind = j.value->>2, grp = j.value->>3, platform = j.value->>4, tags = j.value->5,
  registered_at = j.value->>6, expires_at = j.value->>7, address = j.value->>8, identity = j.value->>9,
  state = 'active', state_at = NULL, reason = ''
FROM json_each(?) j WHERE endpoint.id = j.value->>0
"""

_INSERT = """
INSERT INTO endpoint (
  id, generation, kind, grp, platform, tags, registered_at, expires_at, address, identity, app, binding, user, digest,
  state, reason
) SELECT
  value->>0, value->>1, value->>2, value->>3, value->>4, value->5, value->>6, value->>7, value->>8, value->>9, value->>10,
  value->>11, value->>12, unhex(value->>13), 'active', ''
FROM json_each(?)
"""

_LOOK_UP = """
json_each(?) j CROSS JOIN endpoint e
WHERE e.binding = j.value->>0 AND e.digest = unhex(j.value->>1) AND e.state {} 'active'
"""


def _known(db: Db, batch: list[_Entry]) -> tuple[dict[int, _Known], dict[int, list[_Known]]]:
    """(id, user, generation) of who holds each address of the batch, and of those who held it before, by index."""
    wanted = orjson.dumps([[entry.binding, entry.digest] for entry in batch]).decode()
    columns = "j.key, e.id, e.user, e.generation"
    holders = {row[0]: (row[1], row[2], row[3]) for row in db.rows(columns, _LOOK_UP.format("="), wanted)}
    former: dict[int, list[_Known]] = {}
    for row in db.rows(columns, _LOOK_UP.format("<>"), wanted):
        former.setdefault(row[0], []).append((row[1], row[2], row[3]))
    return holders, former


def intern(db: Db, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
    """Ids for addresses, in order; each that nobody holds becomes an endpoint without a user."""
    owner = db.app(app, create=True)
    place = db.binding(owner, binding, create=True)
    unique = list({address.digest: address for address in addresses}.values())
    entries = [
        _Entry(Registration(user="", app=app, binding=binding, address=address), owner, place, address.digest)
        for address in unique
    ]
    holders, _ = _known(db, entries) if entries else ({}, {})
    ids = {entries[i].digest: holder[0] for i, holder in holders.items()}
    unknown = [entry for entry in entries if entry.digest not in ids]
    if unknown:
        _enter(db, unknown, now)
        ids.update((entry.digest, entry.endpoint.id) for entry in unknown if entry.endpoint is not None)
    return [ids[address.digest] for address in addresses]
