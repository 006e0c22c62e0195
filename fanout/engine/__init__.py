"""The I/O shell around the pure core: intake, dispatch, sending, settling, and the janitor.

`bootstrap` makes an `Engine` from settings, plugins and storage; users of the library get it from `fanout.open`.
Only `bootstrap` and the packages above it import this package. The path of one notification through it, a module per
verb:

    submit   intake.py       validate, prepare, build the requests that storage puts
    lease    dispatcher.py   per binding: lanes, leases, ids -> endpoints, groups
    send     sender.py       one attempt, from gate to outcome
    settle   settler.py      batches of results in one commit, then live events
"""

from fanout.engine.context import EngineOptions, Renewer, Role
from fanout.engine.engine import DrainReport, Engine, Preview
from fanout.engine.link import FleetLink
from fanout.engine.live import LiveEvent
from fanout.engine.receipt import Receipt

__all__ = [
    "DrainReport",
    "Engine",
    "EngineOptions",
    "FleetLink",
    "LiveEvent",
    "Preview",
    "Receipt",
    "Renewer",
    "Role",
]
