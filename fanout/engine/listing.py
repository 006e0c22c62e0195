"""The lists of storage: in pages, as iterators, each of which begins with `check`, which raises where the engine is not
open; or whole."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter, itemgetter
from typing import TypeVar

from fanout.core import given
from fanout.core.codec import decode
from fanout.core.records import Event, Step
from fanout.core.shorten import fitted
from fanout.core.states import FINAL_STATES
from fanout.engine.signal import Signal
from fanout.errors import NotFound, UsageError
from fanout.plugin import Storage, Transport

__all__ = ["BY_ID", "deliveries", "events", "lines", "pages", "shortened", "steps"]

Row = TypeVar("Row")
BY_ID = attrgetter("id")

_EVENTS_PAGE = 500
_SMALL = 1000
"""Bytes of content that every gateway takes in any form."""


async def pages(
    check: Callable[[], None], read: Callable[..., Awaitable[Sequence[Row]]], position: Callable[[Row], int]
) -> AsyncIterator[Row]:
    """The rows of all pages: `read(after=…)` gives those after a position, and `position` the one of a row."""
    after = 0
    while True:
        check()
        page = await read(after=after)
        for row in page:
            yield row
        if not page:
            return
        after = position(page[-1])


async def deliveries(
    storage: Storage, check: Callable[[], None], id: str, state: str | None
) -> AsyncIterator[tuple[int, str, str]]:
    """(endpoint id, state or ``pending``, reason) of each delivery of a notification, by endpoint id."""
    given.text("id", id)
    if state not in (None, "pending", *FINAL_STATES):
        raise UsageError(f"state must be one of pending, {', '.join(FINAL_STATES)}, or None for all.")
    async for row in pages(check, partial(storage.deliveries, id, state=state), itemgetter(0)):
        yield row


async def shortened(
    storage: Storage, transports: Mapping[tuple[str, str], Transport], id: str, binding: str | None = None
) -> list[str]:
    """The bindings, or whether this one, whose gateway takes the notification with less text only. It follows from the
    content, which is prepared once more; one that cannot be prepared is not among them."""
    stored = await storage.notification(id)
    if stored is None or len(stored.content) < _SMALL:
        return []
    whole = decode(stored.content, id=stored.id, accepted_at=stored.accepted_at, expires_at=stored.expires_at)
    found = []
    for (app, name), transport in transports.items():
        if app == stored.app and binding in (None, name):
            with contextlib.suppress(Exception):  # a fault of the plugin is reported when it is sent
                found += [name] if fitted(transport.prepare, whole)[1] else []
    return sorted(found)


async def steps(
    storage: Storage, transports: Mapping[tuple[str, str], Transport], id: str, endpoint: int
) -> list[Step]:
    """The decisions about one delivery. The step `queued` has the reason `shortened` where its gateway takes less text.
    Raises `NotFound`."""
    found = await storage.explain(given.text("id", id), given.number("endpoint", endpoint))
    if found is None:
        raise NotFound(f"No notification {id} is known here: check the id; or its history has been deleted.")
    if not found:
        raise NotFound(
            f"The notification {id} has no delivery for the endpoint {endpoint}: `fanout endpoints show {endpoint}` says whether "
            "it was registered in time and carries the tag."
        )
    stored = await storage.notification(id)
    row = None if stored is None else await storage.get_endpoint(stored.app, endpoint)
    if row is not None and await shortened(storage, transports, id, row.binding):
        found = [replace(step, reason=step.reason or "shortened") if step.what == "queued" else step for step in found]
    return found


async def lines(
    storage: Storage, check: Callable[[], None], app: str | None, kind: str, since: float
) -> AsyncIterator[Event]:
    """Lines of the audit log: of an app, of a kind that begins so, from a time on."""
    async for event in pages(check, partial(storage.events, limit=_EVENTS_PAGE, audit=True), BY_ID):
        if (app is None or event.app == app) and event.kind.startswith(kind) and event.at >= since:
            yield event


async def events(storage: Storage, check: Callable[[], None], after: int, follow: bool) -> AsyncIterator[Event]:
    """The event log from the cursor on; with `follow`, also the events yet to come."""
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
