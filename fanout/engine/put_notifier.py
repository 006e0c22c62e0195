"""The notices of accepted notifications; and those that come through the inbox, from transactions of the host's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Self

from fanout.core.codec import decode
from fanout.core.records import Put, Submission
from fanout.core.text import cleaned
from fanout.engine.context import EngineContext
from fanout.engine.dispatcher import Dispatcher
from fanout.engine.intake import Intake, Request
from fanout.engine.live import Live
from fanout.engine.settler import Settler
from fanout.engine.signal import Signal
from fanout.engine.upkeep import Upkeep
from fanout.errors import StorageError, StorageFull, UsageError
from fanout.plugin import Inbox

__all__ = ["PutNotifier"]

_log = logging.getLogger("fanout.put_notifier")
_POLL = 30.0
"""Seconds between two looks into the inbox although the upkeep has seen nothing there."""
_BATCH = 200
"""Notifications that are taken in one transaction: some 50 ms."""


Expected = list[tuple[Dispatcher, set[int], list[int] | None]]
"""The dispatchers that are to lease, of which lanes, and how often each had asked for a lease of them before; None
where they have not been told yet."""


class PutNotifier:
    """Tells the engine of notifications that are new, from any process."""

    def __init__(self, context: EngineContext, intake: Intake, apps: Sequence[str]) -> None:
        self._storage = context.storage
        self._intake = intake
        self._apps = sorted(set(apps))
        self._clock = context.clock
        self._patience = context.trouble.patience()
        self._dispatchers: Sequence[Dispatcher] = ()
        self._live: Live
        self._settler: Settler
        self._upkeep: Upkeep
        self._concerned: dict[str, list[Dispatcher]] = {}

    @property
    def _inbox(self) -> Inbox | None:
        return getattr(self._storage, "inbox", None)

    def heard_by(self, dispatchers: Sequence[Dispatcher], live: Live, settler: Settler, upkeep: Upkeep) -> Self:
        """Set the listeners that `announce` tells."""
        self._dispatchers, self._live, self._settler, self._upkeep = dispatchers, live, settler, upkeep
        return self

    def expect(self, app: str, requests: Sequence[Request], now: float) -> Expected:
        """These are put in the next moment: where storage keeps the order, have them leased behind that, and in its
        commit if possible.

        The result is for `announce`.
        """
        due = [request for request in requests if request.submission.due_at <= now]
        if not due:
            return []
        lanes = {request.submission.lane for request in due}
        expected: Expected = []
        for dispatcher in self._of(app):
            dispatcher.know(due)
            expected.append((dispatcher, lanes, dispatcher.look(lanes) if self._storage.in_order else None))
        return expected

    def _of(self, app: str) -> list[Dispatcher]:
        """The dispatchers of an app: an engine may have hundreds of others."""
        if app not in self._concerned:
            self._concerned[app] = [each for each in self._dispatchers if each.state.app == app]
        return self._concerned[app]

    def announce(
        self, app: str, requests: Sequence[Request], puts: Sequence[Put], now: float, expected: Expected
    ) -> None:
        """These were put just now: tell the listeners, and lease those not leased since they were `expected`."""
        if self._live.heard:
            self._live.emit("put", now, app=app, notifications=[put.id for put in puts if put.id])
        for dispatcher, due, before in expected:
            asked = dispatcher.asked
            if left := due if before is None else {lane for lane in due if asked[lane] == before[lane]}:
                dispatcher.look(left)
        later = keyed = False
        count = 0
        superseded: dict[str, str] = {}
        for request, put in zip(requests, puts, strict=True):
            submission = request.submission
            later = later or submission.due_at > now
            keyed = keyed or submission.collapse_key is not None
            if put.id and not put.replayed:
                count += 1
            if put.superseded:
                superseded |= dict.fromkeys(put.superseded, "superseded")
        self._settler.tally.put(app, count)
        if later:
            # Each dispatcher sleeps until the work that it knows of is due, and this may be sooner.
            for dispatcher in self._of(app):
                dispatcher.state.signal.set()
        if superseded:
            for dispatcher in self._dispatchers:
                dispatcher.stops.tell(superseded)
        if keyed:
            self._upkeep.look.set()

    async def enqueue(self, connection: object, request: Request) -> Put:
        """Put a request into the transaction of `connection`. Raises `UsageError` where the storage has no inbox."""
        inbox = self._inbox
        if inbox is None:
            raise UsageError(
                'connection= needs a database that the host\'s transactions reach too: use storage = "postgresql://…", or leave it out.'
            )
        return await inbox.enqueue(connection, request.submission, self._clock.now())

    async def run(self) -> None:
        """Take the notifications that are committed into the inbox, where there is one."""
        inbox = self._inbox
        while inbox is not None:
            await self._upkeep.arrived.wait(_POLL)
            inbox.pending = False
            try:
                while await inbox.due(self._apps, self._clock.now()) and await self._take(inbox) == _BATCH:
                    pass
                self._patience.well()
            except StorageError as error:
                pause = self._patience.failed(error)
                if self._patience.first:
                    what = "The disk is full" if isinstance(error, StorageFull) else str(error)
                    _log.error("Enqueued notifications wait in the inbox: %s", what)
                inbox.pending = True
                await Signal().wait(pause)

    async def _take(self, inbox: Inbox) -> int:
        now = self._clock.now()
        taken = await inbox.take(self._apps, self._judge, now, limit=_BATCH)
        for each in taken:
            if each.refused:
                _log.error("The enqueued notification %s was refused: %s", each.submission.id, each.refused)
        good = [each for each in taken if not each.refused]
        for app in {each.submission.app for each in good}:
            mine = [each for each in good if each.submission.app == app]
            requests = [Request(each.submission, {}) for each in mine]
            self.announce(app, requests, [each.put for each in mine], now, self.expect(app, requests, now))
        return len(taken)

    def _judge(self, submission: Submission) -> tuple[Submission, Mapping[str, str]]:
        """The submission as `send` would put it, and for each binding that cannot take it the reason. Raises
        `UsageError`."""
        notification = decode(
            submission.content, id=submission.id, accepted_at=submission.accepted_at, expires_at=submission.expires_at
        )
        request = self._intake.judged(submission, notification)
        return request.submission, {binding: cleaned(error) for binding, error in request.refusals.items()}
