"""The statement that stores notifications."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.storage.sqlite.db import Db

__all__ = ["insert"]


def insert(db: Db, rows: Sequence[Sequence[Any]]) -> Sequence[int]:
    """Store these notifications (see `sql.hot`); their numbers."""
    first = db.next_id("notification")
    db.many(
        "INSERT INTO notification (id, uuid, app, lane, repeat, accepted_at, due_at, expires_at, collapse_key, target_key, "
        "content, aim, names, total, settled, expansions, attempts, stopped) SELECT value->>0, value->>1, value->>2, value->>3, "
        "value->>4, value->>5, value->>6, value->>7, value->>8, unhex(value->>9), unhex(value->>10), value->>11, value->>12, "
        "value->>13, 0, value->>14, 0, '' FROM jsonb_each(?)",
        [(number, *row) for number, row in enumerate(rows, first)],
    )
    return range(first, first + len(rows))
