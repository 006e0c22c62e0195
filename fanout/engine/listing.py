"""What storage lists: in pages, as iterators, each of which begins with `check`, which raises where the engine is not open; or whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from fanout.core import given
from fanout.core.records import Event, Step
from fanout.core.states import FINAL_STATES
from fanout.engine.signal import Signal
from fanout.errors import NotFound, UsageError
from fanout.plugin import Storage

__all__ = ["deliveries", "events", "lines", "steps"]

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


async def steps(storage: Storage, id: str, endpoint: int) -> list[Step]:
    """What was decided about one delivery. Raises `NotFound`."""
    found = await storage.explain(given.text("id", id), given.number("endpoint", endpoint))
    if found is None:
        raise NotFound(f"No notification {id} is known here: the id is wrong, or its history has been deleted.")
    if not found:
        raise NotFound(
            f"The notification {id} has no delivery for the endpoint {endpoint}: `fanout endpoints show {endpoint}` says whether "
            "it was registered in time and carries the tag."
        )
    return found


async def lines(
    storage: Storage, check: Callable[[], None], app: str | None, kind: str, since: float, after: int
) -> AsyncIterator[Event]:
    """Lines of the audit log from the cursor on, in pages: of an app, of a kind that begins so, from a time on."""
    while True:
        check()
        page = await storage.events(after=after, limit=_EVENTS_PAGE, audit=True)
        for event in page:
            if (app is None or event.app == app) and event.kind.startswith(kind) and event.at >= since:
                yield event
        if not page:
            return
        after = page[-1].id


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
