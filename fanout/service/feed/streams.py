"""One open event stream, which a client of `/v1/me/feed/events` reads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import orjson
from starlette.responses import Response

from fanout.core.counts import Counts
from fanout.core.cursor import Cursor
from fanout.core.feed import FeedItem, Subscription

if TYPE_CHECKING:
    from fanout.service.request import Request

__all__ = ["HEADERS", "EventStream", "event_bytes", "item_json"]

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # Without it nginx keeps the events until its buffer is full.
    (b"x-accel-buffering", b"no"),
]
BEAT = b":\n\n"
"""A comment, which clients pass over: proves that the connection is alive, to both ends and to the proxies between
them."""

_PIECE = 65_536

_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


def event_bytes(event: str, data: Mapping[str, Any], id: str = "") -> bytes:
    """One event in the form of the HTML standard, section 9.2.5. `id` is the cursor from which the reader goes on."""
    head = f"id: {id}\nevent: {event}\n" if id else f"event: {event}\n"
    return head.encode() + b"data: " + orjson.dumps(data) + b"\n\n"


def item_json(item: FeedItem, now: float) -> dict[str, Any]:
    """An item as clients get it. Times are UNIX seconds; `display_ttl` is its remaining time, in whole seconds."""
    left = None if item.display_until is None else max(0, int(item.display_until - now))
    return {
        "id": item.id,
        "external_id": item.external_id,
        "status": "deleted" if item.deleted else "active",
        "read": item.read,
        "action": item.action,
        "group": item.group,
        "priority": item.priority,
        "created_at": item.created_at,
        "modified_at": item.modified_at,
        "expires_at": item.expires_at,
        "display_ttl": left,
        "broadcast": item.broadcast,
        "content": None if item.deleted else orjson.loads(item.content),
        "etag": f'"{item.seq}"',
    }


class Streams(Protocol):
    """The keeper of a stream: it is told when the stream's request comes and goes, and writes to the stream."""

    def admit(self, stream: EventStream, /) -> None:
        """The request has come. Raises `FeedError` where there are too many."""
        ...

    async def begin(self, stream: EventStream, /) -> None:
        """Send the changes that the reader lacks, and all later ones."""
        ...

    def leave(self, stream: EventStream, /) -> None:
        """The request has gone."""
        ...


@dataclass(slots=True, eq=False, repr=False)
class EventStream(Response):
    """An ASGI response that stays open. `cursor` is its reader's position; events are read from storage when they can
    be sent, so that nothing queues up for a slow reader, and no other reader waits for her.

    Only the hub writes to it, one piece at a time: `busy` while it does, and `behind` when there is more by then.
    `counts` are those that its reader was told last; with `recount` their present values are not known. `lag` counts
    the changes that it has had since it was last up to date. `said` are events about the stream itself that go next,
    and `last` means that it ends after them. The task that serves the request waits for the reader to go. Times are
    monotonic, but for `ends_at`, when the caller's credential ends (UNIX seconds).
    """

    # Not the base's own beginning: it renders a body.
    hub: Streams
    app: str
    user: str
    cursor: Cursor | None
    subscription: Subscription | None
    credentials: Request
    ends_at: float
    background: None = None
    state: str = ""
    behind: bool = False
    lag: int = 0
    counts: Counts | None = None
    recount: bool = False
    busy: bool = True
    closing: bool = False
    said: bytes = b""
    last: bool = False
    checking: bool = False
    checked_at: float = 0.0
    read_at: float = 0.0
    quiet_since: float = 0.0
    sending_since: float | None = None
    task: asyncio.Task[Any] | None = None
    transmit: _Send | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        """Serve the request until its reader or the hub ends it."""
        self.hub.admit(self)
        self.task = asyncio.current_task()
        self.transmit = send
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            await self.hub.begin(self)
            while (await receive())["type"] != "http.disconnect":
                pass
        except asyncio.CancelledError:
            # A server that ends cancels all open requests, and an open stream is no fault: raised, each would be logged
            # as one.
            if self.closing and self.task is not None:
                self.task.uncancel()  # the hub's own doing, and not the server's
            if self.sending_since is None:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self.transmit = None
            self.hub.leave(self)

    def counted(self, counts: Counts) -> bytes:
        """The event that tells the reader these counts; nothing where they are as the last ones."""
        before, self.counts = self.counts, counts
        if before is not None and (before.unread, before.unseen) == (counts.unread, counts.unseen):
            return b""
        return event_bytes("counts", {"unread": counts.unread, "unseen": counts.unseen})

    async def send(self, data: bytes, now: float) -> None:
        """Hand it to the connection; waits while the reader leaves earlier bytes lying. `now` is monotonic."""
        transmit = self.transmit
        if transmit is None:
            return
        self.quiet_since = self.sending_since = now
        try:
            for at in range(0, len(data), _PIECE):
                # The connection takes a whole piece, and then waits for its reader: so it never holds much more than
                # one.
                await transmit({"type": "http.response.body", "body": data[at : at + _PIECE], "more_body": True})
        finally:
            self.sending_since = None

    def close(self) -> None:
        """End it, even while it sends."""
        if not self.closing and self.task is not None:
            self.closing = True
            self.task.cancel()
