"""One scrape: the answers of the engine and of storage at that moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Self
from weakref import WeakKeyDictionary

from fanout.core.fleet import outlived
from fanout.engine import Engine
from fanout.engine.counters import Histogram
from fanout.engine.observing import observe
from fanout.errors import FanoutError
from fanout.metrics.families import Stored, families
from fanout.metrics.text import CONTENT_TYPE, page

__all__ = ["CONTENT_TYPE", "LoopLag", "render"]

_LATE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_EVERY = 0.5
_PROMPT = 1.0
"""Seconds within which a scrape is answered: the alert for a database that is dark must not wait for it."""


async def render(
    engine: Engine,
    *,
    lag: LoopLag | None = None,
    refused: Mapping[tuple[str, str], int] | None = None,
    app: str | None = None,
) -> bytes:
    """The metrics of an open engine in the Prometheus text format; serve them as `CONTENT_TYPE`.

    A few reads of storage for each app, and as many steps as there are groups and leases. Storage that does not answer
    within a second is itself a metric (`fanout_storage_up`): then its last answer is told, with its age
    (`fanout_storage_stale_seconds`).

    Args:
        engine: The open engine.
        lag: The measure of the event loop's lag; None leaves its metric out.
        refused: A service's security events by app and reason; None leaves their metric out.
        app: The app whose series are wanted, with those that are of no app; None for all.

    Returns:
        The text.

    Example:
        ```python
        body = await render(engine)
        ```
    """
    view = observe(engine)
    asked = _asked.setdefault(engine, _Asked())
    up = await asked.within(_PROMPT, engine)
    stored, workers = asked.last
    age = 0.0 if up else time.monotonic() - asked.at
    found = families(view, stored, lag.histogram if lag is not None else None, _version(), workers, refused, age=age)
    return page(found if app is None else [family.of(app) for family in found])


class _Asked:
    """One engine's questions to storage: one at a time, and the latest answer."""

    def __init__(self) -> None:
        self.last: tuple[dict[str, Stored] | None, int | None] = (None, None)
        self.at = time.monotonic()
        self._task: asyncio.Future[None] | None = None

    async def within(self, seconds: float, engine: Engine) -> bool:
        """Ask, or wait for the answer to the previous question; whether it came."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._ask(engine))
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        task = self._task
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            return False
        try:
            task.result()
        except FanoutError:
            return False
        return True

    async def _ask(self, engine: Engine) -> None:
        reads = engine.reads
        apps = dict.fromkeys(app for app, _ in engine.transports)
        stored = {app: Stored(await reads.outstanding(app), await reads.backlog(app)) for app in apps}
        workers = None
        if reads.shared and reads.has("fleet"):
            now = observe(engine).now
            notes = await reads.workers(now)
            workers = sum(not outlived(note.seen_at, note.until, now) for note in notes)
        self.last, self.at = (stored, workers), time.monotonic()


_asked: WeakKeyDictionary[Engine, _Asked] = WeakKeyDictionary()


@cache
def _version() -> str:
    return version("fanout-push")


class LoopLag:
    """How late the event loop calls a timer, twice a second while this context manager is entered. In a running
    loop."""

    def __init__(self) -> None:
        self.histogram = Histogram(_LATE)
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._next()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        self._timer = self._loop.call_at(self._loop.time() + _EVERY, self._due, self._loop.time() + _EVERY)

    def _due(self, when: float) -> None:
        self.histogram.observe(max(0.0, self._loop.time() - when))
        self._next()
