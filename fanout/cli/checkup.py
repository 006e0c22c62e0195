"""The checks of `fanout doctor`, run by a worker beside its work: told in the log, and never in the way of a
delivery."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from fanout.cli.doctor import examine
from fanout.cli.findings import Finding
from fanout.config import in_thread
from fanout.engine import Engine
from fanout.registry import Registry

__all__ = ["check_up", "look_around"]

_log = logging.getLogger("fanout.doctor")
_AFTER = 5.0
"""Seconds after the start: a worker that ends at once, and is started again and again, asks no gateway each time."""


async def check_up(engine: Engine) -> None:
    """Once, a little after the start, log faults of a binding's credential or gateway, present or coming. Raises
    nothing.

    Gateways are asked through the engine's own connections and tokens: Apple refuses a second new token within twenty
    minutes.  Nothing is pushed.
    """
    await asyncio.sleep(_AFTER)
    try:
        found = await engine.check()
    except Exception as error:
        _log.warning("The bindings could not be examined: %s.", type(error).__name__)
        return
    reported: set[str] = set()
    for name, diagnosis in found.items():
        _tell(name, diagnosis.problem, diagnosis.warning, reported)


async def look_around(config: Path | None) -> None:
    """The same for all else that `fanout doctor` looks at: plugins, files, the database, the callers of the service.
    Raises nothing.

    The check runs in a thread with an event loop of its own, which ends with the process at any point of waiting.
    """

    async def gathered() -> list[Finding]:
        return [finding async for finding in examine(config, Registry(), beside=True)]

    await asyncio.sleep(_AFTER)
    try:
        found = await in_thread(lambda: asyncio.run(gathered()))
    except Exception as error:
        _log.warning("The configuration could not be examined: %s.", type(error).__name__)
        return
    reported: set[str] = set()
    for finding in found:
        _tell(" ".join(filter(None, (finding.kind, finding.name))), finding.problem, finding.warning, reported)


def _tell(name: str, problem: str, warning: str, reported: set[str]) -> None:
    for level, text in ((logging.ERROR, problem), (logging.WARNING, "" if problem else warning)):
        if text and text not in reported:
            reported.add(text)
            _log.log(level, "%s: %s", name, text)
