"""Which notifications are addressed to a user: what an export asks for."""

from __future__ import annotations

from tests.oracle.tables import Note, Tables

__all__ = ["addressed"]


def addressed(t: Tables, app: str, user: str, after: int, limit: int) -> tuple[list[str], int | None]:
    """See `Storage`."""
    devices = set(t.directory.users.get((app, user), ()))
    looked = sorted(
        (note for note in t.notes.values() if note.sub.app == app and note.row > after), key=lambda note: note.row
    )[:limit]
    found = [note.sub.id for note in looked if user and _for(note, user, devices)]
    return found, looked[-1].row if len(looked) == limit else None


def _for(note: Note, user: str, devices: set[int]) -> bool:
    target = note.target
    if target.kind == "endpoints":
        return not devices.isdisjoint(target.ids)
    return target.kind in ("user", "users") and user in target.names
