"""How operations of `storage.sql` are run on SQLite's thread."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fanout.core.untraced import untraced
from fanout.plugin import StorageContext
from fanout.storage.sql.intake import put_gathered
from fanout.storage.sqlite.operations import Operation
from fanout.storage.sqlite.session import shared
from fanout.storage.sqlite.worker import Offload

__all__ = ["SqliteDriver"]

T = TypeVar("T")


class SqliteDriver:
    """`storage.sql.driver.Driver` of one offload. A transaction that writes is always told, as `PRAGMA data_version`
    is."""

    def __init__(self, offload: Offload, context: StorageContext) -> None:
        self._offload = offload
        self.context = context

    async def do(self, *operations: Operation) -> Any:
        """Run operations of SQLite's own; the last one's result."""
        await self._offload.run(*operations)
        for operation in operations:
            if operation.error is not None:
                raise untraced(operation.error)
        return operations[-1].result

    async def look(self, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """See `Driver`. Each statement sees the database as it is, as nothing is written in between."""
        answer: T = await self.do(Operation(lambda db: shared(db, operation, *arguments), write=False))
        return answer

    async def read(self, operation: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """The same."""
        return await self.look(operation, *arguments)

    def write(
        self,
        operation: Callable[..., Awaitable[T]],
        *arguments: Any,
        durable: bool = True,
        quiet: bool = False,
        announced: bool = True,
        large: bool = False,
        probe: Callable[..., Awaitable[Any]] | None = None,
        idle: Any = None,
    ) -> Coroutine[Any, Any, T]:
        """See `Driver`."""
        asked = Operation(lambda db: shared(db, operation, *arguments), True, idle=idle, durable=durable, large=large)
        if operation is put_gathered:
            asked.puts = arguments
        if probe is not None:
            asked.probe = lambda db: bool(shared(db, probe, *arguments))
        return self.do(asked)
