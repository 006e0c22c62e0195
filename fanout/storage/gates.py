"""The gates that workers say they have closed: one row each, the last word about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fanout.core.records import GateNote

__all__ = ["ALARM", "LONGER", "Words", "reported_until", "weigh"]

LONGER = 60.0
"""Seconds that a note stands beyond its `until`: workers post the next one when the probe has failed."""

_CALM, ALARM, _OWED = 0, 1, 2
"""Of the column `alarm`: see the schemas."""

_Key = tuple[int, str, str]
"""(binding's number, scope, name) of a gate."""


def reported_until(since: float | None, until: float, now: float) -> float:
    """Until when a note that was written at `since` closes its gate: never further off than it was then (see
    `Storage.retime`)."""
    return until if since is None or since <= now + 1.0 else until - since + now


@dataclass(slots=True)
class Words:
    """The rows that notes lead to: rows (binding, scope, name, waiting, reason, until, alarm, whole, worker) of gates
    that are closed, those that are open, and events to be logged, as (app, kind, data)."""

    closed: dict[_Key, tuple[int, str, str, str, str, float, int, bool, str]] = field(default_factory=dict)
    opened: set[_Key] = field(default_factory=set)
    events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)


def weigh(
    worker: str,
    notes: Sequence[GateNote],
    apps: Sequence[int],
    keys: Sequence[_Key],
    alarms: Mapping[_Key, int],
) -> Words:
    """The last note of each gate counts; a closed one with an alarm, and its opening, go to the event log.

    `apps` and `keys` are the numbers that belong to each note, `alarms` the column `alarm` of gates that have a row.
    """
    words = Words()
    alarmed = {key: bool(alarm) for key, alarm in alarms.items()}
    for note, app, key in zip(notes, apps, keys, strict=True):
        about: dict[str, Any] = {"binding": note.binding, "scope": note.scope, "name": note.name}
        if note.waiting:
            owed = alarmed.get(key, False)
            alarm = ALARM if note.alarm else _OWED if owed else _CALM
            words.closed[key] = (*key, note.waiting, note.reason, note.until, alarm, note.whole, worker)
            words.opened.discard(key)
            alarmed[key] = note.alarm or owed
            if note.alarm and not owed:
                about |= {"waiting": note.waiting, "reason": note.reason, "until": note.until}
                words.events.append((app, "binding.parked", about))
        else:
            words.closed.pop(key, None)
            words.opened.add(key)
            if alarmed.pop(key, False):
                words.events.append((app, "binding.opened", about))
    return words
