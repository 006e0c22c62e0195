"""An engine's reports of itself, of its storage and of the notifications in it. Nothing here changes any."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from fanout.config import ConfigState, Watcher
from fanout.core import given
from fanout.core.fleet import WorkerNote
from fanout.core.model import Notification, Target
from fanout.core.policy import Policy
from fanout.core.records import Event, GateNote, Status, Step
from fanout.engine import listing
from fanout.engine.binding_state import BindingState
from fanout.engine.context import Role
from fanout.engine.diagnose import diagnose
from fanout.engine.door import Door
from fanout.engine.exporting import export
from fanout.engine.intake import Intake
from fanout.engine.live import Live, LiveEvent
from fanout.engine.patience import Trouble
from fanout.engine.preview import DrainReport, Preview, drain, preview
from fanout.engine.settler import Settler
from fanout.errors import NotFound, StorageError
from fanout.plugin import Clock, Diagnosis, Storage, Transport, fleet_of

__all__ = ["Inspection"]


class Inspection:
    """The base of `Operations`, and so of `Engine`, which makes these parts and opens them."""

    storage: Storage
    transports: Mapping[tuple[str, str], Transport]
    policy: Policy
    role: Role
    trouble: Trouble
    watcher: Watcher | None
    _clock: Clock
    _door: Door
    _fault: BaseException | None
    _intake: Intake
    _settler: Settler
    _live: Live
    _states: list[BindingState]

    def ensure_open(self) -> None:
        """Raise where a call can do nothing at present."""
        raise NotImplementedError

    @property
    def configuration(self) -> ConfigState:
        """The changes of the configuration since the start: how many were taken and refused, and the reason of the last
        refusal.
        """
        return self.watcher.state if self.watcher is not None else ConfigState()

    async def probe(self) -> None:
        """Find out whether notifications can be accepted, by a commit that changes nothing.

        Raises:
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing can be stored. `StorageUnavailable` and `StorageFull` pass; `StorageRefused` needs an
                operator.

        Example:
            ```python
            await engine.probe()
            ```
        """
        self.ensure_open()
        await self.storage.probe()

    async def preview(self, notification: Notification, target: Target | str, *, app: str = "default") -> Preview:
        """Describe the effect of `send`, without sending.

        Args:
            notification: The content.
            target: The devices, as in `send`.
            app: The app whose devices are meant.

        Returns:
            Endpoints and bytes of the message by binding, the measured rate in deliveries per second, and the seconds
            that sending to all of these endpoints would take.

        Raises:
            UsageError: As in `send`.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.

        Example:
            ```python
            preview = await engine.preview(Notification(title="Sale"), "all")
            print(preview.total, preview.eta_s)
            ```
        """
        self.ensure_open()
        return await preview(self._intake, self.storage, notification, target, app=app)

    async def status(self, id: str) -> Status:
        """The state of a notification: counts of its deliveries by state and by reason for waiting.

        Args:
            id: The notification's id, as `Receipt.id` has it.

        Returns:
            The state at present.

        Raises:
            NotFound: The id is wrong, or its history has been deleted (`[retention] notifications`).
            UsageError: `id` is no text.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.

        Example:
            ```python
            status = await engine.status(receipt.id)
            print(status.state, status.counts)
            ```
        """
        self.ensure_open()
        return await self._status(given.text("id", id))

    async def _status(self, id: str) -> Status:
        status = await self.storage.status(id, self._clock.now())
        if status is None:
            raise NotFound(f"No notification {id} is known here: check the id; or its history has been deleted.")
        return status

    async def explain(self, id: str, endpoint: int) -> list[Step]:
        """The decisions about one delivery, oldest first.

        Args:
            id: The notification's id, as `Receipt.id` has it.
            endpoint: The endpoint's id, as `deliveries` gives it.

        Returns:
            The decisions, each with its time in UNIX seconds.

        Raises:
            NotFound: There is no such notification, or it has no delivery for that endpoint.
            UsageError: `id` is no text, or `endpoint` no number.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.

        Example:
            ```python
            for step in await engine.explain(receipt.id, endpoint.id):
                print(step.at, step.what, step.reason)
            ```
        """
        self.ensure_open()
        return await listing.steps(self.storage, self.transports, id, endpoint)

    async def gates(self) -> list[GateNote]:
        """The gates that are closed, in any process.

        Returns:
            The gates, each with its scope, its reason and its end (UNIX seconds).

        Raises:
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.

        Example:
            ```python
            for gate in await engine.gates():
                print(gate.binding, gate.name, gate.reason)
            ```
        """
        self.ensure_open()
        return await self.storage.gates(self._clock.now())

    async def workers(self) -> list[WorkerNote]:
        """The workers that share the database.

        Returns:
            The workers, also those whose heartbeat has run out; none where no other process can share the database.

        Raises:
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.
            PartAbsent: The storage keeps no list of workers.

        Example:
            ```python
            print([worker.name for worker in await engine.workers()])
            ```
        """
        self.ensure_open()
        return await fleet_of(self.storage).workers(self._clock.now())

    def export_user(self, user: str, *, app: str = "default") -> AsyncIterator[dict[str, Any]]:
        """All data held of a user, read in pages while it is consumed. The audit log has a line of it before the first
        record.

        Args:
            user: The user's id, as it was registered.
            app: The user's app.

        Yields:
            Records of plain JSON with a `kind`, the last of which is `end`.

        Raises:
            UsageError: `user` is empty or no text. This and the others come with the first record.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.

        Example:
            ```python
            async for record in engine.export_user("alice"):
                print(record["kind"])
            ```
        """
        return export(self.storage, self.ensure_open, self._clock, app, user)

    def deliveries(self, id: str, *, state: str | None = None) -> AsyncIterator[tuple[int, str, str]]:
        """The deliveries of a notification, by endpoint id, read in pages.

        Args:
            id: The notification's id, as `Receipt.id` has it. A notification that is not known has no deliveries.
            state: One state, "pending" for those that have not ended, or None for all.

        Yields:
            The endpoint's id, the state or "pending", and the reason.

        Raises:
            UsageError: `state` is none of these. This and the others come with the first delivery.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.

        Example:
            ```python
            async for endpoint_id, state, reason in engine.deliveries(receipt.id, state="dead"):
                print(endpoint_id, reason)
            ```
        """
        return listing.deliveries(self.storage, self.ensure_open, id, state)

    def events(self, after: int = 0, *, follow: bool = False) -> AsyncIterator[Event]:
        """The durable event log: an event is there once its cause is committed.

        Args:
            after: The `id` of the last event that was seen; 0 from the beginning.
            follow: Go on with events that are yet to come.

        Yields:
            Events in their order. Keep `event.id` as your cursor.

        Raises:
            UsageError: `after` is no event's id. This and the others come with the first event.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.

        Example:
            ```python
            async for event in engine.events(after=cursor):
                cursor = event.id
            ```
        """
        return listing.events(self.storage, self.ensure_open, after, follow)

    def live(self) -> AsyncIterator[LiveEvent]:
        """Live events of this process from this call on, while the iterator is kept: a convenience, not a record.

        Returns:
            An iterator, which ends when the engine closes. Of over 10,000 events that wait to be read the oldest are
            left out.

        Raises:
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The engine has failed.

        Example:
            ```python
            events = engine.live()
            await engine.send(Notification(title="Hello"), "user:alice")
            print((await anext(events)).kind)
            ```
        """
        self.ensure_open()
        return self._live.listen()

    async def drain(self, *, poll: float = 0.1) -> DrainReport:
        """Wait until no delivery is left: back-off, schedules and the leases of other workers included.

        Args:
            poll: Seconds between two looks.

        Returns:
            The deliveries that are left because an operator has to mend a credential or to lift a pause; empty
            otherwise.

        Raises:
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read, or the engine has failed. An outage that passes is waited for.

        Example:
            ```python
            report = await engine.drain()
            print("all sent" if report.clean else report.parked)
            ```
        """
        return await drain(self.storage, self._states, self.ensure_open, poll, self.trouble)

    async def check(self) -> dict[str, Diagnosis]:
        """Each binding's own proof of its credentials; nothing is pushed to a user.

        Returns:
            The proofs by "app/binding".

        Raises:
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The engine has failed.

        Example:
            ```python
            for binding, diagnosis in (await engine.check()).items():
                print(binding, diagnosis)
            ```
        """
        self.ensure_open()
        return {
            f"{app}/{binding}": await diagnose(transport, self.policy.request_timeout * 2, closed=self.role == "submit")
            for (app, binding), transport in self.transports.items()
        }

    async def failed(self) -> None:
        """Wait until the engine fails, and raise the error: for a program that does nothing else, such as a worker.

        Raises:
            StorageError: The engine has failed; the cause is the error.
            EngineClosed: The kind `WrongLoop`: the caller runs in another event loop than the engine.

        Example:
            ```python
            async with fanout.open("fanout.toml", role="work") as worker:
                await worker.failed()
            ```
        """
        self._door.check()
        while True:
            if self._fault is not None:
                raise StorageError(f"The engine has failed: {self._fault}") from self._fault
            await self._settler.idle.wait(1.0)
