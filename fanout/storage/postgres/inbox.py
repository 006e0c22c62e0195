"""The inbox: submissions that other programs' transactions have entered are put, and status answers as if they were put
already."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fanout.core.codec import decode_envelope
from fanout.core.model import Target
from fanout.core.records import Put, Status, Step, Submission, Taken
from fanout.core.states import Waiting
from fanout.core.text import cleaned
from fanout.enqueue import Statement, enqueue_async
from fanout.errors import ContentRefused, FanoutError, StorageError, UsageError
from fanout.plugin import StorageContext
from fanout.storage.book import ending
from fanout.storage.kinds import Kind
from fanout.storage.postgres.db import Db
from fanout.storage.postgres.failure import kind_of, repeatable
from fanout.storage.postgres.operations import Database
from fanout.storage.sealing import masked
from fanout.storage.sql import explaining, standing, stopping, watching
from fanout.storage.sql.intake import put
from fanout.storage.sql.registration import intern
from fanout.storage.standing import Sums, status_of

__all__ = ["PostgresInbox", "cancel", "explain", "finished", "outstanding", "prunable", "prune", "status"]

_OFTEN = 6
"""Runs of one transaction."""

Judge = Callable[[Submission], tuple[Submission, Mapping[str, str]]]


class PostgresInbox:
    """`Storage.inbox` of a PostgreSQL database."""

    def __init__(self, database: Database, context: StorageContext, schema: str) -> None:
        self._database = database
        self._retention = context.retention
        self._schema = schema
        self._low = self._of = 0
        """Below this number of a transaction there is nothing left, and will be nothing."""
        self.pending = False

    @property
    def low(self) -> str:
        """The transaction from which on to look."""
        return str(self._low if self._of == self._database.incarnation else 0)

    async def enqueue(self, connection: object, submission: Submission, now: float) -> Put:
        """See `Inbox`."""
        if submission.target.kind == "addresses":
            submission = await self._database.write(_interned, submission, now)
        since = now - self._retention.idempotency_keys
        id, replayed = await enqueue_async(connection, Statement(submission, self._schema, since))
        return Put(id=id, replayed=replayed)

    async def due(self, apps: Sequence[str], now: float) -> bool:
        """See `Inbox`."""
        running, oldest, found = await self._database.look(_due, str(self._low), list(apps), now)
        if int(running) < self._low or self._of != self._database.incarnation:
            # Numbers of transactions only grow: this is another database, in which nothing has been looked at.
            self._low, self._of = 0, self._database.incarnation
            running, oldest, found = await self._database.look(_due, "0", list(apps), now)
        # Another worker may be taking the oldest row and die: the low mark passes the row when it is gone, and not
        # before.
        self._low = min(int(running), int(running if oldest is None else oldest))
        return bool(found)

    async def take(self, apps: Sequence[str], judge: Judge, now: float, *, limit: int) -> list[Taken]:
        """See `Inbox`."""
        return await self._database.write(_take, str(self._low), list(apps), judge, now, limit)


async def _interned(db: Db, submission: Submission, now: float) -> Submission:
    """The submission with its addresses' endpoints for a target."""
    (sub,) = masked(await db.seal(), [submission])
    ids = await intern(db, sub.app, sub.target.binding, sub.target.addresses, now)
    return replace(sub, target=Target.endpoints(ids))


_DUE = "CASE WHEN due_at = accepted_at THEN entered_at ELSE greatest(due_at, entered_at) END"
_EXPIRES = f"{_DUE} + expires_at - due_at"


def _expires(db: Db) -> str:
    """When a row's time is over, as SQL: see `_times`."""
    return _EXPIRES if db.carried else "expires_at"


def _times(db: Db) -> str:
    """A row's `accepted_at`, `due_at` and `expires_at`, as SQL: where the database's clock counts, converted from the
    program's clock.

    Its notification was accepted when the row was entered, and is due then or at a later time that was wished. Its TTL
    stays the same.
    """
    if not db.carried:
        return "accepted_at, due_at, expires_at"
    return f"entered_at AS accepted_at, {_DUE} AS due_at, {_EXPIRES} AS expires_at"


async def _due(db: Db, low: str, apps: list[str], now: float) -> Any:
    return await db.row(
        "SELECT pg_snapshot_xmin(pg_current_snapshot())::text, "
        "(SELECT xid::text FROM inbox WHERE xid >= $1::text::xid8 ORDER BY xid LIMIT 1), "
        f"EXISTS (SELECT 1 FROM inbox WHERE xid >= $1::text::xid8 AND (app = ANY ($2::text[]) OR {_expires(db)} <= $3))",
        low,
        apps,
        now,
    )


_TAKE = """
SELECT id, uuid, app, key, digest, envelope, content, {} FROM inbox
WHERE xid >= $1::text::xid8 AND (app = ANY ($2::text[]) OR {} <= $3) ORDER BY xid, id LIMIT $4 FOR UPDATE SKIP LOCKED
"""


async def _take(db: Db, low: str, apps: list[str], judge: Judge, now: float, limit: int) -> list[Taken]:
    rows = await db.rows(_TAKE.format(_times(db), _expires(db)), low, apps, now, limit)
    if not rows:
        return []
    outcomes: dict[str, Taken] = {}
    good: list[Submission] = []
    reasons: dict[str, Mapping[str, str]] = {}
    for row in rows:
        about = {name: row[name] for name in ("app", "accepted_at", "due_at", "expires_at")}
        about["id"] = row["uuid"]
        sub = Submission(target=Target("all"), content=b"", lane=1, repeat="prefer_delivery", **about)
        if sub.app not in apps:
            outcomes[sub.id] = Taken(sub, refused="its time was over before a worker that serves the app took it")
            continue
        try:
            keyed = {"idempotency_key": row["key"], "digest": row["digest"]}
            sub = decode_envelope(row["envelope"], row["content"].encode(), **about, **keyed)
            sub, reasons[sub.id] = judge(sub)
            good.append(sub)
        except FanoutError as error:
            outcomes[sub.id] = Taken(sub, refused=cleaned(error))
        except Exception as error:
            # A plugin's bug, or a content that was never encoded: without an end to it, it would come back for ever.
            outcomes[sub.id] = Taken(sub, refused=f"it cannot be prepared ({type(error).__name__})")
    # Named before the first savepoint: a rollback to it must not undo a number that `Db` remembers.
    for app in {row["app"] for row in rows}:
        await db.app(app, create=True)
    await _put(db, good, reasons, outcomes, now)
    await db.run("DELETE FROM inbox WHERE id = ANY ($1::bigint[])", [row["id"] for row in rows])
    taken = [outcomes[row["uuid"]] for row in rows]
    await _record(db, taken, now)
    return taken


async def _put(
    db: Db, subs: list[Submission], reasons: Mapping[str, Mapping[str, str]], outcomes: dict[str, Taken], now: float
) -> None:
    """Put all that can be put. A notification that is refused or fails holds no other back."""
    while subs:
        await db.run("SAVEPOINT inbox")
        try:
            answers = await put(db, subs, now)
        except Exception as error:
            if not _its_own(db, error):
                raise
            await db.run("ROLLBACK TO SAVEPOINT inbox")
            if len(subs) == 1:
                why = str(error) if isinstance(error, UsageError) else f"it cannot be stored ({type(error).__name__})"
                outcomes[subs[0].id] = Taken(subs[0], refused=why)
                return
            half = len(subs) // 2
            await _put(db, subs[:half], reasons, outcomes, now)
            subs = subs[half:]
            continue
        refused = {
            sub.id: reasons[sub.id].get(answer.refused, answer.refused)
            if answer.refused
            else f"its idempotency key belongs to {answer.conflict}, which was another request"
            for sub, answer in zip(subs, answers, strict=True)
            if answer.refused or answer.conflict
        }
        if not refused:
            await db.run("RELEASE SAVEPOINT inbox")
            outcomes.update((sub.id, Taken(sub, answer)) for sub, answer in zip(subs, answers, strict=True))
            return
        await db.run("ROLLBACK TO SAVEPOINT inbox")
        outcomes.update((sub.id, Taken(sub, refused=refused[sub.id])) for sub in subs if sub.id in refused)
        subs = [sub for sub in subs if sub.id not in refused]


def _its_own(db: Db, error: Exception) -> bool:
    """Whether the notifications cause a failure, and not the state of the database at this moment: a right, a key of
    addresses, a deadlock.

    A unique value that is still taken after several runs is not taken by a transaction that came in between.
    """
    if repeatable(error):
        return kind_of(error) is Kind.CONTENT and db.repeats >= _OFTEN
    if isinstance(error, StorageError):
        return isinstance(error, ContentRefused)
    return kind_of(error) in (None, Kind.CONTENT)


async def _record(db: Db, taken: Sequence[Taken], now: float) -> None:
    """An inbox row that became no notification of its own can be found by its id all the same."""
    rows = []
    events = []
    for each in taken:
        sub = each.submission
        if each.refused:
            events.append(
                (await db.app(sub.app), "notification.refused", {"notification": sub.id, "reason": each.refused})
            )
        elif each.put.id == sub.id:
            continue
        times = (now, sub.accepted_at, sub.due_at, sub.expires_at)
        rows.append((*times, sub.id, sub.app, None if each.refused else each.put.id, each.refused or None))
    await db.many(
        "INSERT INTO enqueued (at, accepted_at, due_at, expires_at, uuid, app, became, refused) SELECT * FROM "
        "unnest($1::float8[], $2::float8[], $3::float8[], $4::float8[], $5::text[], $6::text[], $7::text[], $8::text[])",
        rows,
    )
    await db.log(now, events)


# -- its state


async def status(db: Db, uuid: str, now: float) -> Status | None:
    """The notification's state of affairs, wherever it stands."""
    found = await standing.status(db, uuid, now)
    if found is not None:
        return found
    row = await db.row(
        f"SELECT app, {_times(db)}, NULL AS at, NULL AS became, NULL AS refused FROM inbox WHERE uuid = $1 "
        "UNION ALL SELECT app, accepted_at, due_at, expires_at, at, became, refused FROM enqueued WHERE uuid = $1",
        uuid,
    )
    if row is None:
        # A row that was taken between the two looks is where the first has looked too early.
        return await standing.status(db, uuid, now)
    app, accepted_at, due_at, expires_at, at, became, refused = row
    if became is not None:
        return await standing.status(db, became, now)
    sums = Sums(app, accepted_at=accepted_at, due_at=due_at, expires_at=expires_at, finished_at=at)
    if at is None:
        sums.expansions, sums.scheduled = 1, due_at > now
    else:
        sums.stopped = "cancelled"
        sums.ended = [("cancelled", refused, 0)] if refused else []
    return status_of(uuid, sums, {})


async def finished(db: Db, uuids: Sequence[str]) -> set[str]:
    """Of these notifications, those that have finished or are unknown here too."""
    found = await watching.finished(db, uuids)
    if not found:
        return found
    rows = await db.rows(
        "SELECT uuid, NULL AS became, true AS waits FROM inbox WHERE uuid = ANY ($1::text[]) "
        "UNION ALL SELECT uuid, became, false FROM enqueued WHERE uuid = ANY ($1::text[]) AND became IS NOT NULL",
        list(found),
    )
    waits = {row["uuid"] for row in rows if row["waits"]}
    became = {row["uuid"]: row["became"] for row in rows if not row["waits"]}
    # Once more: a row taken between the two reads was missed by the first.
    over = await watching.finished(db, [*(found - waits), *became.values()])
    return {uuid for uuid in found - waits if became.get(uuid, uuid) in over}


async def outstanding(db: Db, app: str | None) -> dict[str, int]:
    """The outstanding deliveries; an inbox row that no worker has taken yet counts as one that is ready."""
    waiting = await db.value("SELECT count(*) FROM inbox WHERE app = coalesce($1::text, app)", app)
    found = await standing.outstanding(db, app)
    if waiting:
        found[Waiting.READY.value] = found.get(Waiting.READY.value, 0) + waiting
    return found


async def cancel(db: Db, app: str, uuid: str, now: float) -> int:
    """Stop it, before or after it was taken. Raises `NotFound`."""
    row = await db.row(f"DELETE FROM inbox WHERE uuid = $1 AND app = $2 RETURNING {_times(db)}", uuid, app)
    if row is None:
        known = await db.row("SELECT became, refused FROM enqueued WHERE uuid = $1 AND app = $2", uuid, app)
        if known is not None and known["became"] is None:
            return 0
        return await stopping.cancel(db, app, uuid if known is None else known["became"], now)
    await db.run(
        "INSERT INTO enqueued (at, accepted_at, due_at, expires_at, uuid, app, refused) VALUES ($1, $2, $3, $4, $5, $6, 'cancelled')",
        now,
        *row,
        uuid,
        app,
    )
    data = ending(uuid, 0, "cancelled", ())
    await db.log(now, [(await db.app(app, create=True), "notification.finished", data)])
    return 0


async def explain(db: Db, uuid: str, endpoint: int) -> list[Step] | None:
    """The decisions about one delivery; [] where there is none yet, or never will be."""
    steps = await explaining.explain(db, uuid, endpoint)
    if steps is not None:
        return steps
    row = await db.row(
        "SELECT NULL AS became FROM inbox WHERE uuid = $1 UNION ALL SELECT became FROM enqueued WHERE uuid = $1", uuid
    )
    if row is not None and row["became"] is None:
        return []
    return await explaining.explain(db, uuid if row is None else row["became"], endpoint)


async def prunable(db: Db, now: float) -> bool:
    """Whether `prune` has something to do."""
    return bool(
        await db.value("SELECT EXISTS (SELECT 1 FROM enqueued WHERE at < $1)", now - db.context.retention.notifications)
    )


async def prune(db: Db, now: float, limit: int) -> int:
    """Delete up to `limit` rows whose retention is over; how many."""
    return await db.run(
        "DELETE FROM enqueued WHERE uuid = ANY (ARRAY(SELECT uuid FROM enqueued WHERE at < $1 ORDER BY at LIMIT $2))",
        now - db.context.retention.notifications,
        limit,
    )
