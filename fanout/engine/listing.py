"""What storage lists in pages, as iterators. Each begins with `check`, which raises where the engine is not open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from fanout.core import given
from fanout.core.records import Event
from fanout.core.states import FINAL_STATES
from fanout.engine.signal import Signal
from fanout.errors import UsageError
from fanout.plugin import Storage

__all__ = ["deliveries", "events"]

_EVENTS_PAGE = 500


async def deliveries(
    storage: Storage, check: Callable[[], None], id: str, state: str | None
) -> AsyncIterator[tuple[int, str, str]]:
    """(endpoint id, state or ``pending``, reason) of each delivery of a notification, by endpoint id."""
    after = 0
    given.text("id", id)
    if state not in (None, "pending", *FINAL_STATES):
        raise UsageError(f"state must be one of pending, {', '.join(FINAL_STATES)}, or None for all.")
    while True:
        check()
        page = await storage.deliveries(id, state=state, after=after)
        for row in page:
            yield row
        if not page:
            return
        after = page[-1][0]


async def events(storage: Storage, check: Callable[[], None], after: int, follow: bool) -> AsyncIterator[Event]:
    """The event log from the cursor on; with `follow`, also what is yet to come."""
    seen = -1
    given.number("after", after)
    while True:
        check()
        page = await storage.events(after=after, limit=_EVENTS_PAGE)
        for event in page:
            yield event
            after = event.id
        if page:
            continue
        if not follow:
            return
        while (changes := await storage.changes()) == seen:
            await Signal().wait(0.05)
        seen = changes
