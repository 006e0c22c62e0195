"""What SQLite keeps twice for speed, and what it was counted from."""

from __future__ import annotations

from pathlib import Path

import apsw

__all__ = ["BOOKS", "books_in"]

BOOKS = {
    "an app's load": (
        "SELECT app, deliveries, bytes FROM load WHERE deliveries <> 0 OR bytes <> 0",
        "SELECT * FROM (SELECT app, sum(total - settled + expansions) AS n, "
        "sum(CASE WHEN finished_at IS NULL THEN length(content) ELSE 0 END) AS m FROM notification GROUP BY app) "
        "WHERE n <> 0 OR m <> 0",
    ),
    "the backlog of retries": (
        "SELECT notification, binding, waiting, n FROM backlog",
        "SELECT notification, binding, waiting, count(*) FROM retry GROUP BY 1, 2, 3",
    ),
    "expansions to come": (
        "SELECT id, expansions FROM notification WHERE expansions <> 0",
        """SELECT notification, count(*) FROM expansion WHERE target <> '["chunks",[]]' GROUP BY 1""",
    ),
    "what has ended": (
        "SELECT id, settled FROM notification WHERE settled <> 0",
        "SELECT notification, sum(n) FROM tally GROUP BY 1",
    ),
    "what has not": (
        "SELECT id, total - settled FROM notification WHERE total <> settled",
        "SELECT notification, sum(n) FROM (SELECT notification, sum(open) AS n FROM chunk WHERE open > 0 GROUP BY 1 "
        "UNION ALL SELECT notification, count(*) FROM retry GROUP BY 1) GROUP BY 1",
    ),
    "who is paused": (
        "SELECT id FROM notification WHERE paused AND (total <> settled OR expansions)",
        "SELECT notification FROM (SELECT notification FROM chunk WHERE open > 0 AND lane < 0 "
        "UNION SELECT notification FROM retry WHERE lane < 0 UNION SELECT notification FROM expansion WHERE lane < 0)",
    ),
    "nobody half paused": (
        "SELECT 0 WHERE false",
        "SELECT n.id FROM notification n WHERE n.paused AND (EXISTS (SELECT 1 FROM chunk WHERE notification = n.id "
        "AND open > 0 AND lane >= 0) OR EXISTS (SELECT 1 FROM retry WHERE notification = n.id AND lane >= 0) "
        "OR EXISTS (SELECT 1 FROM expansion WHERE notification = n.id AND lane >= 0))",
    ),
    "nothing held back for ever": (
        "SELECT 0 WHERE false",
        "SELECT c.id FROM chunk c WHERE c.open > 0 AND (c.lane >= 4 OR c.lane < -4) AND NOT EXISTS (SELECT 1 FROM expansion e "
        """WHERE e.notification = c.notification AND e.target = '["chunks",[]]' AND c.id BETWEEN e.cursor + 1 AND e.high)""",
    ),
    "no trace of what was pruned": (
        "SELECT 0 WHERE false",
        "SELECT notification FROM decision WHERE notification > 0 AND notification NOT IN (SELECT id FROM notification)",
    ),
}


def books_in(folder: Path) -> dict[str, dict[str, tuple[set[object], set[object]]]]:
    """The books that do not agree, by name with what is kept and what is counted, of each database in the folder."""
    return {file.name: _unbalanced(file) for file in sorted(folder.glob("*.db"))}


def _unbalanced(path: Path) -> dict[str, tuple[set[object], set[object]]]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        found = {}
        for name, (kept, counted) in BOOKS.items():
            sides = set(connection.execute(kept)), set(connection.execute(counted))
            if sides[0] != sides[1]:
                found[name] = sides
        return found
    finally:
        connection.close()
