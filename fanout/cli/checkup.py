"""What `fanout doctor` asks of each binding, asked by a worker beside its work: told in the log, and never in anybody's way."""

from __future__ import annotations

import asyncio
import logging

from fanout.engine import Engine

__all__ = ["check_up"]

_log = logging.getLogger("fanout.doctor")
_AFTER = 5.0
"""Seconds after the start: a worker that ends at once, and is started again and again, asks no gateway each time."""


async def check_up(engine: Engine) -> None:
    """Once, a little after the start, log what is wrong with a binding's credential or gateway, or will be. Raises nothing.

    The database has been opened and the configuration read by then, so bindings are all that is left to prove. Nothing is pushed to anybody.
    """
    await asyncio.sleep(_AFTER)
    try:
        found = await engine.check()
    except Exception as error:
        _log.warning("The bindings could not be examined: %s.", type(error).__name__)
        return
    for name, diagnosis in found.items():
        app, _, binding = name.partition("/")
        if diagnosis.problem:
            _log.error("%s/%s: %s", app, binding, diagnosis.problem)
        elif diagnosis.warning:
            _log.warning("%s/%s: %s", app, binding, diagnosis.warning)
