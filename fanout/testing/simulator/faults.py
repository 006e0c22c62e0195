"""How a simulator misbehaves, drawn from a seed so that a run can be repeated."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from fanout.testing.simulator.answers import INTERNAL_ERROR, Disconnect, Reset, Stall

__all__ = ["Drawn", "Faults", "Injector"]

REFUSED_STREAM = 0x7


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Fractions are of all requests, from 0 to 1. Nothing goes wrong by default.

    `errors` maps a reason of the gateway (an APNs reason, say) to its fraction: answered instead of being handled.
    `refuse` resets with REFUSED_STREAM, never handled. `reset` resets with `reset_code`; `reset_after` does so after
    the push was accepted (and written to the ledger). `stall` never answers, `stall_after` does not after accepting.
    `delay` answers `delay_seconds` later, and with `decide_late` it accepts the push then, and not if the connection
    has ended before. `kill_before` and `kill_after` cut the connection before the request is handled and after it was
    accepted.

    `goaway_every` sends GOAWAY after so many requests of a connection; the last stream id it names is too low by
    `goaway_short` requests, which were handled all the same. `shrink_every` announces `shrink_to` concurrent streams
    after so many requests of a connection and the former number after as many more. `body_chunk` splits answer bodies
    into DATA frames of so many bytes.
    """

    seed: int = 0
    errors: Mapping[str, float] = field(default_factory=dict)
    refuse: float = 0.0
    reset: float = 0.0
    reset_after: float = 0.0
    reset_code: int = INTERNAL_ERROR
    stall: float = 0.0
    stall_after: float = 0.0
    delay: float = 0.0
    delay_seconds: float = 0.05
    decide_late: bool = False
    kill_before: float = 0.0
    kill_after: float = 0.0
    goaway_every: int = 0
    goaway_short: int = 0
    shrink_every: int = 0
    shrink_to: int = 1
    body_chunk: int = 0

    def __post_init__(self) -> None:
        shares = [self.refuse, self.reset, self.reset_after, self.stall, self.stall_after, self.kill_before]
        shares += [self.kill_after, *self.errors.values()]
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError("The fractions of faults must not be negative, nor more than 1 together.")

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """From a plain mapping, such as one read from JSON. Raises `ValueError` naming an unknown key."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"No such fault: {', '.join(sorted(unknown))}.")
        return replace(cls(), **values)


@dataclass(frozen=True, slots=True)
class Drawn:
    """The fault for one request: its kind in `what` (a reason is a text), and whether the request is handled first."""

    what: str | Reset | Stall | Disconnect
    handled: bool


class Injector:
    """Draws a fault for each request, or none."""

    __slots__ = ("_random", "_table", "faults")

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._random = random.Random(faults.seed)
        reset = Reset(faults.reset_code)
        rows: list[tuple[float, Drawn]] = [
            (faults.refuse, Drawn(Reset(REFUSED_STREAM), False)),
            (faults.reset, Drawn(reset, False)),
            (faults.reset_after, Drawn(reset, True)),
            (faults.stall, Drawn(Stall(), False)),
            (faults.stall_after, Drawn(Stall(), True)),
            (faults.kill_before, Drawn(Disconnect(), False)),
            (faults.kill_after, Drawn(Disconnect(), True)),
            *((share, Drawn(reason, False)) for reason, share in faults.errors.items()),
        ]
        self._table = [(share, drawn) for share, drawn in rows if share > 0]

    def draw(self) -> Drawn | None:
        """The fault for the next request, if any."""
        if not self._table:
            return None
        point = self._random.random()
        for share, drawn in self._table:
            point -= share
            if point < 0:
                return drawn
        return None

    def delay(self) -> float:
        """Seconds by which the next answer is late."""
        faults = self.faults
        return faults.delay_seconds if faults.delay and self._random.random() < faults.delay else 0.0
