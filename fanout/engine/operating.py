"""The operations of an engine on notifications that it has accepted, on bindings, users, and itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from fanout.core import given
from fanout.core.fleet import WorkerNote
from fanout.core.policy import Policy
from fanout.core.records import Event, GateNote, Status, Step
from fanout.engine import listing
from fanout.engine.acting import audit
from fanout.engine.diagnose import diagnose
from fanout.engine.dispatcher import Dispatcher
from fanout.engine.exporting import erase, export
from fanout.engine.halting import until_held, until_put_down
from fanout.engine.intake import Intake
from fanout.engine.live import Live, LiveEvent
from fanout.engine.patience import Trouble
from fanout.engine.preview import DrainReport, drain
from fanout.engine.settler import Settler
from fanout.engine.upkeep import Upkeep
from fanout.engine.waiters import Waiters
from fanout.errors import NotFound
from fanout.plugin import Clock, Diagnosis, Storage, Transport

__all__ = ["Operations"]


class Operations:
    """The base of `Engine`, which makes these parts and opens them."""

    storage: Storage
    transports: Mapping[tuple[str, str], Transport]
    policy: Policy
    role: str
    trouble: Trouble
    _clock: Clock
    _intake: Intake
    _waiters: Waiters
    _settler: Settler
    _upkeep: Upkeep
    _live: Live
    _dispatchers: list[Dispatcher]

    def ensure_open(self) -> None:
        """Raise where a call can do nothing now."""
        raise NotImplementedError

    async def status(self, id: str) -> Status:
        """How things stand. Raises `NotFound`."""
        self.ensure_open()
        return await self._status(given.text("id", id))

    async def _status(self, id: str) -> Status:
        status = await self.storage.status(id, self._clock.now())
        if status is None:
            raise NotFound(f"No notification {id} is known here: the id is wrong, or its history has been deleted.")
        return status

    async def wait(self, id: str, timeout: float | None = None) -> Status:
        """The status once every delivery has ended, whichever process sent it. Raises `TimeoutError`, `NotFound`."""
        self.ensure_open()
        future = self._waiters.add(given.text("id", id))
        self._upkeep.awaited()
        try:
            status = await self._status(id)
            if status.finished_at is not None:
                return status
            async with asyncio.timeout(timeout):
                await future
            return await self._status(id)
        finally:
            self._waiters.drop(id, future)

    async def cancel(self, id: str) -> Status:
        """Stop what has not been sent. Returns once every worker has confirmed, or its lease has ended. Raises `NotFound`."""
        return await self._stop_sending(id, "cancelled", self.storage.cancel)

    async def pause(self, id: str) -> Status:
        """Hold it: nothing more of it is sent until `resume`, while its time to live runs on. Idempotent. Raises `NotFound`.

        Returns once every worker has put it down, or its lease has ended: what arrives after that was in flight already.
        """
        return await self._stop_sending(id, "paused", self.storage.pause)

    async def _stop_sending(self, id: str, how: str, store: Callable[..., Awaitable[int]]) -> Status:
        of = await self.status(id)
        await until_put_down(self._dispatchers, self._settler.idle, self._clock, of, how, store)
        return await self.status(id)

    async def resume(self, id: str) -> Status:
        """Let a paused notification go on where it was. Idempotent. Raises `NotFound`."""
        status = await self.status(id)
        line = audit("notification.resumed", notification=id)
        await self.storage.resume(status.app, id, self._clock.now(), audit=line)
        for dispatcher in self._dispatchers:
            dispatcher.resume(id)
        return await self.status(id)

    async def pause_binding(self, binding: str, *, app: str = "default") -> None:
        """Hold everything of one binding, in every process. Returns as `pause` does. Raises `UsageError` for an unknown binding."""
        self.ensure_open()
        self._intake.check_binding(app, binding)
        for dispatcher in self._dispatchers:
            if (dispatcher.work.app, dispatcher.work.binding) == (app, binding):
                dispatcher.work.pause(True)
        await until_held(self.storage, self._settler.idle, self._clock, app, binding)

    async def resume_binding(self, binding: str, *, app: str = "default") -> None:
        """Lift a binding's pause; and where a gate is closed or removals have stopped, try again at once, with a credential that
        was replaced meanwhile. Every worker hears of it within 100 ms. Raises `UsageError` for an unknown binding."""
        self.ensure_open()
        self._intake.check_binding(app, binding)
        await self.storage.resume_binding(
            app, binding, self._clock.now(), audit=audit("binding.resumed", binding=binding)
        )
        self._upkeep.look.set()

    async def explain(self, id: str, endpoint: int) -> list[Step]:
        """What was decided about one delivery, oldest first. Raises `NotFound`."""
        self.ensure_open()
        return await listing.steps(self.storage, self.transports, id, endpoint)

    async def gates(self) -> list[GateNote]:
        """The gates that are closed, in whatever process."""
        self.ensure_open()
        return await self.storage.gates(self._clock.now())

    async def workers(self) -> list[WorkerNote]:
        """The workers that share the database, those among them that have not been heard of for a while; none where it is not shared."""
        self.ensure_open()
        return await self.storage.fleet.workers(self._clock.now())

    async def erase_user(self, user: str, *, app: str = "default") -> int:
        """Forget a user at once, everywhere: see the storage's contract; how many endpoints there were."""
        self.ensure_open()
        return await erase(self.storage, self._clock, app, user)

    def export_user(self, user: str, *, app: str = "default") -> AsyncIterator[dict[str, Any]]:
        """All that is held of a user: records of plain JSON with a `kind`, in pages; see `engine.exporting`. The last is `end`. Raises `UsageError`."""
        return export(self.storage, self.ensure_open, self._clock, app, user)

    def deliveries(self, id: str, *, state: str | None = None) -> AsyncIterator[tuple[int, str, str]]:
        """(endpoint id, state or ``pending``, reason) of each delivery, by endpoint id, in pages."""
        return listing.deliveries(self.storage, self.ensure_open, id, state)

    def events(self, after: int = 0, *, follow: bool = False) -> AsyncIterator[Event]:
        """The durable event log from the cursor on; with `follow`, also what is yet to come. Keep `event.id` as your cursor."""
        return listing.events(self.storage, self.ensure_open, after, follow)

    def live(self) -> AsyncIterator[LiveEvent]:
        """Live events of this process from this call on, while the iterator is kept: a convenience, not a record."""
        self.ensure_open()
        return self._live.listen()

    async def drain(self, *, poll: float = 0.1) -> DrainReport:
        """Wait until nothing is left to deliver, back-off, schedules and others' leases included.

        Ends early, and names them, when only deliveries are left that wait for somebody to mend a credential or lift a pause.
        """
        return await drain(self.storage, self._settler.works, self.ensure_open, poll, self.trouble)

    async def check(self) -> dict[str, Diagnosis]:
        """Each binding's own proof of its credentials, by "app/binding"; nothing is pushed to a user."""
        self.ensure_open()
        return {
            f"{app}/{binding}": await diagnose(transport, self.policy.request_timeout * 2, closed=self.role == "submit")
            for (app, binding), transport in self.transports.items()
        }
