"""Erasing a user: everywhere that an id, an address or a text of the user stands."""

from __future__ import annotations

from dataclasses import replace

from fanout.core.address import Address
from fanout.core.endpoint import EndpointState
from fanout.core.model import Target
from fanout.plugin import StorageContext
from fanout.storage.erasing import BLANK
from tests.oracle import directory, feed_tidy
from tests.oracle.stop import stop
from tests.oracle.tables import Note, Tables

__all__ = ["erase"]


def erase(t: Tables, context: StorageContext, app: str, user: str, now: float) -> int:
    """Forget this user; how many endpoints there were."""
    if not user:
        return 0
    devices = {
        endpoint.id for endpoint in t.directory.endpoints.values() if (endpoint.app, endpoint.user) == (app, user)
    }
    shadows = _shadows(t, app, devices)
    devices |= shadows
    for note in [note for note in t.notes.values() if note.sub.app == app]:
        if _alone(t, note, user, devices):
            stop(t, context, note, "cancelled", now)
            _empty(t, note)
        elif note.target.kind == "users" and user in note.target.names:
            note.target = Target.users([name for name in note.target.names if name != user])
            note.sub = replace(note.sub, target=note.target)
    feed_tidy.erase(t, app, user, now)
    count = directory.erase(t, app, user, now)
    for id in shadows:
        directory.wipe(t, id, now)
    t.events = [
        replace(event, data={**event.data, **{name: "" for name in ("user", "device") if name in event.data}})
        if event.app == app and event.data.get("user") == user
        else event
        for event in t.events
    ]
    return count


def _shadows(t: Tables, app: str, devices: set[int]) -> set[int]:
    """Other endpoints that have an address of these, and are nobody's or were replaced."""
    endpoints = t.directory.endpoints
    places = {
        (endpoints[id].binding, endpoints[id].address.digest) for id in devices if endpoints[id].address != Address("")
    }
    return {
        endpoint.id
        for endpoint in endpoints.values()
        if endpoint.app == app
        and endpoint.id not in devices
        and (endpoint.binding, endpoint.address.digest) in places
        and (not endpoint.user or endpoint.state is EndpointState.REPLACED)
    }


def _alone(t: Tables, note: Note, user: str, devices: set[int]) -> bool:
    """Whether it is addressed to nobody else."""
    target = note.target
    if target.kind in ("user", "users") and set(target.names) == {user}:
        return True
    if target.kind == "endpoints":
        return bool(target.ids) and devices.issuperset(target.ids)
    if target.kind != "users" or note.sub.collapse_key is not None or _scheduled(note):
        return False
    ids = {id for piece in note.pieces.values() for id in piece.ids}
    # Of a user who was erased before, an endpoint is nobody's.
    others = (t.directory.endpoints.get(id) for id in ids - devices)
    return not ids.isdisjoint(devices) and not any(other is not None and other.user for other in others)


def _scheduled(note: Note) -> bool:
    """Whether its audience is still to be looked up."""
    return any(expansion.binding is None for expansion in note.expansions)


def _empty(t: Tables, note: Note) -> None:
    """Nothing of it is left but its counts."""
    sub = note.sub
    if sub.collapse_key is not None:
        place = (sub.app, sub.collapse_key)
        t.collapsible[place].remove(note)
        if not t.collapsible[place]:
            del t.collapsible[place]
        for held in [held for held, latest in t.collapse.items() if latest is note]:
            del t.collapse[held]
    for key in [key for key, (id, _, _) in t.keys.items() if id == sub.id]:
        del t.keys[key]
    note.target = Target("endpoints")
    note.sub = replace(sub, content=BLANK, target=note.target, collapse_key=None, idempotency_key=None, digest=b"")
