"""Which gates workers have said to be closed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fanout.core.records import GateNote
from fanout.storage.gates import reported_until
from tests.oracle.tables import Posted, Tables, log

__all__ = ["closed", "covering", "post"]

_GRACE = 60.0
"""Seconds past its `until` for which a note stands: whoever posted it may be a little late with the next one."""


def post(t: Tables, worker: str, notes: Sequence[GateNote], now: float) -> None:
    """Remember them, and log the first alarm of a gate and its opening."""
    t.gates = {key: posted for key, posted in t.gates.items() if _stands(posted.note, now)}
    for note in notes:
        key = (note.app, note.binding, note.scope, note.name)
        before = t.gates.get(key)
        about = {"binding": note.binding, "scope": note.scope, "name": note.name}
        if not note.waiting:
            if before is not None:
                del t.gates[key]
                if before.parked:
                    log(t, now, note.app, "binding.opened", about)
            continue
        parked = before is not None and before.parked
        if note.alarm and not parked:
            more = {"waiting": note.waiting, "reason": note.reason, "until": note.until}
            log(t, now, note.app, "binding.parked", about | more)
        t.gates[key] = Posted(replace(note, worker=worker), parked or note.alarm, now)
    t.changes += bool(notes)


def closed(t: Tables, now: float) -> list[GateNote]:
    """The notes that stand."""
    return [
        replace(posted.note, until=reported_until(posted.since, posted.note.until, now))
        for _, posted in sorted(t.gates.items(), key=lambda item: item[0])
        if _stands(posted.note, now)
    ]


def covering(t: Tables, app: str, now: float) -> dict[str, str]:
    """The word for which everything of a binding waits, by binding."""
    words: dict[str, str] = {}
    whole = [note for note in closed(t, now) if note.whole and note.app == app]
    for note in sorted(whole, key=lambda note: note.until):
        words[note.binding] = note.waiting
    return words


def _stands(note: GateNote, now: float) -> bool:
    return now < note.until + _GRACE
