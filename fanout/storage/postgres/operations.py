"""Running operations: in a transaction, again where others came in between, and again where the connection was lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import asyncpg

from fanout.errors import StorageError, StorageUnavailable
from fanout.plugin import StorageContext
from fanout.storage.carried import CarriedClock
from fanout.storage.postgres.commits import Commits
from fanout.storage.postgres.db import Db, Known
from fanout.storage.postgres.failure import lost, repeatable, translate, unknown
from fanout.storage.postgres.greeting import SETTINGS, Greeting, Identity, unless_same
from fanout.storage.postgres.listening import Listener
from fanout.storage.postgres.pool import Pool
from fanout.storage.postgres.switching import admit
from fanout.storage.sql.db import Again
from fanout.storage.sql.hot import Hot

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["ATTEST", "Database", "Function"]

T = TypeVar("T")
Function = Callable[..., Awaitable[T]]

_log = logging.getLogger("fanout.postgres")
_ABREAST = 4
"""Reads of one statement that are under way at once: more only make the server change from one to another."""
_LIMIT = 20.0
"""Seconds that a call may take as a whole, with any behaviour of the database."""
_UNHEARD = 0.1
"""Seconds for which a look is good where others' commits are not told: behind a pooler, or those of a host's own
transactions."""
_UNTOLD = 1.0
"""And where they are: a notice is a hint that may be lost."""
_LOSSES = 2
"""How often one is run anew whose connection was lost before COMMIT was sent: idle connections die unnoticed."""
_PATIENCE = 8.0
"""Seconds for which the database may be away before a caller is told that it is unknown whether a commit was made."""


@dataclass(slots=True)
class _Call(Generic[T]):
    """The operation to run, and the statements before and after it; without `begin`, outside of a transaction.

    When it is broken off it may have been committed if it is `committing`, and an earlier run of it may have been if it
    is `again`. `repeats` counts how often others have come in between. While it `waits` it has no connection.
    """

    function: Function[T]
    arguments: tuple[Any, ...]
    begin: str = ""
    commit: str = ""
    again: bool = False
    committing: bool = False
    repeats: int = 0
    waits: bool = True


_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED"
_DURABLE = f"{_WRITE}; SELECT set_config('synchronous_commit', 'local', true) WHERE current_setting('synchronous_commit') = 'off'"
"""An acknowledged commit is on the disk of the server, though its operator may have set `off` for all; any other value
stays."""

_NAMED = 5.0
"""Seconds after which a caller that only asks for work checks again that its numbers still belong to its names."""
ATTEST = "SELECT pg_logical_emit_message(true, 'fanout', '') WHERE pg_current_xact_id_if_assigned() IS NULL; "
"""An answer that stores nothing (a replay, an operation done before) writes to the log, without a row. So its COMMIT
waits for the standbys, and so for the rows that it has read: these may be committed on this server alone."""


class Database:
    """Runs `function(db, *arguments)` on a connection of the pool.

    `believed`: the caller's clock is no clock of a machine (a simulation's), so its times are taken for the database's.
    """

    def __init__(self, pool: Pool, context: StorageContext, hot: Hot, *, believed: bool) -> None:
        self._pool = pool
        self.context = context
        self._hot = hot
        self._believed = believed
        self._carried = False
        self._known = Known(context, pool.options.shown)
        self._rng = random.Random()
        self._looks = asyncio.Semaphore(_ABREAST)
        self._commits = Commits()
        self._named: dict[str, float] = {}
        """When names were looked at last (monotonic seconds), by the statement that does."""
        self._place: tuple[Identity, int] | None = None
        self._suspect = False
        self._highest = 0
        self._looked_at = float("-inf")
        """The time of the last look (monotonic)."""
        self.listener: Listener | None = None
        """The listener for others' commits; None as long as no engine has asked for it."""
        self.heard = False
        """Whether others have said that they committed something since the last look."""
        self.pending = self.used = False
        """Whether there is something in the inbox, and whether anything ever was."""
        self.incarnation = 0
        """Grows whenever the connections lead to another database than before: nothing that was learned of that one
        holds."""
        schema = pool.options.schema
        self._commit = f"COMMIT; SELECT nextval('{schema}.changed')"
        # Through PgBouncer a session's settings would be another client's.
        self._settings = "".join(f"; SET LOCAL {k} = '{v}'" for k, v in SETTINGS.items()) + (
            f"; SET LOCAL search_path = {schema}"
        )
        pool.met = self._met

    # -- the calls of the storage

    async def look(self, function: Function[T], *arguments: Any) -> T:
        """A read of one statement."""
        if not self._pool.options.prepared:
            return await self.read(function, *arguments)
        return await self._limited(_Call(function, arguments))

    async def read(self, function: Function[T], *arguments: Any) -> T:
        """A read of several statements that see the database at one moment."""
        return await self._limited(_Call(function, arguments, _READ, "COMMIT"))

    async def write(
        self,
        function: Function[T],
        *arguments: Any,
        durable: bool | Literal["local"] = True,
        quiet: bool = False,
        announced: bool = True,
        again: bool = False,
        large: bool = False,
        probe: Function[Any] | None = None,
        idle: Any = None,
    ) -> T:
        """One transaction. Not `durable`: a crash of the server may undo it (which is then a repeat); `local`: no
        standby is waited for. `quiet`: it makes no work; not `announced`: none for other processes. Nothing is written
        where `probe`, a look, finds nothing to do: the answer is `idle` then. Pieces that are `large` run beside others
        here.

        `again`: an earlier call, with the same arguments, ended in doubt (see `Db.again`). Raises `failure.Unknown`
        when this one does.
        """
        if probe is not None and not await self.look(probe, *arguments):
            nothing: T = idle
            return nothing
        begin = _DURABLE if durable is True else f"{_WRITE}; SET LOCAL synchronous_commit = {durable or 'off'}"
        commit = "COMMIT" if quiet else self._commit
        result = await self._limited(_Call(function, arguments, begin, commit, again))
        if self.listener is not None and announced and not quiet:
            self.listener.committed()
        return result

    def knows(self, app: str) -> bool:
        """Whether the number of this app was learned."""
        return app in self._known.apps

    async def enter(self, app: str) -> None:
        """Learn the number of an app; a new app is given a number. Waits where another transaction has given the app a
        number and not ended."""
        if not await self.look(Db.app, app):
            # On disk before the commit that uses the number, for the log is written in its order.
            await self.write(partial(Db.app, create=True), app, durable=False, quiet=True)

    async def changes(self, *, others: bool, low: str) -> int:
        """A number that is another after any commit; with `others`, after those of other processes. Looks into the
        inbox besides, from the transaction `low` on: `pending` and `used`."""
        if not self._fresh():
            self.heard = False
            known, own = self._highest, self._commits.own
            try:
                value, self.pending, self.used = await self.look(_changed, low)
            except BaseException:
                self.heard = True
                raise
            if int(value) < known:
                # It only grows. The tables were made anew, or those of a backup put in their place, below connections
                # that stayed.
                self._suspect = True
                self._elsewhere()
            self._highest = max(self._highest, int(value))
            self._commits.looked(int(value), own)
            self._looked_at = time.monotonic()
        return self._commits.others + (0 if others else self._commits.own)

    def _fresh(self) -> bool:
        """Whether the last look will do: nothing was told since, and where nothing is told, it was made just now."""
        if self.listener is None or self.heard:
            return False
        every = _UNTOLD if self.listener.listening and not self.used else _UNHEARD
        return time.monotonic() - self._looked_at < every

    async def _met(self, connection: Connection, greeting: Greeting, before: float) -> None:
        """A new connection has said where it leads. Where that is elsewhere than before, nothing is done there before
        its numbers are safe."""
        identity = greeting.identity
        if self._place is not None and self._place[0] != identity:
            self._elsewhere()
        self._known.clock.told(greeting.now, before)
        if not self._believed and not self._carried:
            self._known.skew = greeting.now - self.context.clock.now()
        place = identity, await admit(connection, self._pool.options, identity, suspect=self._suspect)
        self._suspect = False
        if self._place is not None and self._place != place:
            # Another process has found out, and has moved the numbers ahead.
            self._elsewhere()
        self._place = place

    def _elsewhere(self) -> None:
        self._place = None
        self._forget()
        self._pool.abort()

    def _forget(self) -> None:
        """Numbers of apps and bindings, and how far the log of changes had come, were another database's."""
        _log.warning(
            "%s is another database than before: cached state of that one is dropped.", self._pool.options.shown
        )
        self._known = self._known.renewed()
        self._named.clear()
        self._highest = 0
        self._commits.forget()
        self._looked_at = float("-inf")
        self.incarnation += 1

    @property
    def clock(self) -> CarriedClock:
        """The database's clock. A caller that asks for it goes by it from then on: callers' times are believed."""
        self._carried = True
        self._known.skew = 0.0
        return self._known.clock

    async def measure(self) -> None:
        """Learn the time, in the loop that the storage is opened in."""
        self._looks = asyncio.Semaphore(_ABREAST)
        await self.look(Db.read_clock)

    # -- attempts

    async def _limited(self, call: _Call[T]) -> T:
        try:
            turn = contextlib.nullcontext() if call.begin else self._looks
            async with asyncio.timeout(_LIMIT), turn:
                return await self._attempts(call)
        except TimeoutError:
            if call.committing or call.again:
                raise unknown(self._pool.options.shown) from None
            # A lock that is not given for 5 s (`lock_timeout`) has it run anew too.
            why = f"{'others come in between, ' if call.repeats else ''}see its locks (pg_locks)"
            if call.waits and self._pool.full:
                why = f"other calls have each of its {self._pool.options.pool} connections; set more by ?pool= in its URL, or {why}"
            raise StorageUnavailable(
                f"The database {self._pool.options.shown} did not answer within {_LIMIT:.0f} s: {why}."
            ) from None

    async def _attempts(self, call: _Call[T]) -> T:
        losses = 0
        doubt_since: float | None = None
        while True:
            call.waits = True
            try:
                connection = await self._pool.take()
            except StorageError:
                if doubt_since is None:
                    raise
                if time.monotonic() - doubt_since > _PATIENCE:
                    raise unknown(self._pool.options.shown) from None
                continue
            sound = call.waits = False
            try:
                result = await self._once(connection, call)
                sound = True
                return result
            except Exception as error:
                if lost(error):
                    self._pool.drop_free()
                    if call.committing and doubt_since is None:
                        doubt_since = time.monotonic()
                    if doubt_since is not None and time.monotonic() - doubt_since > _PATIENCE:
                        raise unknown(self._pool.options.shown) from None
                    call.again = call.again or doubt_since is not None
                    losses += 1
                    if doubt_since is None and losses > _LOSSES:
                        raise translate(error, self._pool.options.shown) from None
                else:
                    sound = await _roll_back(connection)
                    call.repeats += 1
                    if not repeatable(error, call.repeats):
                        raise translate(error, self._pool.options.shown) from None
            finally:
                self._pool.give(connection, sound=sound)
            if call.repeats:
                await asyncio.sleep(self._rng.uniform(0, 0.001 * 2 ** min(call.repeats, 6)))

    async def _once(self, connection: Connection, call: _Call[T]) -> T:
        """One run, from BEGIN to COMMIT."""
        db = Db(
            connection,
            self.context,
            self._known,
            self._hot,
            again=call.again,
            believed=self._believed or self._carried,
            carried=self._carried,
            repeats=call.repeats,
        )
        call.committing = False
        if call.begin:
            await self._begin(connection, call.begin)
        if self._known.clock.stale:
            await db.read_clock()
        result = await call.function(db, *call.arguments)
        if call.begin:
            call.committing = call.begin is not _READ
            last = "COMMIT" if db.silent else call.commit
            first = (f"{db.used.sql()}; " if db.used else "") + (ATTEST if call.begin is _DURABLE else "")
            counts, counted = last is self._commit, False
            self._commits.begin(counts=counts)
            try:
                await self._checked(connection, first + last, self._end)
                counted = counts
            finally:
                self._commits.end(counts=counts, counted=counted)
            call.committing = False
        elif db.used:
            await self._look_at_names(connection, db.used.sql(), often=not db.silent)
        db.keep()
        return result

    async def _begin(self, connection: Connection, begin: str) -> None:
        """Behind a pooler also the settings of a session, and whether its server is still the one that was greeted."""
        if self._pool.options.prepared:
            await connection.execute(begin)
            return
        lookup = self._place
        same = "" if lookup is None else f"; {unless_same(lookup[0], self._pool.options.schema)}"
        opening, also, rest = begin.partition(";")
        try:
            await connection.execute(opening + self._settings + also + rest + same)
        except asyncpg.DivisionByZeroError:
            raise ConnectionResetError("the pooler leads to another database") from None

    async def _look_at_names(self, connection: Connection, sql: str, *, often: bool) -> None:
        """After a read without a transaction. Not each time where it only says whether there may be work."""
        now = time.monotonic()
        if often or now - self._named.get(sql, float("-inf")) > _NAMED:
            await self._checked(connection, sql)
            self._named[sql] = now

    async def _checked(
        self, connection: Connection, sql: str, run: Callable[[Connection, str], Awaitable[Any]] | None = None
    ) -> None:
        """Run a statement that begins with `Used.sql`. Where it fails, nothing that was learned holds, and the
        operation is run anew."""
        known = self._known
        try:
            await (connection.execute(sql) if run is None else run(connection, sql))
        except asyncpg.DivisionByZeroError:
            if known is self._known:
                self._forget()
            raise Again from None

    async def _end(self, connection: Connection, last: str) -> None:
        """COMMIT, and tell the others. Where only the telling fails, the commit was made, and others look by themselves
        after a while.

        It is never cancelled: the server would end its wait for a synchronous standby, commit without it, and call that
        a success.  The pool waits for one that its caller has given up.
        """
        self._pool.warned.discard(connection)
        answer = asyncio.ensure_future(connection.execute(last))
        try:
            await asyncio.shield(answer)
        except asyncio.CancelledError:
            if not answer.done():
                self._pool.linger(connection, answer)
            raise
        except asyncpg.PostgresError as error:
            if not last.endswith(self._commit) or connection.is_in_transaction():
                raise
            # Of COMMIT itself there is no such error: no trigger and no constraint of these tables is deferred.
            if getattr(error, "sqlstate", None) not in ("42501", "42P01", "3F000"):
                # Ended between the two (a timeout, an operator), or before the first: it is looked up.
                raise ConnectionAbortedError("a commit was not heard to its end") from None
        if connection in self._pool.warned:
            # An operator has ended that wait (pg_cancel_backend): the server has it, and perhaps no other ever will.
            raise ConnectionAbortedError("a commit was not waited for")


async def _roll_back(connection: Connection) -> bool:
    """Roll a failed transaction back. Whether the connection can still be used."""
    if connection.is_closed():
        return False
    if connection.is_in_transaction():
        with contextlib.suppress(Exception):
            await connection.execute("ROLLBACK")
    return not connection.is_closed() and not connection.is_in_transaction()


async def _changed(db: Db, low: str) -> Any:
    # Of a sequence of which nothing was taken, the last value is the first one that will be.
    return await db.row(
        "SELECT (SELECT last_value + is_called::int FROM changed), EXISTS (SELECT 1 FROM inbox WHERE xid >= $1::text::xid8), "
        "(SELECT is_called FROM inbox_id_seq)",
        low,
    )
