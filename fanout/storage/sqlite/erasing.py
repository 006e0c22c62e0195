"""Erasing a user: everywhere that an id, an address or a text of the user stands, in one transaction.

What is addressed to the user alone is stopped, and loses its content; of a list that has others too, the user's name is taken out. Bytes on disk are
the business of `wiping`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fanout.storage.erasing import BLANK, SHADOW, Listed, without
from fanout.storage.sql import endpoints
from fanout.storage.sql.stopping import stop
from fanout.storage.sqlite import feed_tidy
from fanout.storage.sqlite.db import Db, dumps, unpack
from fanout.storage.sqlite.session import shared

__all__ = ["AIMED", "Erased", "erase"]

_IDS = "(SELECT value FROM json_each(?))"
_TEXTS = 2**20
"""Bytes of what was erased that are remembered for `wiping`."""
AIMED = (
    "notification WHERE app = ?1 AND collapse_key IS NULL AND aim IN (SELECT value FROM json_each(?2)) AND aim IS NOT NULL AND stopped = ''",
    "notification WHERE app = ?1 AND collapse_key IS NOT NULL AND aim IN (SELECT value FROM json_each(?2)) AND aim IS NOT NULL AND stopped = ''",
    "notification WHERE app = ?1 AND aim IN (SELECT value FROM json_each(?2)) AND aim IS NOT NULL AND stopped <> ''",
)
"""Each of them finds its rows in an index: `notification_aim` and `notification_stopped`."""


@dataclass(frozen=True, slots=True)
class Erased:
    """How many endpoints the user had, and what has been deleted, as it stood on disk."""

    endpoints: int
    texts: tuple[bytes, ...] = ()


def erase(db: Db, app: str, user: str, now: float) -> Erased:
    """Forget this user: what remains of each endpoint is its number, as removed."""
    number = db.app(app)
    if not user or not number:
        return Erased(0)
    devices: list[int] = db.json(
        "SELECT json_group_array(id) FROM endpoint WHERE app = ? AND usr = ? AND usr <> ''", number, user
    )
    shadows: list[int] = db.json(
        "SELECT json_group_array(DISTINCT f.id) FROM json_each(?1) j CROSS JOIN endpoint e ON e.id = j.value CROSS JOIN endpoint f "
        "ON f.binding = e.binding AND f.digest = e.digest AND f.state = 'active' WHERE f.usr = ''",
        dumps(devices),
    ) + db.json(
        "SELECT json_group_array(DISTINCT f.id) FROM json_each(?1) j CROSS JOIN endpoint e ON e.id = j.value CROSS JOIN endpoint f "
        "ON f.binding = e.binding AND f.digest = e.digest AND f.state <> 'active' "
        "WHERE f.id NOT IN (SELECT value FROM json_each(?1)) AND (f.usr = '' OR f.state = 'replaced')",
        dumps(devices),
    )
    texts = _Texts(user)
    _notifications(db, number, user, {*devices, *shadows}, now, texts)
    texts.take(db, "content", "feed_item WHERE app = ? AND usr = ?", number, user)
    feed_tidy.erase(db, app, user, now)
    texts.take(db, "address", f"endpoint WHERE id IN {_IDS}", dumps([*devices, *shadows]))
    shared(db, endpoints.erase, number, user, now)
    shared(db, endpoints.wipe, shadows, now, SHADOW)
    db.run(
        "UPDATE event SET data = json_set(data, '$.user', '', '$.device', '') WHERE app = ?1 AND kind <> 'notification.finished' "
        "AND data->>'user' = ?2 AND data->>'device' IS NOT NULL",
        number,
        user,
    )
    db.run(
        "UPDATE event SET data = json_set(data, '$.user', '') WHERE app = ?1 AND kind <> 'notification.finished' AND data->>'user' = ?2",
        number,
        user,
    )
    return Erased(len(devices), texts.found())


class _Texts:
    """What is deleted, up to a bound."""

    def __init__(self, user: str) -> None:
        self._found: list[bytes] = [user.encode()]
        self._room = _TEXTS

    def take(self, db: Db, column: str, rest: str, *arguments: object) -> None:
        """The texts of a column."""
        for (text,) in db.rows(f"hex({column})", f"(SELECT {column} FROM {rest} LIMIT 1000)", *arguments):
            data = bytes.fromhex(text)[: self._room]
            self._room -= len(data)
            if data:
                self._found.append(data)

    def found(self) -> tuple[bytes, ...]:
        return tuple(self._found)


def _notifications(db: Db, app: int, user: str, devices: set[int], now: float, texts: _Texts) -> None:
    """Stop and empty what is the user's alone, and take the name out of what is others' too."""
    aims = dumps([f"u:{user}", *(f"e:{id}" for id in devices)])
    mine = {row[0] for which in AIMED for row in db.rows("id", which, app, aims)}
    mine |= _listed(db, app, user, devices)
    mine |= _awaited(db, app, user, devices)
    if not mine:
        return
    chosen = dumps(sorted(mine))
    texts.take(db, "content", f"notification WHERE id IN {_IDS}", chosen)
    shared(db, stop, sorted(mine), "cancelled", now)
    db.run(
        f"DELETE FROM idempotency WHERE app = ? AND uuid IN (SELECT uuid FROM notification WHERE id IN {_IDS})",
        app,
        chosen,
    )
    db.run(
        "UPDATE notification SET content = ?, collapse_key = NULL, target_key = NULL, aim = NULL, names = NULL "
        f"WHERE id IN {_IDS}",
        BLANK,
        chosen,
    )


def _listed(db: Db, app: int, user: str, devices: set[int]) -> set[int]:
    """Of the notifications to a list, those that are the user's alone; from the names of the others, the user's is taken."""
    star = dumps(["*"])
    rows = [row for which in AIMED for row in db.rows("id, names", which, app, star)]
    mine: set[int] = set()
    open_: list[int] = []
    changed: list[list[object]] = []
    for id, names in rows:
        if names is None:
            open_.append(id)
            continue
        rest = without(names, user, devices)
        if rest is Listed.ALONE:
            mine.add(id)
        elif isinstance(rest, str):
            changed.append([id, rest])
    db.many(
        "UPDATE notification SET names = j.value->>1 FROM json_each(?) j WHERE notification.id = j.value->>0", changed
    )
    return mine | _only(db, open_, devices)


def _only(db: Db, notifications: Iterable[int], devices: set[int]) -> set[int]:
    """Of these, those whose deliveries are all for these endpoints, or for ones of users who were erased before, and which have some."""
    if not devices:
        return set()
    touched = db.json(
        "SELECT json_group_array(DISTINCT c.notification) FROM json_each(?) j CROSS JOIN chunk c ON c.notification = j.value "
        "WHERE c.low <= ? AND c.high >= ?",
        dumps(list(notifications)),
        max(devices),
        min(devices),
    )
    mine: set[int] = set()
    for id in touched:
        rows = db.rows("hex(a.ids)", "chunk c CROSS JOIN audience a ON a.chunk = c.id WHERE c.notification = ?", id)
        others = {each for (ids,) in rows for each in unpack(ids)} - devices
        named = f"SELECT EXISTS (SELECT 1 FROM endpoint WHERE id IN {_IDS} AND usr <> '')"
        if not others or not db.value(named, dumps(sorted(others))):
            mine.add(id)
    return mine


def _awaited(db: Db, app: int, user: str, devices: set[int]) -> set[int]:
    """Of what is still to be looked up, the same."""
    rows = db.rows("id, notification, target", "expansion WHERE app = ?", app)
    mine: set[int] = set()
    changed: list[list[object]] = []
    for id, notification, target in rows:
        rest = without(target, user, devices)
        if rest is Listed.ALONE:
            mine.add(notification)
        elif isinstance(rest, str):
            changed.append([id, rest])
    db.many("UPDATE expansion SET target = j.value->>1 FROM json_each(?) j WHERE expansion.id = j.value->>0", changed)
    return mine
