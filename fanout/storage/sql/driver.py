"""The driver that a backend hands to `SqlStorage`: how an operation is run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from fanout.plugin import StorageContext

__all__ = ["Driver"]

T = TypeVar("T")


class Driver(Protocol):
    """Runs `operation(db, *arguments)` with a `Db` of this database. A driver ignores the arguments that it has no use
    for."""

    context: StorageContext

    async def look(self, operation: Callable[..., Awaitable[T]], /, *arguments: Any) -> T:
        """A read of one statement."""
        ...

    async def read(self, operation: Callable[..., Awaitable[T]], /, *arguments: Any) -> T:
        """A read of several statements, which see the database at one moment."""
        ...

    def write(
        self,
        operation: Callable[..., Awaitable[T]],
        /,
        *arguments: Any,
        durable: bool = True,
        quiet: bool = False,
        announced: bool = True,
        large: bool = False,
        probe: Callable[..., Awaitable[Any]] | None = None,
        idle: Any = None,
    ) -> Coroutine[Any, Any, T]:
        """One transaction.

        Not `durable`: a loss of power may undo it, as whole transactions and the latest first. `quiet`: it makes no
        work for any worker; not `announced`: none for other processes. `large`: it waits for small ones. Where
        `probe(db, *arguments)`, a read of one statement, finds nothing to do, the answer is `idle` and nothing is
        written.
        """
        ...
