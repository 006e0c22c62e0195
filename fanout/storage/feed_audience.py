"""Which of a target's endpoints a submission with an audience is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fanout.storage.chunks import Start

__all__ = ["admit"]


def admit(
    starts: Sequence[Start],
    by: Mapping[tuple[int, Any], Sequence[Sequence[Any]]],
    unseen: Mapping[int, set[int]],
) -> None:
    """Fill in `found`: for each binding the endpoints that the start's audience admits, ids ascending.

    `by` are the active endpoints of each (app, user or endpoint id): id, binding, `receive`, platform, the binding's
    name. `unseen` are the endpoints that have fetched the item, for each fallback whose item is as it was posted.
    """
    for start in starts:
        audience = start.audience
        assert audience is not None
        found: dict[int, list[int]] = {}
        without = {audience.exclude}
        if audience.unseen and start.notification:
            if start.notification not in unseen:
                start.found = found
                continue
            without |= unseen[start.notification]
        rows = [row for name in start.names for row in by.get((start.app, name), ())]
        for id, binding, receive, platform, label in sorted(rows, key=lambda row: row[0]):
            if id not in without and audience.admits(receive, platform, label):
                found.setdefault(binding, []).append(id)
        start.found = found
