"""`SqlStorage`: the contract's methods, each one operation that a driver runs."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fanout.core.address import Address
from fanout.core.audit import Audit, person
from fanout.core.endpoint import Endpoint, Registration
from fanout.core.model import Target
from fanout.core.records import (
    Backlog,
    Control,
    EndpointFilter,
    Event,
    Expired,
    GateNote,
    Put,
    Settled,
    Settlement,
    Status,
    Step,
    Stored,
    Submission,
)
from fanout.storage.acceptance import gathered
from fanout.storage.sql import (
    audience,
    collapsing,
    endpoints,
    erasing,
    expansion,
    explaining,
    exporting,
    feed_tidy,
    gates,
    intake,
    janitor,
    pausing,
    registration,
    retiming,
    settling,
    standing,
    stopping,
    watching,
)
from fanout.storage.sql.access import SqlAccess
from fanout.storage.sql.driver import Driver
from fanout.storage.sql.feed import SqlFeed
from fanout.storage.sql.fleet import SqlFleet

__all__ = ["SqlStorage"]

T = TypeVar("T")


class SqlStorage:
    """A `Storage` in the database of a driver, which adds how it is opened, and operations of its own where it has
    better ones."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.access = SqlAccess(driver)
        self.fleet = SqlFleet(driver)
        self.feed = SqlFeed(driver)

    async def _audit(self, audit: Audit | None, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        answer: T = await self._driver.write(watching.audited, audit, operation, *arguments)
        return answer

    # -- directory

    async def register(self, registrations: Sequence[Registration], now: float) -> list[Endpoint]:
        """See `Storage`."""
        return await self._driver.write(registration.register, registrations, now)

    async def intern(self, app: str, binding: str, addresses: Sequence[Address], now: float) -> list[int]:
        """See `Storage`."""
        return await self._driver.write(registration.intern, app, binding, addresses, now)

    async def list_endpoints(self, which: EndpointFilter, *, after: int = 0, limit: int = 1000) -> list[Endpoint]:
        """See `Storage`."""
        return await self._driver.read(endpoints.listing, which, after, limit)

    async def get_endpoint(self, app: str, endpoint: int) -> Endpoint | None:
        """See `Storage`."""
        return await self._driver.read(endpoints.read, app, endpoint)

    async def remove_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """See `Storage`."""
        return await self._driver.write(endpoints.remove, app, ids, now)

    async def restore_endpoints(self, app: str, ids: Sequence[int], now: float) -> int:
        """See `Storage`."""
        return await self._driver.write(endpoints.restore, app, ids, now)

    async def addressed(
        self, app: str, user: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[list[str], int | None]:
        """See `Storage`."""
        return await self._driver.read(exporting.addressed, app, user, after, limit)

    async def erase_user(self, app: str, user: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`."""
        return (await self._erase(app, user, now, audit)).endpoints

    async def _erase(self, app: str, user: str, now: float, audit: Audit | None) -> erasing.Erased:
        return await self._audit(audit, erasing.erase, app, user, now)

    async def count_endpoints(self, app: str, target: Target) -> dict[str, int]:
        """See `Storage`."""
        return await self._driver.read(audience.count, app, target)

    # -- queue

    def put(self, submissions: Sequence[Submission], now: float) -> Coroutine[Any, Any, list[Put]]:
        """See `Storage`."""
        return self._driver.write(intake.put_gathered if gathered(submissions, now) else intake.put, submissions, now)

    async def settle(self, settlements: Sequence[Settlement], now: float) -> list[Settled]:
        """See `Storage`."""
        return await self._driver.write(settling.settle, settlements, now)

    async def expand(self, app: str, binding: str, now: float, *, ahead: int) -> int:
        """See `Storage`. Its writes and its position are undone together."""
        asked = (app, binding, now, ahead)
        probe = expansion.expandable
        return await self._driver.write(expansion.expand, *asked, durable=False, large=True, probe=probe, idle=0)

    async def superseded(self, id: str, ids: array[int]) -> set[int]:
        """See `Storage`."""
        return await self._driver.read(collapsing.superseded, id, ids)

    async def status(self, id: str, now: float) -> Status | None:
        """See `Storage`."""
        return await self._driver.look(standing.status, id, now)

    async def outstanding(self, app: str | None = None) -> dict[str, int]:
        """See `Storage`."""
        return await self._driver.look(standing.outstanding, app)

    async def backlog(self, app: str) -> Backlog:
        """See `Storage`."""
        return await self._driver.look(standing.backlog, app)

    async def notification(self, id: str) -> Stored | None:
        """See `Storage`."""
        return await self._driver.look(watching.notification, id)

    async def stopped(self, ids: Sequence[str]) -> dict[str, str]:
        """See `Storage`."""
        return await self._driver.look(watching.stopped, ids)

    async def finished(self, ids: Sequence[str]) -> set[str]:
        """See `Storage`."""
        return await self._driver.look(watching.finished, ids)

    async def explain(self, id: str, endpoint: int) -> list[Step] | None:
        """See `Storage`."""
        return await self._driver.read(explaining.explain, id, endpoint)

    async def cancel(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`."""
        return await self._audit(audit, stopping.cancel, app, id, now)

    async def deliveries(
        self, id: str, *, state: str | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, str, str]]:
        """See `Storage`."""
        return await self._driver.read(watching.deliveries, id, state, after, limit)

    async def events(self, *, after: int = 0, limit: int = 1000, audit: bool = False) -> list[Event]:
        """See `Storage`."""
        return await self._driver.look(watching.events, after, limit, audit)

    async def record(self, app: str, audit: Audit, now: float) -> None:
        """See `Storage`."""
        await self._driver.write(watching.record, app, audit, now)

    async def person(self, app: str, user: str) -> str:
        """See `Storage`."""
        return person(await self._driver.look(watching.secret), app, user)

    # -- control

    async def pause(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`."""
        return await self._audit(audit, pausing.pause, app, id, now)

    async def resume(self, app: str, id: str, now: float, *, audit: Audit | None = None) -> None:
        """See `Storage`."""
        await self._audit(audit, pausing.resume, app, id, now)

    async def pause_binding(self, app: str, binding: str, now: float, *, audit: Audit | None = None) -> int:
        """See `Storage`."""
        return await self._audit(audit, pausing.pause_binding, app, binding, now)

    async def resume_binding(self, app: str, binding: str, now: float, *, audit: Audit | None = None) -> None:
        """See `Storage`."""
        await self._audit(audit, pausing.resume_binding, app, binding, now)

    async def retry_binding(self, app: str, binding: str, now: float) -> None:
        """See `Storage`."""
        await self._driver.write(pausing.retry_binding, app, binding, now)

    async def bring_forward(self, app: str, binding: str, before: float, now: float, *, limit: int) -> int:
        """See `Storage`."""
        return await self._driver.write(pausing.bring_forward, app, binding, before, now, limit, durable=False)

    async def controls(self) -> dict[tuple[str, str], Control]:
        """See `Storage`."""
        return await self._driver.look(pausing.controls)

    async def post_gates(self, worker: str, notes: Sequence[GateNote], now: float) -> None:
        """See `Storage`."""
        await self._driver.write(gates.post, worker, notes, now, durable=False)

    async def gates(self, now: float) -> list[GateNote]:
        """See `Storage`."""
        return await self._driver.look(gates.gates, now)

    # -- janitor

    async def expire(self, now: float, *, limit: int) -> Expired:
        """See `Storage`. The feed has a transaction of its own, for all feeds share its lock."""
        expired, done = Expired(0), 0
        queue, items = await self._driver.look(janitor.expirable, now)
        if queue:
            expired = await self._driver.write(janitor.expire, now, limit)
            done = int(expired)
        if done < limit and items:
            done += await self._driver.write(feed_tidy.expire, now, limit - done)
        return Expired(done, expired.unexpanded)

    async def prune(self, now: float, *, limit: int) -> int:
        """See `Storage`. The feed has a transaction of its own."""
        done = 0
        for prunable, prune in ((janitor.prunable, janitor.prune), (feed_tidy.prunable, feed_tidy.prune)):
            if done < limit and await self._driver.look(prunable, now):
                done += await self._driver.write(prune, now, limit - done)
        return done

    async def retime(self, now: float, *, stepped: bool = False) -> bool:
        """See `Storage`."""
        return await self._driver.write(
            retiming.retime, now, stepped, durable=False, probe=retiming.retimable, idle=False
        )
