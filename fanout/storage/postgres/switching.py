"""A database that is another than the one that its tables remember: no number is ever given there a second time.

A standby that was promoted with a lag, or a backup, lacks the latest rows, and its sequences stand where they stood: it
would give numbers to other rows than those that processes and callers know under them. So the first that finds out
moves all of them ahead, before anything else is done there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fanout.storage.packing import dumps
from fanout.storage.postgres.greeting import Identity
from fanout.storage.postgres.url import Options

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = ["ORIGIN", "admit", "same"]

_log = logging.getLogger("fanout.postgres")

ORIGIN = """
-- Which database this is (`greeting.Identity`); `generation` is drawn anew when its numbers were moved ahead.
CREATE TABLE origin (id int PRIMARY KEY CHECK (id = 1), identity text NOT NULL, generation bigint NOT NULL);
"""
_AHEAD = 2**32
"""By how much numbers are moved: more than any lag has given."""
_AHEAD_SMALL = 2**20
"""Of apps and bindings, whose numbers have 31 bits."""
_LIMIT = "60s"


def same(recorded: str, identity: Identity) -> bool:
    """Whether that is the recorded identity. Pure. A role that may not ask for the system's identifier knows the
    rest."""
    recorded_parts = recorded.split("/")
    mine = text(identity).split("/")
    return recorded_parts[1:] == mine[1:] and (recorded_parts[0] == mine[0] or not recorded_parts[0] or not mine[0])


def text(identity: Identity) -> str:
    """How it is recorded."""
    return "/".join(map(str, identity))


async def admit(connection: Connection, options: Options, identity: Identity, *, suspect: bool = False) -> int:
    """See that the database remembers itself as `identity`; its generation, which is another where its numbers were
    moved ahead.

    `suspect`: a number that only grows was seen higher before, so they are to be moved although the identity is the
    same.
    """
    local = f"SET LOCAL search_path = {options.schema}; SET LOCAL statement_timeout = '{_LIMIT}'; SET LOCAL lock_timeout = '{_LIMIT}'"
    async with connection.transaction():
        await connection.execute(local)
        row = await connection.fetchrow(_LOOK)
        if row is not None and not suspect and same(row[0], identity):
            return int(row[1])
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"fanout identity of {options.schema}")
        row = await connection.fetchrow(_LOOK)
        if row is not None and not suspect and same(row[0], identity):
            return int(row[1])
        if row is not None:
            _log.warning(
                "%s is another database than its tables remember (a standby was promoted, or a backup restored): its numbers are moved "
                "ahead, so that none is given twice.",
                options.shown,
            )
            await _move(connection, options.schema, text(identity))
        recorded: Any = await connection.fetchval(_RECORD, text(identity))
        return int(recorded)


_LOOK = "SELECT identity, generation FROM origin"
_RECORD = """
INSERT INTO origin VALUES (1, $1, floor(random() * 9007199254740992)::bigint)
ON CONFLICT (id) DO UPDATE SET identity = excluded.identity, generation = excluded.generation RETURNING generation
"""
_SEQUENCES = """
SELECT format('%I.%I', n.nspname, c.relname), s.seqtypid = 'int8'::regtype FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 ORDER BY 1
"""


async def _move(connection: Connection, schema: str, identity: str) -> None:
    """All sequences, the feed's number and its identity; and an event that leads all that is new of each app."""
    for name, large in await connection.fetch(_SEQUENCES, schema):
        ahead = _AHEAD if large else _AHEAD_SMALL
        await connection.execute(f"SELECT setval('{name}', last_value + {ahead}) FROM {name}")
    await connection.execute(
        "UPDATE feed SET identity = (identity + 1 + floor(random() * 4294967294)::bigint) % 4294967296, seq = seq + $1",
        _AHEAD,
    )
    await connection.execute(
        "INSERT INTO event (id, at, app, kind, data) SELECT nextval('event_id'), extract(epoch FROM clock_timestamp()), id, $1, $2 FROM app",
        "database.switched",
        dumps({"database": identity}),
    )
