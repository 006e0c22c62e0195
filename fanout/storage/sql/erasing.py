"""Erasing a user: everywhere that an id, an address or a text of the user stands, in one transaction.

A notification that is addressed to the user alone is stopped, and loses its content; of a list that has others too, the
user's name is taken out. Notifications are held first, the feed last, as in every transaction; a second read finds
posts that came meanwhile. Bytes on disk are the driver's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fanout.storage.erasing import BLANK, SHADOW, divided
from fanout.storage.packing import unpack
from fanout.storage.sql import endpoints, feed_tidy
from fanout.storage.sql.db import Db, column
from fanout.storage.sql.exporting import aimed, devices_of
from fanout.storage.sql.stopping import stop

__all__ = ["Erased", "erase"]

_TEXTS = 2**20
"""Bytes of erased texts that are remembered."""


@dataclass(frozen=True, slots=True)
class Erased:
    """How many endpoints the user had, and the deleted texts, as they stood on disk, where bytes of it may be left
    there (`Db.traces`)."""

    endpoints: int
    texts: tuple[bytes, ...] = ()


class _Texts:
    """The rows to delete, up to a bound."""

    def __init__(self, db: Db, user: str) -> None:
        self._db = db
        self.found: list[bytes] = [user.encode()]
        self._room = _TEXTS

    async def take(self, column: str, rest: str, *arguments: object) -> None:
        """The texts of a column."""
        for text in await self._db.traces(column, rest, *arguments):
            data = text[: self._room]
            self._room -= len(data)
            if data:
                self.found.append(data)


async def erase(db: Db, app: str, user: str, now: float) -> Erased:
    """Forget this user: of each endpoint its number remains, as removed."""
    number = await db.app(app)
    if not user or not number:
        return Erased(0)
    devices = await devices_of(db, number, user)
    shadows = await _shadows(db, devices)
    devices |= shadows
    await endpoints.lock(db, devices)
    texts = _Texts(db, user)
    await texts.take("content", "feed_item WHERE app = $1 AND usr = $2", number, user)
    await texts.take("address", f"endpoint WHERE id {db.among(1, 'bigint')}", sorted(devices))
    await _notifications(db, app, user, devices, now, texts)
    count = await endpoints.erase(db, number, user, now)
    await endpoints.wipe(db, sorted(shadows), now, SHADOW)
    await feed_tidy.erase(db, app, user, now)
    await _notifications(db, app, user, devices, now, texts)
    await db.hot.forget_in_log(db, number, user)
    return Erased(count, tuple(texts.found))


async def _shadows(db: Db, devices: set[int]) -> set[int]:
    """Endpoints that have an address of these, and have no user or were replaced."""
    addresses = await db.rows(
        f"SELECT DISTINCT binding, {db.binary('digest')} FROM endpoint WHERE id {db.among(1, 'bigint')} AND length(digest) > 0",
        sorted(devices),
    )
    found: set[int] = set()
    for binding, digest in addresses:
        for former, which in ((False, "e.usr = ''"), (True, "(e.usr = '' OR e.state = 'replaced')")):
            text = f"SELECT e.id FROM {db.holder(1, 2, former=former)} WHERE {which}"
            found.update(await column(db, text, binding, db.bytes_of(digest)))
    return found - devices


async def _notifications(db: Db, app: str, user: str, devices: set[int], now: float, texts: _Texts) -> None:
    """Stop and empty notifications for the user alone, and take the name out of those for others too."""
    await db.hot.forget_entered(db, app, user, devices, now)
    number = await db.app(app)
    mine: set[int] = set()
    aims = [f"u:{user}", *(f"e:{id}" for id in devices)]
    for which in aimed(db):
        mine.update(await column(db, f"SELECT id FROM notification WHERE {which}", number, aims))
    mine |= await _listed(db, number, user, devices)
    mine |= await _awaited(db, number, user, devices)
    if not mine:
        return
    chosen = sorted(mine)
    await texts.take("content", f"notification WHERE id {db.among(1, 'bigint')}", chosen)
    await stop(db, chosen, "cancelled", now)
    await db.run(
        f"DELETE FROM idempotency WHERE app = $1 AND uuid IN (SELECT uuid FROM notification WHERE id {db.among(2, 'bigint')})",
        number,
        chosen,
    )
    await db.hot.blank(db, chosen, BLANK)


async def _listed(db: Db, app: int, user: str, devices: set[int]) -> set[int]:
    """The notifications to a list that names the user alone; from the other lists, the user's name is taken."""
    rows: list[Any] = []
    for which in aimed(db):
        rows += await db.rows(f"SELECT id, names FROM notification WHERE {which}", app, ["*"])
    mine, changed = divided(((id, id, names) for id, names in rows if names is not None), user, devices)
    for id, rest in sorted(changed):
        await db.run("UPDATE notification SET names = $2 WHERE id = $1", id, rest)
    return mine | await _only(db, [id for id, names in rows if names is None], devices)


async def _only(db: Db, notifications: list[int], devices: set[int]) -> set[int]:
    """Of these, those that have deliveries, all of them for these endpoints or for endpoints of users erased before."""
    if not devices or not notifications:
        return set()
    touched = await column(
        db,
        f"SELECT DISTINCT notification FROM chunk WHERE notification {db.among(1, 'bigint')} AND low <= $2 AND high >= $3",
        notifications,
        max(devices),
        min(devices),
    )
    mine: set[int] = set()
    for id in touched:
        rows = await db.rows(
            f"SELECT {db.binary('a.ids')} FROM chunk c JOIN audience a ON a.chunk = c.id WHERE c.notification = $1", id
        )
        others = {each for (ids,) in rows for each in unpack(db.bytes_of(ids))} - devices
        named = f"SELECT EXISTS (SELECT 1 FROM endpoint WHERE id {db.among(1, 'bigint')} AND usr <> '')"
        if not others or not await db.value(named, sorted(others)):
            mine.add(id)
    return mine


async def _awaited(db: Db, app: int, user: str, devices: set[int]) -> set[int]:
    """The same for expansions."""
    rows = await db.rows("SELECT id, notification, target FROM expansion WHERE app = $1", app)
    mine, changed = divided(rows, user, devices)
    for id, rest in sorted(changed):
        await db.run("UPDATE expansion SET target = $2 WHERE id = $1", id, rest)
    return mine
