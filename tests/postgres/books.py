"""What the tables keep twice for speed, and what it is counted from: the two must agree, whatever was done by however
many at once."""

from __future__ import annotations

from typing import Any

import asyncpg

__all__ = ["BOOKS", "Differences", "differences", "unbalanced"]

Differences = dict[str, tuple[set[object], set[object]]]

_CHUNKS = """'["chunks",[]]'"""

BOOKS = {
    "an app's load": (
        "SELECT app, sum(deliveries), sum(bytes) FROM load GROUP BY app HAVING sum(deliveries) <> 0 OR sum(bytes) <> 0",
        "SELECT * FROM (SELECT app, sum(total - settled + expansions) AS n, "
        "coalesce(sum(octet_length(content)) FILTER (WHERE finished_at IS NULL), 0) AS m FROM notification GROUP BY app) s "
        "WHERE n <> 0 OR m <> 0",
    ),
    "the backlog of retries": (
        "SELECT notification, binding, waiting, n FROM backlog",
        "SELECT notification, binding, waiting, count(*) FROM retry GROUP BY 1, 2, 3",
    ),
    "expansions to come": (
        "SELECT id, expansions::bigint FROM notification WHERE expansions <> 0",
        f"SELECT notification, count(*) FROM expansion WHERE target <> {_CHUNKS} GROUP BY 1",
    ),
    "what has ended": (
        "SELECT id, settled FROM notification WHERE settled <> 0",
        "SELECT notification, sum(n) FROM tally GROUP BY 1",
    ),
    "what has not": (
        "SELECT id, total - settled FROM notification WHERE total <> settled",
        "SELECT notification, sum(n) FROM (SELECT notification, sum(open) AS n FROM chunk WHERE NOT done GROUP BY 1 "
        "UNION ALL SELECT notification, count(*) FROM retry GROUP BY 1) s GROUP BY 1",
    ),
    "what is open in a chunk": (
        "SELECT 0 WHERE false",
        "SELECT id, open FROM chunk WHERE open <> (SELECT count(*) FROM generate_series(0, octet_length(states) - 1) i "
        "WHERE get_byte(states, i) IN (0, 253, 254))",
    ),
    "a chunk and its audience": (
        "SELECT id, octet_length(states) FROM chunk",
        "SELECT chunk, octet_length(ids) / 8 FROM audience",
    ),
    "who has finished": (
        "SELECT id FROM notification WHERE finished_at IS NOT NULL",
        "SELECT id FROM notification WHERE expansions = 0 AND settled = total",
    ),
    "who is paused": (
        "SELECT id FROM notification WHERE paused AND (total <> settled OR expansions <> 0)",
        "SELECT notification FROM (SELECT notification FROM chunk WHERE NOT done AND lane < 0 "
        "UNION SELECT notification FROM retry WHERE lane < 0 UNION SELECT notification FROM expansion WHERE lane < 0) s",
    ),
    "nobody half paused": (
        "SELECT 0 WHERE false",
        "SELECT n.id FROM notification n WHERE n.paused AND (EXISTS (SELECT 1 FROM chunk WHERE notification = n.id "
        "AND NOT done AND lane >= 0) OR EXISTS (SELECT 1 FROM retry WHERE notification = n.id AND lane >= 0) "
        "OR EXISTS (SELECT 1 FROM expansion WHERE notification = n.id AND lane >= 0))",
    ),
    "nothing held back for ever": (
        "SELECT 0 WHERE false",
        "SELECT c.id FROM chunk c WHERE NOT c.done AND (c.lane >= 4 OR c.lane < -4) AND NOT EXISTS (SELECT 1 FROM expansion e "
        f"WHERE e.notification = c.notification AND e.target = {_CHUNKS} AND c.id BETWEEN e.cursor + 1 AND e.high)",
    ),
    "no trace of what was pruned": (
        "SELECT 0 WHERE false",
        "SELECT notification FROM decision WHERE notification > 0 AND notification NOT IN (SELECT id FROM notification) "
        "UNION SELECT notification FROM chunk WHERE notification NOT IN (SELECT id FROM notification)",
    ),
    "who holds an address": (
        "SELECT binding, digest, endpoint FROM address",
        "SELECT binding, digest, id FROM endpoint WHERE state = 'active'",
    ),
}


async def differences(connection: Any) -> Differences:
    """The books whose two sides differ, with what only one side has. Nothing may be at work in that database."""
    found = {}
    for name, (kept, counted) in BOOKS.items():
        mine, theirs = [{tuple(row) for row in await connection.fetch(sql)} for sql in (kept, counted)]
        if mine != theirs:
            found[name] = (mine - theirs, theirs - mine)
    return found


async def unbalanced(url: str) -> Differences:
    """`differences` of the database at that address."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "fanout"})
    try:
        return await differences(connection)
    finally:
        await connection.close()
