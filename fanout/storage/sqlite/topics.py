"""Which endpoints a topic has, in one statement for all that enter or leave theirs."""

from __future__ import annotations

from collections.abc import Sequence

from fanout.storage.sqlite.db import Db, dumps

__all__ = ["tag", "untag"]


def untag(db: Db, ids: Sequence[int]) -> None:
    """Take these endpoints out of their topics."""
    if ids:
        db.run(
            "DELETE FROM endpoint_tag WHERE (binding, tag, endpoint) IN (SELECT e.binding, t.value, e.id "
            "FROM json_each(?) j CROSS JOIN endpoint e ON e.id = j.value CROSS JOIN json_each(e.tags) t)",
            dumps(ids),
        )


def tag(db: Db, ids: Sequence[int]) -> None:
    """Put these active endpoints into the topics that their rows name."""
    if ids:
        db.run(
            "INSERT OR IGNORE INTO endpoint_tag (binding, tag, endpoint) SELECT e.binding, t.value, e.id "
            "FROM json_each(?) j CROSS JOIN endpoint e ON e.id = j.value CROSS JOIN json_each(e.tags) t "
            "WHERE e.usr <> ''",
            dumps(ids),
        )
