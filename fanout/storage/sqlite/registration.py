"""The directory as registration reads and writes it (see `storage.sql.registration`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout.core.columns import GIVEN, given
from fanout.core.endpoint import Registration
from fanout.storage.sql.directory import Entries, Known, Place
from fanout.storage.sqlite.db import Db, dumps

__all__ = ["enter", "known", "numbers"]


def known(
    db: Db, registrations: Sequence[Registration], places: Sequence[Place], takes: bool
) -> tuple[dict[int, Known], dict[int, list[Known]]]:
    """The endpoint that holds each address now, and the endpoints that had it once, by index. Their tags are in their
    rows, where `untag` finds them."""
    holders = {i: found[0] for i, found in _known(db, places, "=").items()}
    if not db.value("SELECT 1 FROM endpoint WHERE state <> 'active' LIMIT 1"):
        return holders, {}
    return holders, _known(db, places, "<>")


def _known(db: Db, places: Sequence[Place], comparison: str) -> dict[int, list[Known]]:
    """The endpoints of each address whose state is (or is not) active, by index."""
    found: dict[int, list[Known]] = {}
    wanted = dumps([place[1:] for place in places])
    for i, id, user, generation in db.rows("j.key, e.id, e.usr, e.generation", _LOOK_UP.format(comparison), wanted):
        found.setdefault(i, []).append((id, user, generation, ()))
    return found


_LOOK_UP = """
jsonb_each(?) j CROSS JOIN endpoint e
WHERE e.binding = j.value->>0 AND e.digest = unhex(j.value->>1) AND e.state {} 'active'
"""


def numbers(
    db: Db, wanted: Sequence[int], registrations: Sequence[Registration], places: Sequence[Place]
) -> Sequence[int]:
    """Ids that were never used, ascending."""
    first = db.next_id("endpoint")
    return range(first, first + len(wanted))


def enter(db: Db, entries: Entries, now: float) -> None:
    """Store new and known endpoints. Indexes say which address is whose."""
    db.many(_REFRESH, [_row(now, *each) for each in entries.refreshed])
    db.many(
        _INSERT,
        [
            (*_row(now, id, 1, new, tags, text, identity), new.user, *place)
            for id, new, tags, text, identity, place in entries.fresh
        ],
    )


def _row(
    now: float, id: int, generation: int, new: Registration, tags: Sequence[str], text: str, identity: str
) -> tuple[Any, ...]:
    """The values of `_ROW`."""
    address = new.address
    return (id, generation, address.kind, address.group, *given(new), tags, now, new.expires_at, text, identity)


_ROW = (
    *("id", "generation", "kind", "grp", *(column.name for column in GIVEN), "tags", "registered_at", "expires_at"),
    *("address", "identity"),
)
"""The columns of a refreshed endpoint, in the order of its rows."""
_FRESH = (*_ROW, "usr", "app", "binding", "digest")
"""Those of a new endpoint."""


def _value(index: int, name: str) -> str:
    return {"tags": f"value->{index}", "digest": f"unhex(value->>{index})"}.get(name, f"value->>{index}")


_REFRESH = f"""
UPDATE endpoint SET
  {", ".join(f"{name} = j.{_value(index, name)}" for index, name in enumerate(_ROW) if index)},
  state = 'active', state_at = NULL, reason = ''
FROM jsonb_each(?) j WHERE endpoint.id = j.value->>0
"""

_INSERT = f"""
INSERT INTO endpoint ({", ".join(_FRESH)}, state, reason)
SELECT {", ".join(_value(*each) for each in enumerate(_FRESH))}, 'active', ''
FROM jsonb_each(?)
"""
