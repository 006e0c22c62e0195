"""`SqlStorage`: the contract's methods, each one operation that a driver runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from fanout.core.audit import Audit
from fanout.core.records import Backlog, Control, GateNote, Status
from fanout.storage.sql import gates, pausing, standing
from fanout.storage.sql.access import SqlAccess
from fanout.storage.sql.db import Db
from fanout.storage.sql.driver import Driver

__all__ = ["SqlStorage"]

T = TypeVar("T")


async def _audited(db: Db, audit: Audit | None, operation: Callable[..., Awaitable[T]], app: str, *arguments: Any) -> T:
    """What `operation` does for the app and answers, with a line of the audit log; the last argument is the time."""
    answer = await operation(db, app, *arguments)
    await db.audit(arguments[-1], app, audit)
    return answer


class SqlStorage:
    """A `Storage` in the database of a driver, which adds how it is opened, and operations of its own where it has better ones."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.access = SqlAccess(driver)

    async def _audit(self, audit: Audit | None, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        answer: T = await self._driver.write(_audited, audit, operation, *arguments)
        return answer

    # -- queue: watch

    async def status(self, id: str, now: float) -> Status | None:
        """See `Storage`."""
        return await self._driver.look(standing.status, id, now)

    async def outstanding(self, app: str | None = None) -> dict[str, int]:
        """See `Storage`."""
        return await self._driver.look(standing.outstanding, app)

    async def backlog(self, app: str) -> Backlog:
        """See `Storage`."""
        return await self._driver.look(standing.backlog, app)

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

    async def controls(self) -> dict[tuple[str, str], Control]:
        """See `Storage`."""
        return await self._driver.look(pausing.controls)

    async def post_gates(self, worker: str, notes: Sequence[GateNote], now: float) -> None:
        """See `Storage`."""
        await self._driver.write(gates.post, worker, notes, now, durable=False)

    async def gates(self, now: float) -> list[GateNote]:
        """See `Storage`."""
        return await self._driver.look(gates.gates, now)
