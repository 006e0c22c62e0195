"""The facts that a process may know of others' commits: a write that changes nothing, and the numbers of events."""

from __future__ import annotations

from fanout.storage.postgres.db import Db

__all__ = ["number", "probe", "unnumbered"]

_NUMBERED = 10_000
"""Events that get their numbers in one statement."""


async def probe(db: Db) -> None:
    """Write a row without changing its value."""
    await db.run("UPDATE probe SET n = n WHERE id = $1", 1)


async def unnumbered(db: Db) -> bool:
    """Whether something has been committed that has no place in the log yet."""
    return bool(await db.value("SELECT EXISTS (SELECT 1 FROM event WHERE id IS NULL)"))


async def number(db: Db) -> None:
    """Give committed events their places in the log. One transaction at a time does so: a number is committed after all
    lower numbers."""
    await db.exclusive("events")
    while await db.run(_NUMBER, _NUMBERED) == _NUMBERED:
        pass


_NUMBER = """
WITH n AS MATERIALIZED (
  SELECT number, nextval('event_id') AS id FROM (SELECT number FROM event WHERE id IS NULL ORDER BY number LIMIT $1) f
)
UPDATE event e SET id = n.id FROM n WHERE e.number = ANY (ARRAY[n.number])
"""
