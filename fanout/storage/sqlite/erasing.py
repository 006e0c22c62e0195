"""The erasure of a user in tables of SQLite's own: see `storage.sql.erasing`. Bytes on disk are the business of
`wiping`."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.storage.sqlite.db import Db, dumps

__all__ = ["blank", "forget_in_log"]


def blank(db: Db, notifications: Sequence[int], content: bytes) -> None:
    """Replace the texts of these notifications by this content. A trigger takes the difference off `load`."""
    db.run(
        "UPDATE notification SET content = ?2, collapse_key = NULL, target_key = NULL, aim = NULL, names = NULL "
        "WHERE id IN (SELECT value FROM json_each(?1))",
        dumps(list(notifications)),
        content,
    )


def forget_in_log(db: Db, app: int, user: str) -> None:
    """Lines about the user name neither the user nor the user's devices."""
    of_user = "app = ?1 AND kind <> 'notification.finished' AND data->>'user' = ?2"
    # `json_replace` makes no key that was not there.
    db.run(f"UPDATE event SET data = json_replace(data, '$.user', '', '$.device', '') WHERE {of_user}", app, user)
