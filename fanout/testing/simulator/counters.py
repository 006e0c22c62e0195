"""The counts of a simulator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """The events so far. `rejected` is by reason. `violations` are rules of HTTP/2 that a client broke, one sentence
    each.

    `cancelled` counts streams reset by the client, `refused` those above the announced limit, `unrecorded` the pushes
    whose ids the lean mode could not find. `most_streams` is the highest number open at once on one connection.
    """

    requests: int = 0
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    open_connections: int = 0
    most_streams: int = 0
    goaways: int = 0
    resets: int = 0
    refused: int = 0
    cancelled: int = 0
    stalls: int = 0
    disconnects: int = 0
    pings: int = 0
    unrecorded: int = 0
    violations: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {"rejected": dict(self.rejected)}
