"""One scrape: what the engine and storage say at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Self

from fanout.core.fleet import outlived
from fanout.engine import Engine
from fanout.engine.counters import Histogram, observe
from fanout.errors import FanoutError
from fanout.metrics.families import Stored, families
from fanout.metrics.text import CONTENT_TYPE, page

__all__ = ["CONTENT_TYPE", "LoopLag", "render"]

_LATE = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_EVERY = 0.5


async def render(
    engine: Engine,
    *,
    lag: LoopLag | None = None,
    refused: Mapping[tuple[str, str], int] | None = None,
    app: str | None = None,
) -> bytes:
    """The metrics of an open engine in the Prometheus text format; serve them as `CONTENT_TYPE`.

    A few reads of storage for each app, and as many steps as there are groups and leases. Storage that does not answer is itself
    a metric (`fanout_storage_up`), and what it would have said is left out. With `app` only its series, and those that are of no app.
    `refused` are a service's security events by app and reason.
    """
    view = observe(engine)
    workers = None
    try:
        stored: dict[str, Stored] | None = {
            each: Stored(await engine.storage.outstanding(each), await engine.storage.backlog(each))
            for each in view.apps
        }
        if engine.storage.shared:
            notes = await engine.storage.fleet.workers(view.now)
            workers = sum(not outlived(note.seen_at, note.until, view.now) for note in notes)
    except FanoutError:
        stored = None
    found = families(view, stored, lag.histogram if lag is not None else None, _version(), workers, refused)
    return page(found if app is None else [family.of(app) for family in found])


@cache
def _version() -> str:
    return version("fanout-push")


class LoopLag:
    """How late the event loop calls a timer, twice a second while this context manager is entered. In a running loop."""

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
