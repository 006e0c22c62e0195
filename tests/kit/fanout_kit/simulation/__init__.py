"""Deterministic simulation: the production engine, storage and HTTP client in virtual time, on a network, a disk and a
fate drawn from a seed.

`simulate(seed)` runs two workers on one SQLite file against simulated gateways, makes the seed's faults happen, and
judges the result: nothing lost, nothing falsely reported, nothing sent too late, twice without a reason, or to the
wrong person. The same seed gives the same run, byte for byte, so that a failure is found once and looked at as often as
needed.

Only the clock, chance, sockets and the storage's thread are swapped. `world` is virtual time, `loop` a process's event
loop, `network` its sockets, `disk` its storage's thread; `plan`, `steps` and `fate` are the events; `gateway` and
`transport` the two ends of the wire; `observe` and `history` the record, `checks` the verdicts on it; `bugs` are
planted, to see them found. Tests, and `python -m fanout_kit.simulation`, import it. Its imports follow the rules of
`fanout_kit`.
"""

from __future__ import annotations

from fanout_kit.simulation.bugs import BUGS, Bug
from fanout_kit.simulation.checks import Violation
from fanout_kit.simulation.plan import Plan, draw
from fanout_kit.simulation.run import Report, simulate

__all__ = ["BUGS", "Bug", "Plan", "Report", "Violation", "draw", "simulate"]
