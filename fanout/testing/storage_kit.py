"""The tools of the storage suite's checks: values made short, and laws that name themselves when broken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from fanout.core.address import Address
from fanout.core.endpoint import Registration
from fanout.core.ids import notification_id
from fanout.core.model import Target
from fanout.core.policy import Retention
from fanout.core.records import Chunk, Put, Settled, Settlement, Status, Submission
from fanout.plugin import Storage, StorageContext
from fanout.testing.clock import VirtualClock

__all__ = [
    "ALICE", "T0", "Kit", "Maker", "NoSecondOpener", "device", "done", "known", "law", "lease_all", "post", "settle_all", "standing",
    "submission",
]  # fmt: skip

Maker = Callable[[StorageContext], AbstractAsyncContextManager[Storage]]

T0 = 1_800_000_000.25
"""When every check begins, in UNIX seconds: not whole, because a backend must keep fractions."""

ALICE = Target.user("alice")

_numbers = count(1)

_T = TypeVar("_T")


class NoSecondOpener(Exception):
    """The rest of a check needs a second opener, which the storage does not have."""


@dataclass
class Kit:
    """The arguments of a check. `again` opens the database of the last `open` once more, beside it or after it; None if
    it cannot."""

    maker: Maker
    again: Maker | None = None
    clock: VirtualClock = field(default_factory=lambda: VirtualClock(T0))

    def context(self, *, chunk: int = 1000, retention: Retention | None = None) -> StorageContext:
        """The context that this check's storages get."""
        return StorageContext(clock=self.clock, chunk=chunk, retention=retention or Retention())

    def open(self, *, chunk: int = 1000, retention: Retention | None = None) -> AbstractAsyncContextManager[Storage]:
        """A fresh, empty storage."""
        return self.maker(self.context(chunk=chunk, retention=retention))

    @asynccontextmanager
    async def sent(
        self, devices: int, *submissions: Submission, chunk: int = 1000
    ) -> AsyncIterator[tuple[Storage, list[int]]]:
        """A fresh storage with so many devices of alice, whose ids come with it, and these notifications."""
        async with self.open(chunk=chunk) as storage:
            entered = await storage.register([device("alice", str(i)) for i in range(devices)], T0)
            for each in submissions:
                await post(storage, each)
            yield storage, [each.id for each in entered]

    def open_again(self, *, chunk: int = 1000) -> AbstractAsyncContextManager[Storage]:
        """The last storage's database, once more; where it cannot be opened again, the check ends here, without a
        fault."""
        if self.again is None:
            raise NoSecondOpener
        return self.again(self.context(chunk=chunk))


def law(holds: object, text: str) -> None:
    """Raise `AssertionError` with the law that is broken."""
    if not holds:
        raise AssertionError(text)


def known(value: _T | None, text: str) -> _T:
    """The value, which must not be None by the law."""
    if value is None:
        raise AssertionError(text)
    return value


def device(
    user: str, token: str, *, binding: str = "apns", app: str = "default", tags: Sequence[str] = (),
    platform: str = "", expires_at: float | None = None,
) -> Registration:  # fmt: skip
    """A registration; equal tokens are equal addresses."""
    address = Address(f"token-{token}", kind="device", group="g", identity=f"id-{token}")
    return Registration(
        user=user, binding=binding, address=address, app=app, tags=tuple(tags), platform=platform, expires_at=expires_at
    )


def submission(
    target: Target = ALICE, *, now: float = T0, app: str = "default", due_at: float | None = None,
    ttl: float = 3600.0, lane: int = 1, collapse_key: str | None = None, idempotency_key: str | None = None,
    digest: bytes = b"", refused: Iterable[str] = (),
) -> Submission:  # fmt: skip
    """A submission of its own id."""
    due_at = now if due_at is None else due_at
    return Submission(
        id=notification_id(now, next(_numbers).to_bytes(10, "big")), app=app, target=target,
        content=b'{"title":"hello"}', lane=lane, repeat="prefer_delivery", accepted_at=now, due_at=due_at,
        expires_at=due_at + ttl, collapse_key=collapse_key, idempotency_key=idempotency_key, digest=digest,
        refused=frozenset(refused),
    )  # fmt: skip


async def post(storage: Storage, sub: Submission, now: float | None = None) -> Put:
    """Put one, and be sure that it was stored."""
    (put,) = await storage.put([sub], sub.accepted_at if now is None else now)
    law(put.id == sub.id and not put.replayed, f"put stores a valid submission and names its id: it answered {put}")
    return put


async def lease_all(
    storage: Storage, now: float = T0, *, worker: str = "w1", app: str = "default", binding: str = "apns",
    lane: int = 1, limit: int = 100_000, lease: float = 30.0,
) -> list[Chunk]:  # fmt: skip
    """Lease due chunks."""
    return await storage.lease(worker, app, binding, lane, limit=limit, now=now, until=now + lease)


def done(chunk: Chunk, state: str = "accepted", reason: str = "") -> Settlement:
    """The settlement that ends all open deliveries of a chunk alike, one attempt each."""
    positions = [position for position, code in enumerate(chunk.states) if code == 0]
    return Settlement(chunk.id, chunk.epoch, results={(state, reason): positions}, attempts=len(positions))


async def settle_all(storage: Storage, chunks: Iterable[Chunk], now: float = T0) -> list[Settled]:
    """All deliveries accepted."""
    return await storage.settle([done(chunk) for chunk in chunks], now)


async def standing(storage: Storage, id: str, now: float = T0) -> Status:
    """The status, which must add up whenever it is asked for."""
    status = known(await storage.status(id, now), f"status knows every notification that was put: {id} is unknown")
    total = sum(status.counts.values())
    law(status.total is None or status.total == total, f"total is the sum of the counts, pending too: {status}")
    for state, reasons in status.reasons.items():
        law(sum(reasons.values()) == status.counts[state], f"the reasons of a state add up to its count: {status}")
    pending = sum(status.pending_by_reason.values())
    law(pending == status.counts["pending"], f"each pending delivery waits for exactly one reason: {status}")
    law((status.finished_at is None) == (status.oldest_pending_at is not None), f"finished or pending: {status}")
    return status
