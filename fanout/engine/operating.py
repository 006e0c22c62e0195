"""The operations of an engine on notifications that it has accepted, on bindings, users, and itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from fanout.core import given
from fanout.core.fleet import WorkerNote
from fanout.core.model import Notification, Target
from fanout.core.policy import Policy
from fanout.core.records import Event, GateNote, Status, Step
from fanout.engine import listing
from fanout.engine.acting import audit
from fanout.engine.binding_state import BindingState
from fanout.engine.context import Role
from fanout.engine.diagnose import diagnose
from fanout.engine.dispatcher import Dispatcher
from fanout.engine.exporting import erase, export
from fanout.engine.halting import until_held, until_put_down
from fanout.engine.intake import Intake
from fanout.engine.live import Live, LiveEvent
from fanout.engine.patience import Trouble
from fanout.engine.preview import DrainReport, Preview, drain, preview
from fanout.engine.settler import Settler
from fanout.engine.upkeep import Upkeep
from fanout.engine.waiters import Waiters
from fanout.errors import NotFound
from fanout.plugin import Clock, Diagnosis, Storage, Transport, fleet_of

__all__ = ["Operations"]

"""`submit` accepts and looks; `work` delivers (and does the rest too, for it has what that needs); `both` is the default."""


class Operations:
    """The base of `Engine`, which makes these parts and opens them."""

    storage: Storage
    transports: Mapping[tuple[str, str], Transport]
    policy: Policy
    role: Role
    trouble: Trouble
    _clock: Clock
    _intake: Intake
    _waiters: Waiters
    _settler: Settler
    _upkeep: Upkeep
    _live: Live
    _dispatchers: list[Dispatcher]
    _states: list[BindingState]

    def ensure_open(self) -> None:
        """Raise where a call can do nothing now."""
        raise NotImplementedError

    async def preview(self, notification: Notification, target: Target | str, *, app: str = "default") -> Preview:
        """Say what `send` would do, without doing it.

        Args:
            notification: The content.
            target: The devices, as in `send`.
            app: The app.

        Returns:
            Endpoints and message sizes by binding, the rate of each gateway, and the seconds that a broadcast would
            take.

        Raises:
            UsageError: As `send`.
        """
        self.ensure_open()
        return await preview(self._intake, self.storage, notification, target, app=app)

    async def status(self, id: str) -> Status:
        """The state of a notification: counts of its deliveries by state and by reason for waiting.

        Args:
            id: The notification's id, as `Receipt.id` has it.

        Raises:
            NotFound: The id is wrong, or its history has been deleted (`[retention] history`).
        """
        self.ensure_open()
        return await self._status(given.text("id", id))

    async def _status(self, id: str) -> Status:
        status = await self.storage.status(id, self._clock.now())
        if status is None:
            raise NotFound(f"No notification {id} is known here: the id is wrong, or its history has been deleted.")
        return status

    async def wait(self, id: str, timeout: float | None = None) -> Status:
        """Wait until every delivery has ended, whichever process sends it.

        Args:
            id: The notification's id, as `Receipt.id` has it.
            timeout: Seconds to wait; None for no limit.

        Returns:
            The final status.

        Raises:
            TimeoutError: Deliveries are left after `timeout` seconds. Nothing is cancelled.
            NotFound: As `status`.
        """
        self.ensure_open()
        if (status := self._waiters.final(given.text("id", id))) is not None:
            return status
        future = self._waiters.add(id)
        self._upkeep.awaited()
        try:
            new = self._waiters.is_new(id)
            if not new and (status := await self._status(id)).finished_at is not None:
                return status
            try:
                async with asyncio.timeout(timeout):
                    status = await future
            except TimeoutError:
                if not new or (status := await self._status(id)).finished_at is None:
                    raise
            return await self._status(id) if status is None else status
        finally:
            self._waiters.drop(id, future)

    async def cancel(self, id: str) -> Status:
        """Stop the deliveries that have not been sent.

        Args:
            id: The notification's id, as `Receipt.id` has it.

        Returns:
            The status, once every worker has confirmed or its lease has ended: only a push in flight can still arrive.

        Raises:
            NotFound: As `status`.
        """
        return await self._stop_sending(id, "cancelled", self.storage.cancel)

    async def pause(self, id: str) -> Status:
        """Hold a notification: nothing more of it is sent until `resume`, while its time to live runs on. Idempotent.

        Args:
            id: The notification's id, as `Receipt.id` has it.

        Returns:
            The status, once every worker has put it down or its lease has ended: only a push in flight can still
                arrive.

        Raises:
            NotFound: As `status`.
        """
        return await self._stop_sending(id, "paused", self.storage.pause)

    async def _stop_sending(self, id: str, how: str, store: Callable[..., Awaitable[int]]) -> Status:
        of = await self.status(id)
        await until_put_down(
            [each.stops for each in self._dispatchers], self._settler.idle, self._clock, of, how, store
        )
        return await self.status(id)

    async def resume(self, id: str) -> Status:
        """Let a paused notification go on where it was. Idempotent.

        Args:
            id: The notification's id, as `Receipt.id` has it.

        Raises:
            NotFound: As `status`.
        """
        status = await self.status(id)
        line = audit("notification.resumed", notification=id)
        await self.storage.resume(status.app, id, self._clock.now(), audit=line)
        for dispatcher in self._dispatchers:
            dispatcher.stops.resume(id)
        return await self.status(id)

    async def pause_binding(self, binding: str, *, app: str = "default") -> None:
        """Hold all deliveries of one binding, in every process. Returns as `pause` does.

        Args:
            binding: The binding's name in the configuration.
            app: Its app.

        Raises:
            UsageError: The app has no such binding.
        """
        self.ensure_open()
        self._intake.check_binding(app, binding)
        for dispatcher in self._dispatchers:
            if (dispatcher.state.app, dispatcher.state.binding) == (app, binding):
                dispatcher.state.pause(True)
        await until_held(self.storage, self._settler.idle, self._clock, app, binding)

    async def resume_binding(self, binding: str, *, app: str = "default") -> None:
        """Lift a binding's pause. Where a gate is closed or removals have stopped, try again at once, with a credential
        that was
        replaced meanwhile. Every worker hears of it within 100 ms.

        Args:
            binding: The binding's name in the configuration.
            app: Its app.

        Raises:
            UsageError: The app has no such binding.
        """
        self.ensure_open()
        self._intake.check_binding(app, binding)
        await self.storage.resume_binding(
            app, binding, self._clock.now(), audit=audit("binding.resumed", binding=binding)
        )
        self._upkeep.look.set()

    async def explain(self, id: str, endpoint: int) -> list[Step]:
        """The decisions about one delivery, oldest first.

        Args:
            id: The notification's id, as `Receipt.id` has it.
            endpoint: The endpoint's id, as `deliveries` gives it.

        Raises:
            NotFound: There is no such notification, or it has no delivery for that endpoint.
        """
        self.ensure_open()
        return await listing.steps(self.storage, self.transports, id, endpoint)

    async def gates(self) -> list[GateNote]:
        """The gates that are closed, in any process, each with its scope, its reason and its end (UNIX seconds)."""
        self.ensure_open()
        return await self.storage.gates(self._clock.now())

    async def workers(self) -> list[WorkerNote]:
        """The workers that share the database, also those whose heartbeat has run out; none where no other process can
        share it."""
        self.ensure_open()
        return await fleet_of(self.storage).workers(self._clock.now())

    async def erase_user(self, user: str, *, app: str = "default") -> int:
        """Forget a user at once, everywhere: endpoints, feed, and the deliveries queued for the user alone.

        Args:
            user: The user's id, as it was registered.
            app: The app.

        Returns:
            The number of endpoints that there were.

        Raises:
            UsageError: `user` is empty or no text.
        """
        self.ensure_open()
        return await erase(self.storage, self._clock, app, user)

    def export_user(self, user: str, *, app: str = "default") -> AsyncIterator[dict[str, Any]]:
        """All data held of a user, in pages: records of plain JSON with a `kind`, the last of which is `end`.

        Args:
            user: The user's id, as it was registered.
            app: The app.

        Raises:
            UsageError: `user` is empty or no text.
        """
        return export(self.storage, self.ensure_open, self._clock, app, user)

    def deliveries(self, id: str, *, state: str | None = None) -> AsyncIterator[tuple[int, str, str]]:
        """The deliveries of a notification, by endpoint id, read in pages.

        Args:
            id: The notification's id, as `Receipt.id` has it.
            state: One state, "pending" for those that have not ended, or None for all.

        Yields:
            (endpoint id, state or "pending", reason).
        """
        return listing.deliveries(self.storage, self.ensure_open, id, state)

    def events(self, after: int = 0, *, follow: bool = False) -> AsyncIterator[Event]:
        """The durable event log.

        Args:
            after: The `id` of the last event that was seen; 0 from the beginning.
            follow: Go on with events that are yet to come.

        Yields:
            Events in their order. Keep `event.id` as your cursor.

        Example:
            ```python
            async for event in engine.events(after=cursor, follow=True):
                cursor = event.id
            ```
        """
        return listing.events(self.storage, self.ensure_open, after, follow)

    def live(self) -> AsyncIterator[LiveEvent]:
        """Live events of this process from this call on, while the iterator is kept: a convenience, not a record."""
        self.ensure_open()
        return self._live.listen()

    async def drain(self, *, poll: float = 0.1) -> DrainReport:
        """Wait until no delivery is left: back-off, schedules and the leases of other workers included.

        Args:
            poll: Seconds between two looks.

        Returns:
            The deliveries that are left because an operator has to mend a credential or to lift a pause; empty
            otherwise.
        """
        return await drain(self.storage, self._states, self.ensure_open, poll, self.trouble)

    async def check(self) -> dict[str, Diagnosis]:
        """Each binding's own proof of its credentials, by "app/binding"; nothing is pushed to a user."""
        self.ensure_open()
        return {
            f"{app}/{binding}": await diagnose(transport, self.policy.request_timeout * 2, closed=self.role == "submit")
            for (app, binding), transport in self.transports.items()
        }
