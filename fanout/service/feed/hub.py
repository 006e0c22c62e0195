"""All open event streams of a process: one look at storage for all of them, and only those woken whose feeds have
changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextvars import Context
from typing import Any

from fanout.core.counts import Counts
from fanout.core.cursor import Cursor, topics_digest
from fanout.core.feed import FeedItem, FeedPage, Touched, user_digest
from fanout.engine.reads import Reads
from fanout.errors import FanoutError
from fanout.plugin import Clock
from fanout.service.feed.behind import fresh, read_behind
from fanout.service.feed.errors import FeedError
from fanout.service.feed.rights import Authenticates, refusal, subscription_state
from fanout.service.feed.settings import FeedSettings
from fanout.service.feed.streams import BEAT, EventStream, event_bytes, item_json

__all__ = ["Hub"]

_log = logging.getLogger("fanout.service")

_NOWHERE = 2**32
"""The database of a stream's cursor: no database has this identity."""
_READS = 32
"""Streams whose changes are read at once: of a broadcast, the storage's thread gets to its writes in between."""
_SLICE = 100
"""Streams that are woken before the loop turns."""
_SCANS = 1.0
"""Seconds between two looks at which streams want a sign of life."""


class Hub:
    """The streams by (app, user), the task that notices changes, and the one that keeps streams alive and ends those
    that must end.

    A stream is admitted when its request comes and leaves when it goes.
    """

    def __init__(self, reads: Reads, settings: FeedSettings, clock: Clock) -> None:
        self.authenticator: Authenticates | None = None
        self._reads = reads
        self._settings = settings
        self._clock = clock
        self._streams: dict[tuple[str, str], set[EventStream]] = {}
        self._count = 0
        self._seq = -1
        self._seen = -1
        self._database = self._incarnation = 0
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(_READS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._ended = True

    def __len__(self) -> int:
        return self._count

    # -- lifecycle

    async def start(self) -> None:
        """Begin to look. Streams are taken from here on."""
        self._database = await self._reads.feed.identity()
        self._incarnation = self._reads.incarnation
        self._ended = False
        # Not in the context of the code that starts it: that may be a request.
        self._loops = [asyncio.create_task(loop(), context=Context()) for loop in (self._watch, self._keep)]

    async def stop(self) -> None:
        """End the streams and the looking."""
        await self.close_streams()
        tasks = [*self._loops, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._loops = []

    async def close_streams(self) -> None:
        """End every stream, and admit no more. Returns when they have ended, or after a second."""
        self._ended = True
        waiting = []
        for stream in self._all():
            stream.close()
            if stream.task is not None and stream.task is not asyncio.current_task():
                waiting.append(stream.task)
        if waiting:
            await asyncio.wait(waiting, timeout=1.0)

    def nudge(self) -> None:
        """Something was committed here: look now."""
        self._wake.set()

    # -- streams

    def check_room(self, app: str, user: str) -> None:
        """Raise `FeedError` 429 where there are too many streams already, or the service ends; `PartAbsent` without a
        feed."""
        _ = self._reads.feed
        if self._ended:
            raise FeedError(429, "ending", "The service is about to end: connect again in a moment.")
        mine = len(self._streams.get((app, user), ()))
        if self._count >= self._settings.streams or mine >= self._settings.streams_per_user:
            raise FeedError(429, "streams", "Too many event streams are open: close one that is not needed.")

    def admit(self, stream: EventStream) -> None:
        """One more is open."""
        self._streams.setdefault((stream.app, stream.user), set()).add(stream)
        self._count += 1
        self._wake.set()

    def leave(self, stream: EventStream) -> None:
        """It has ended."""
        mine = self._streams.get((stream.app, stream.user), set())
        if stream in mine:
            mine.remove(stream)
            self._count -= 1
            if not mine:
                del self._streams[stream.app, stream.user]

    async def begin(self, stream: EventStream) -> None:
        """Say where the stream begins: at the reader's cursor, or else at this moment; and send the changes since."""
        page = await self._read(stream, None)
        cursor = stream.cursor
        resync = cursor is not None and not self._fresh(cursor, page)
        if cursor is None or resync:
            cursor = stream.cursor = Cursor(self._database, page.head, topics_digest(page.topics))
        hello = event_bytes("resync" if resync else "cursor", {"cursor": str(cursor)}, str(cursor))
        hello += stream.counted(await self._reads.feed.counts(stream.app, stream.user, self._clock.now()))
        stream.checked_at = stream.read_at = self._clock.monotonic()
        await stream.send(b"retry: 2000\n" + hello, stream.checked_at)
        await self._check_subscription(stream)
        self._release(stream)
        self._push(stream)

    def _all(self) -> list[EventStream]:
        return [stream for mine in self._streams.values() for stream in mine]

    # -- changes

    async def _watch(self) -> None:
        """Notice commits, of this process and of others, while a stream listens."""
        while True:
            if not self._streams:
                self._seen = self._seq = -1
                await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.poll):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._look()
            except FanoutError as error:
                _log.error("Event streams cannot see changes: %s", error)
                await asyncio.sleep(_SCANS)

    async def _look(self) -> None:
        changes = await self._reads.changes()
        if self._reads.incarnation != self._incarnation:
            await self._forget()
        if changes == self._seen or not self._streams:
            return
        first = self._seq < 0
        touched = await self._reads.feed.touched(2**62 if first else self._seq)
        if touched.head < self._seq:
            # It only grows: a backup was restored below us.
            await self._forget()
            return
        self._seen = changes
        self._seq = touched.head
        if first:
            await self._each(self._all(), self._push)
            return
        alone = {owner for owner in touched.users if owner in self._streams}
        if touched.erased:
            alone |= {owner for owner in self._streams if (owner[0], user_digest(owner[1])) in touched.erased}
        await self._each([stream for owner in alone for stream in self._streams[owner]], self._push_anew)
        for app in {app for app, user in touched.users if not user}:
            await self._tell_all(app, alone, touched)

    async def _forget(self) -> None:
        """Storage has another database than before, in which the positions of streams are not known: each reader is
        told to begin anew."""
        self._database = await self._reads.feed.identity()
        self._incarnation = self._reads.incarnation
        self._seen = self._seq = -1
        for stream in self._all():
            if stream.cursor is not None:
                stream.cursor = Cursor(_NOWHERE, stream.cursor.seq, stream.cursor.topics)
        await self._each(self._all(), self._push)

    async def _tell_all(self, app: str, alone: set[tuple[str, str]], touched: Touched) -> None:
        """Hand broadcast items to the streams of an app, but for those `alone`, which read for themselves.

        A stream that stands still has everything up to the last look. So nothing is read for it: the new items are the
        same for all.
        """
        others = [
            stream
            for owner in self._streams
            if owner[0] == app and owner not in alone
            for stream in self._streams[owner]
        ]
        items = [(topic, item) for owner, topic, item in touched.shared or () if owner == app]
        if touched.shared is None or any(topic is not None for topic, _ in items):
            await self._each(others, self._push)
            return
        now = self._clock.now()
        made: dict[int, bytes] = {}

        def tell(stream: EventStream) -> None:
            if self._over(stream):
                return
            cursor = stream.cursor
            if stream.busy or stream.behind or cursor is None or cursor.seq >= touched.head:
                self._push(stream)
                return
            if cursor.topics not in made:
                made[cursor.topics] = self._items_event([item for _, item in items], cursor.topics, now)
            data = made[cursor.topics]
            counts = None if stream.counts is None else stream.counts.after((item for _, item in items), touched.head)
            stream.cursor = Cursor(self._database, touched.head, cursor.topics)
            stream.busy = True
            stream.behind = stream.recount = counts is None  # then her counts are read once this is sent
            self._spawn(self._send(stream, data if counts is None else data + stream.counted(counts)))

        await self._each(others, tell)

    async def _each(self, streams: Sequence[EventStream], do: Callable[[EventStream], None]) -> None:
        """For each of these, letting the loop turn in between: another user's change must not wait for all of them."""
        for number, stream in enumerate(streams, 1):
            do(stream)
            if number % _SLICE == 0:
                await asyncio.sleep(0)

    async def _send(self, stream: EventStream, data: bytes) -> None:
        try:
            await stream.send(data, self._clock.monotonic())
        finally:
            self._release(stream)
        if stream.behind:
            self._push(stream)

    def _push_anew(self, stream: EventStream) -> None:
        """`_push`, of a stream whose user's own part of the feed has changed: her counts are read again."""
        stream.recount = True
        self._push(stream)

    def _push(self, stream: EventStream) -> None:
        """Send it the changes that it lacks; if something is just being sent to it, after that."""
        stream.behind = True
        if not self._over(stream) and not stream.busy:
            stream.busy = True
            self._spawn(self._catch_up(stream))

    async def _catch_up(self, stream: EventStream) -> None:
        try:
            while stream.behind and stream.cursor is not None and not self._over(stream):
                stream.behind = False
                async with self._slots:
                    data = await self._lacking(stream, stream.cursor)
                if data:
                    await stream.send(data, self._clock.monotonic())
        except FanoutError:
            # Changes that it lacks are read when the database is back (`_supervise`), and not only at the next change.
            stream.behind = True
            raise
        finally:
            self._release(stream)

    async def _lacking(self, stream: EventStream, cursor: Cursor) -> bytes:
        page = await self._read(stream, cursor.seq)
        counts = await self._counts(stream, page)
        return self._events(stream, page) + stream.counted(counts)

    async def _counts(self, stream: EventStream, page: FeedPage) -> Counts:
        """How her counts stand after this page: by its items where these suffice."""
        assert stream.cursor is not None
        whole = not stream.recount and not page.more and self._fresh(stream.cursor, page)
        counts = stream.counts.after(page.items, page.seq) if whole and stream.counts is not None else None
        if counts is None:
            stream.recount = False  # before it is read: a change from here on asks for it anew
            try:
                counts = await self._reads.feed.counts(stream.app, stream.user, self._clock.now())
            except FanoutError:
                stream.recount = True
                raise
        return counts

    def _events(self, stream: EventStream, page: FeedPage) -> bytes:
        """The events of a page for that reader, which then stands after it. A change by the reader's own device is not
        told to it."""
        assert stream.cursor is not None
        topics = topics_digest(page.topics)
        if page.more or not self._fresh(stream.cursor, page):
            stream.cursor = Cursor(self._database, page.head, topics)
            return event_bytes("resync", {"cursor": str(stream.cursor)}, str(stream.cursor))
        own = stream.subscription.id if stream.subscription is not None else -1
        now = self._clock.now()
        stream.cursor = Cursor(self._database, page.seq, topics)
        return self._items_event([item for item in page.items if item.writer != own], topics, now)

    def _items_event(self, items: Iterable[FeedItem], topics: int, now: float) -> bytes:
        return b"".join(
            event_bytes("change", item_json(item, now), str(Cursor(self._database, item.seq, topics))) for item in items
        )

    def _fresh(self, cursor: Cursor, page: FeedPage) -> bool:
        return cursor.database == self._database and fresh(cursor, page)

    async def _read(self, stream: EventStream, after: int | None) -> FeedPage:
        """The changes after that number; with None, only the position of the feed."""
        now, since = self._clock.now(), 2**62 if after is None else after
        return await read_behind(self._reads.feed, stream, since, now, backlog=self._settings.backlog)

    # -- keeping

    async def _keep(self) -> None:
        """Signs of life, tokens that have ended, subscriptions about to end, readers that do not read."""
        while True:
            await asyncio.sleep(min(_SCANS, self._settings.heartbeat))
            await self._each(self._all(), self._supervise)

    def _supervise(self, stream: EventStream) -> None:
        now = self._clock.monotonic()
        if self._over(stream):
            pass
        elif not stream.checking and now - stream.checked_at >= self._settings.heartbeat:
            stream.checking = True
            self._spawn(self._check(stream))
        elif stream.behind and not stream.busy:
            self._push(stream)
        if stream.sending_since is not None:
            if now - stream.sending_since > self._settings.patience:
                stream.close()
        elif now - stream.quiet_since >= self._settings.heartbeat:
            self._say(stream, BEAT)

    def _over(self, stream: EventStream) -> bool:
        """Whether nothing more of the feed may go to it: it ends, or its token has ended, which is said now."""
        if not stream.last and self._clock.now() >= stream.ends_at:
            self._say(
                stream,
                event_bytes("unauthorized", {"message": "The token has ended: connect again with a new one."}),
                last=True,
            )
        return stream.last or stream.closing

    def _say(self, stream: EventStream, data: bytes, *, last: bool = False) -> None:
        """Send it this as soon as nothing else is being sent; after the `last` it is closed."""
        if stream.last or (data is BEAT and stream.busy):
            return
        stream.said += data
        stream.last = last
        if not stream.busy:
            self._release(stream)

    def _release(self, stream: EventStream) -> None:
        """The events that were being sent have been; those that came meanwhile go next."""
        stream.busy = bool(stream.said) and not stream.closing
        if stream.busy:
            self._spawn(self._tell(stream))

    async def _tell(self, stream: EventStream) -> None:
        data, stream.said = stream.said, b""
        try:
            await self._send(stream, data)
        finally:
            if stream.last and not stream.said:
                stream.close()

    def check_all(self, apps: Collection[str] | None = None) -> None:
        """The rights of callers, or the signers of these apps, have changed: look at credential and subscription of
        each stream at the next turn."""
        for stream in self._all():
            if apps is None or stream.app in apps:
                stream.checked_at = stream.read_at = float("-inf")

    def check(self, subscriptions: Collection[int]) -> None:
        """These subscriptions have ended: so do their streams, within a second."""
        for stream in self._all() if subscriptions else ():
            if stream.subscription is not None and stream.subscription.id in subscriptions:
                stream.checked_at = stream.read_at = float("-inf")

    async def _check(self, stream: EventStream) -> None:
        """Whether its caller and its subscription are still good, even while changes go through it."""
        try:
            stream.checked_at = self._clock.monotonic()
            refused = await refusal(self.authenticator, stream)
            if refused:
                self._say(stream, event_bytes("unauthorized", {"message": refused}), last=True)
            else:
                await self._check_subscription(stream)
        finally:
            stream.checking = False

    async def _check_subscription(self, stream: EventStream) -> None:
        """Tell a device when its subscription is about to end. When it has ended, the stream ends too, after the event
        that says so."""
        monotonic, now = self._clock.monotonic(), self._clock.now()
        state = await subscription_state(self._reads.feed, stream, monotonic, now, self._settings.warning)
        if stream.subscription is not None and state not in (stream.state or "active"):
            data = {"id": stream.subscription.id, "state": state, "expires_at": stream.subscription.expires_at}
            self._say(stream, event_bytes("subscription", data), last=state in ("expired", "ended"))
        stream.state = state

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guard(coroutine))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except (FanoutError, OSError) as error:
            _log.error("An event stream could not be served: %s", error)
