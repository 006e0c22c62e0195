"""What becomes of an endpoint after its registration, and how endpoints are read."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from fanout.core.model import Endpoint, EndpointState
from fanout.core.records import AddressMoved, EndpointFilter, EndpointGone, EndpointRow
from fanout.plugin import Seal, place_of
from fanout.storage.sealing import kept, lookup_digest, open_all, opened
from fanout.storage.sqlite.db import Db, dumps

__all__ = [
    "change",
    "expire",
    "leave",
    "listing",
    "read",
    "remove",
    "resolve",
    "restore",
    "retire",
    "tag",
    "untag",
    "wipe",
]

_IDS = "(SELECT value FROM json_each(?))"


def _list(values: Iterable[Any]) -> str:
    return dumps(list(values))


# -- topics


def untag(db: Db, ids: Sequence[int]) -> None:
    """Take these endpoints out of their topics."""
    if ids:
        db.run(
            "DELETE FROM endpoint_tag WHERE (binding, tag, endpoint) IN (SELECT e.binding, t.value, e.id "
            "FROM json_each(?) j CROSS JOIN endpoint e ON e.id = j.value CROSS JOIN json_each(e.tags) t)",
            _list(ids),
        )


def tag(db: Db, ids: Sequence[int]) -> None:
    """Put these active endpoints into the topics that their rows name."""
    if ids:
        db.run(
            "INSERT OR IGNORE INTO endpoint_tag (binding, tag, endpoint) SELECT e.binding, t.value, e.id "
            "FROM json_each(?) j CROSS JOIN endpoint e ON e.id = j.value CROSS JOIN json_each(e.tags) t "
            "WHERE e.usr <> ''",
            _list(ids),
        )


# -- changes of state


def retire(
    db: Db, pairs: Sequence[tuple[int, int]], now: float, reason: str = "registered again", at: float | None = None
) -> None:
    """The first of each pair becomes replaced by the second."""
    by = dict(pairs)
    leave(db, list(by), EndpointState.REPLACED, now, reason, at=at, by=by)


def leave(
    db: Db,
    ids: Sequence[int],
    state: EndpointState,
    now: float,
    reason: str = "",
    *,
    at: float | None = None,
    by: dict[int, int] | None = None,
) -> None:
    """These endpoints are active no more; the log says so, except that time alone needs no line."""
    if not ids:
        return
    chosen = _list(ids)
    untag(db, ids)
    db.run(
        f"UPDATE endpoint SET state = ?, state_at = ?, reason = ? WHERE id IN {_IDS}",
        state.value,
        now if at is None else at,
        reason,
        chosen,
    )
    if state is not EndpointState.EXPIRED:
        events = []
        for id, app, about in _about(db, chosen):
            about["reason"] = reason
            if by is not None:
                about["by"] = by[id]
            events.append((app, f"endpoint.{state.value}", about))
        db.log(now, events)


def _about(db: Db, chosen: str) -> list[tuple[int, int, dict[str, Any]]]:
    """(id, app, what an event says of it), in the order of the ids given."""
    rows = db.rows(
        "e.id, e.app, e.usr, b.name",
        "json_each(?) j CROSS JOIN endpoint e ON e.id = j.value CROSS JOIN binding b ON b.id = e.binding",
        chosen,
    )
    return [(id, app, {"endpoint": id, "user": user, "binding": binding}) for id, app, user, binding in rows]


def remove(db: Db, app: str, ids: Sequence[int], now: float) -> int:
    """Active and gone ones become removed; how many."""
    found = _of(db, app, ids, "e.state IN ('active', 'gone')")
    leave(db, [row[0] for row in found], EndpointState.REMOVED, now)
    return len(found)


def wipe(db: Db, ids: Sequence[int], now: float, reason: str) -> None:
    """Nothing of these is left but their numbers: they are removed, and cannot be restored."""
    untag(db, ids)
    db.run(
        "UPDATE endpoint SET usr = '', address = '', identity = '', digest = x'', tags = '[]', kind = '', grp = '', platform = '', "
        f"state = '{EndpointState.REMOVED.value}', state_at = ?, reason = ? WHERE id IN {_IDS}",
        now,
        reason,
        _list(ids),
    )


def restore(db: Db, app: str, ids: Sequence[int], now: float) -> int:
    """Gone, removed and expired ones become active again, where nobody else holds the address; how many."""
    free = (
        "e.state IN ('gone', 'removed', 'expired') AND e.address <> '' AND NOT EXISTS (SELECT 1 FROM endpoint h "
        "WHERE h.binding = e.binding AND h.digest = e.digest AND h.state = 'active')"
    )
    first: dict[tuple[int, str], int] = {}
    for id, binding, digest in _of(db, app, ids, free):
        first.setdefault((binding, digest), id)
    chosen = list(first.values())
    if chosen:
        db.run(
            "UPDATE endpoint SET state = 'active', state_at = NULL, reason = '', generation = generation + 1, "
            f"expires_at = CASE WHEN expires_at > ? THEN expires_at END WHERE id IN {_IDS}",
            now,
            _list(chosen),
        )
        tag(db, chosen)
        db.log(now, [(owner, "endpoint.restored", about) for _, owner, about in _about(db, _list(chosen))])
    return len(chosen)


def _of(db: Db, app: str, ids: Sequence[int], condition: str) -> list[list[Any]]:
    """(id, binding, digest) of the app's endpoints among `ids` for which the condition holds, in order."""
    return db.rows(
        "e.id, e.binding, hex(e.digest)",
        f"json_each(?) j CROSS JOIN endpoint e ON e.id = j.value WHERE e.app = ? AND {condition}",
        _list(dict.fromkeys(ids)),
        db.app(app),
    )


def change(db: Db, changes: Sequence[EndpointGone | AddressMoved], now: float) -> None:
    """What gateways said of endpoints, each if it is still active and of that generation."""
    for what in changes:
        found = db.rows(
            "binding, app, usr",
            "endpoint WHERE id = ? AND generation = ? AND state = 'active'",
            what.endpoint,
            what.generation,
        )
        if not found:
            continue
        if isinstance(what, EndpointGone):
            leave(db, [what.endpoint], EndpointState.GONE, now, what.reason, at=what.at)
        else:
            _move(db, what, found[0][0], now)


def _move(db: Db, what: AddressMoved, binding: int, now: float) -> None:
    address = what.address
    seal, place = db.seal(), db.place(binding)
    digest = lookup_digest(seal, place, address)
    holder = db.value(
        "SELECT id FROM endpoint WHERE binding = ? AND digest = unhex(?) AND state = 'active'", binding, digest
    )
    if holder is not None and holder != what.endpoint:
        retire(db, [(what.endpoint, holder)], now, "moved to a known address", what.at)
        return
    db.run(
        "UPDATE endpoint SET address = ?, identity = ?, kind = ?, grp = ?, digest = unhex(?), generation = generation + 1 "
        "WHERE id = ?",
        *kept(seal, place, address),
        address.kind,
        address.group,
        digest,
        what.endpoint,
    )
    db.log(now, [(app, "endpoint.moved", about) for _, app, about in _about(db, _list([what.endpoint]))])


def expire(db: Db, now: float, limit: int) -> int:
    """Endpoints past their own time become expired; how many."""
    ids = db.json(
        "SELECT json_group_array(id) FROM (SELECT id FROM endpoint "
        "WHERE state = 'active' AND expires_at IS NOT NULL AND expires_at <= ? ORDER BY expires_at LIMIT ?)",
        now,
        limit,
    )
    leave(db, ids, EndpointState.EXPIRED, now)
    return len(ids)


# -- reading

_COLUMNS = (
    "e.id, a.name, e.usr, b.name, e.address, e.kind, e.grp, e.identity, e.platform, json(e.tags), e.generation, "
    "e.registered_at, e.expires_at, e.state, e.state_at, e.reason"
)
_NAMED = "CROSS JOIN app a ON a.id = e.app CROSS JOIN binding b ON b.id = e.binding"


def _endpoint(row: list[Any], seal: Seal | None) -> Endpoint:
    (
        id,
        app,
        user,
        binding,
        value,
        kind,
        group,
        identity,
        platform,
        tags,
        generation,
        registered,
        expires,
        state,
        at,
        why,
    ) = row
    return Endpoint(
        id=id,
        app=app,
        user=user,
        binding=binding,
        address=opened(seal, place_of(app, binding), value, kind, group, identity),
        platform=platform,
        tags=tuple(tags),
        generation=generation,
        registered_at=registered,
        expires_at=expires,
        state=EndpointState(state),
        state_at=at,
        reason=why,
    )


def read(db: Db, app: str, id: int) -> Endpoint | None:
    """One endpoint in whatever state."""
    rows = db.rows(_COLUMNS, f"endpoint e {_NAMED} WHERE e.id = ? AND e.app = ?", id, db.app(app))
    return _endpoint(rows[0], db.seal()) if rows else None


def listing(db: Db, which: EndpointFilter, after: int, limit: int) -> list[Endpoint]:
    """The endpoints that fit, by id."""
    app = db.app(which.app)
    # The plus keeps SQLite from reading all of the app by its users, and sorting it, for one page of it.
    where = ["app = ?" if which.user else "+app = ?", "id > ?"]
    arguments: list[Any] = [app, after]
    where.append("usr <> ''" if which.user is None else "usr = ?")
    if which.user is not None:
        arguments.append(which.user)
        if which.user:
            where.append("usr <> ''")
    if which.binding is not None:
        where.append("binding = ?")
        arguments.append(db.binding(app, which.binding))
    if which.tag is not None:
        where.append("EXISTS (SELECT 1 FROM json_each(tags) t WHERE t.value = ?)")
        arguments.append(which.tag)
    if which.state is not None:
        where.append(f"state = '{which.state.value}'")
    page = f"SELECT * FROM endpoint WHERE {' AND '.join(where)} ORDER BY id LIMIT ?"
    rows = db.rows(_COLUMNS, f"({page}) e {_NAMED}", *arguments, limit)
    seal = db.seal()
    return sorted((_endpoint(row, seal) for row in rows), key=lambda endpoint: endpoint.id)


_ROW = (
    *("e.id", "e.address", "e.kind", "e.grp"),
    "CAST(round(e.registered_at * 1000) AS INTEGER)",  # SQLite writes a float as text four times as slowly as an integer
    *("e.generation", "e.state"),
)

_SEALED_ROW = (*_ROW, "e.binding")

_new_row: Callable[[tuple[Any, ...]], EndpointRow] = partial(tuple.__new__, EndpointRow)
"""As `EndpointRow._make`, without a Python call for each row: a quarter of what `resolve` cost."""


_HELD = """
(SELECT r.endpoint, max(r.due_at) AS due_at FROM json_each(?) j CROSS JOIN retry r
WHERE r.endpoint = j.value AND r.holds AND r.due_at > ? GROUP BY r.endpoint)
"""


def resolve(db: Db, ids: array[int], now: float) -> list[EndpointRow]:
    """What a send needs of these endpoints."""
    seal = db.seal()
    chosen = _list(ids)
    found = db.columns(
        _ROW if seal is None else _SEALED_ROW, "json_each(?) j CROSS JOIN endpoint e ON e.id = j.value", chosen
    )
    bindings = found.pop() if seal is not None else []
    found[4] = [milliseconds / 1000 for milliseconds in found[4]]
    # Usually nothing is held at all, and then nobody is asked about.
    if db.value("SELECT 1 FROM retry WHERE holds LIMIT 1"):
        held = db.pairs("endpoint, due_at", _HELD, chosen, now)
        found.append([held.get(id, 0.0) for id in found[0]])
    else:
        found.append([0.0] * len(found[0]))
    if seal is not None:
        open_all(seal, [db.place(binding) for binding in bindings], found[1], found[6])
    return list(map(_new_row, zip(*found, strict=True)))
