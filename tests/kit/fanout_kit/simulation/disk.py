"""Where a simulated process runs its storage operations: on a thread in virtual time, or inline; and the listeners of
commits.

The virtual thread keeps the rules of the real one: waiting calls are taken together, reads first, the writes of one
round in one commit, and the callers are told afterwards. A process that dies in between has committed without knowing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from fanout.plugin import StorageError, StorageFull

if TYPE_CHECKING:
    from fanout_kit.simulation.loop import NodeLoop

__all__ = ["Call", "Disk", "LabelledStorage", "Operation"]


class Operation(Protocol):
    """An operation of the SQLite storage, as its offload sees it."""

    write: bool
    result: Any
    error: BaseException | None


class Database(Protocol):
    """The opened database, as the storage's offload sees it."""

    def read(self, operations: Sequence[Any]) -> None: ...

    def idle(self, operation: Any) -> bool: ...

    def write(self, operations: Sequence[Any]) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Call:
    """One call of a storage method. `asked_at` and `asked_wall` are when it was made, `at` when it was done, in virtual
    seconds and UNIX seconds. `skipped`: a write that found nothing to do.
    """

    name: str
    arguments: tuple[Any, ...]
    more: Mapping[str, Any]
    node: str
    asked_at: float
    asked_wall: float
    at: float = 0.0
    skipped: bool = False
    result: Any = None
    error: BaseException | None = None

    def argument(self, position: int, name: str) -> Any:
        """An argument, however it was given."""
        return self.more[name] if name in self.more else self.arguments[position]


class Disk:
    """An offload of the SQLite storage. `latency` is the range of seconds before and after the work; None runs inline.

    `done` hears of each call once it is committed (or refused), in the order of the commits. A write of which `alone`
    is true shares its commit with no other, so that its effect can be seen by itself. While `full`, writes are refused.
    """

    def __init__(
        self,
        node: NodeLoop,
        rng: random.Random,
        done: Callable[[Call], None],
        alone: Callable[[Call], bool],
        *,
        latency: tuple[float, float] | None = (0.0001, 0.003),
    ) -> None:
        self.label: Call | None = None
        self.full = False
        self._node = node
        self._rng = rng
        self._done = done
        self._alone = alone
        self._latency = latency
        self._database: Database | None = None
        self._queue: list[tuple[Operation, Call, asyncio.Future[None]]] = []
        self._serving = False

    async def start(self, open_database: Callable[[], Database]) -> None:
        """Open the database."""
        self._database = open_database()

    async def stop(self) -> None:
        """Finish operations under way, and close. Idempotent."""
        while self._queue or self._serving:
            future: asyncio.Future[None] = self._node.create_future()
            self._node.call_later(0.001, future.set_result, None)
            await future
        self.pull()

    def pull(self) -> None:
        """The process is dead: its connection is closed without finishing anything."""
        self._queue.clear()
        if self._database is not None:
            self._database.close()
            self._database = None

    async def run(self, operation: Operation) -> None:
        """Do it, and fill in its result or error."""
        if self._database is None:
            raise StorageError("The storage is not open: use it inside `async with`.")
        call, self.label = self.label, None
        if call is None:
            call = Call("unknown", (), {}, self._node.name, self._node.world.time, self._node.world.wall)
        if self._latency is None:
            self._work([(operation, call)])
            return
        future: asyncio.Future[None] = self._node.create_future()
        self._queue.append((operation, call, future))
        if not self._serving:
            self._serving = True
            self._node.call_later(self._rng.uniform(*self._latency), self._serve)
        await future

    def _serve(self) -> None:
        assert self._latency is not None
        taken, self._queue = self._queue, []
        self._work([(operation, call) for operation, call, _ in taken])
        self._node.call_later(self._rng.uniform(*self._latency), self._answer, [future for _, _, future in taken])

    def _answer(self, futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)
        self._serving = bool(self._queue)
        if self._queue:
            self._serve()

    def _work(self, taken: Sequence[tuple[Operation, Call]]) -> None:
        """Reads, then the writes in one commit."""
        database = self._database
        assert database is not None
        reads = [each for each in taken if not each[0].write]
        database.read([operation for operation, _ in reads])
        self._tell(reads)
        batch: list[tuple[Operation, Call]] = []
        for operation, call in taken:
            if not operation.write:
                continue
            if not batch and database.idle(operation):
                call.skipped = True
                self._tell([(operation, call)])
            elif self.full:
                operation.error = StorageFull(
                    "The disk is full: nothing of this call was stored. Make room and repeat it."
                )
                self._tell([(operation, call)])
            else:
                if batch and (self._alone(call) or self._alone(batch[-1][1])):
                    self._commit(database, batch)
                    batch = []
                batch.append((operation, call))
        if batch:
            self._commit(database, batch)

    def _commit(self, database: Database, batch: Sequence[tuple[Operation, Call]]) -> None:
        database.write([operation for operation, _ in batch])
        self._tell(batch)

    def _tell(self, done: Sequence[tuple[Operation, Call]]) -> None:
        for operation, call in done:
            call.at = self._node.world.time
            call.result, call.error = operation.result, operation.error
            self._done(call)


class LabelledStorage:
    """A storage that says to its disk which call an operation belongs to. In all else it is the storage itself."""

    def __init__(self, storage: Any, disk: Disk, node: NodeLoop) -> None:
        self._storage = storage
        self._disk = disk
        self._node = node
        self._methods: dict[str, Callable[..., Any]] = {}
        self.shared: bool = storage.shared
        self.location: str = storage.location
        self.inbox = storage.inbox
        self.fleet = _LabelledFacet(storage.fleet, self._labelled)
        self.access = _LabelledFacet(storage.access, self._labelled)

    async def __aenter__(self) -> LabelledStorage:
        await self._storage.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._storage.__aexit__(*exc)

    def __getattr__(self, name: str) -> Any:
        known = self._methods.get(name)
        if known is None:
            method = getattr(self._storage, name)
            if not callable(method):
                return method
            known = self._methods[name] = self._labelled(name, method)
        return known

    def _labelled(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        world = self._node.world

        async def call(*arguments: Any, **more: Any) -> Any:
            # The method reaches the disk before it first waits, so the label cannot go astray.
            self._disk.label = Call(name, arguments, more, self._node.name, world.time, world.wall)
            return await method(*arguments, **more)

        return call


class _LabelledFacet:
    """A facet of such a storage."""

    def __init__(self, facet: Any, labelled: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
        self._facet = facet
        self._labelled = labelled

    def __getattr__(self, name: str) -> Any:
        return self._labelled(name, getattr(self._facet, name))
