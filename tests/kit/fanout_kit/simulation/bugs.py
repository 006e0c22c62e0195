"""Planted bugs: each breaks one promise in one production function, for as long as its context is open.

They are the proof that the simulation can see the faults that it is made for: a check that no bug ever trips may be
checking nothing. No production module knows of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from importlib import import_module
from typing import Any

from fanout.plugin import Put, Unavailable

__all__ = ["BUGS", "Bug"]

_Make = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug. `target` is the function that it replaces ("module:attribute", or "module:table[key]"), `make`
    makes the replacement from the original, and `says` describes the fault.
    """

    name: str
    says: str
    target: str
    make: _Make

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Plant it. Raises `AttributeError` or `KeyError` where the production function is no longer there."""
        module, _, path = self.target.partition(":")
        owner: Any = import_module(module)
        *parents, name = path.removesuffix("]").replace("[", ".").split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        if isinstance(owner, dict):
            key = next(key for key in owner if str(getattr(key, "name", key)) == name)
            original = owner[key]
            owner[key] = (self.make(original[0]), *original[1:])
            try:
                yield
            finally:
                owner[key] = original
            return
        original = owner.__dict__[name]
        setattr(owner, name, wraps(original)(self.make(original)))
        try:
            yield
        finally:
            setattr(owner, name, original)


def _stores_later(put: Callable[..., Any]) -> Callable[..., Any]:
    async def hasty(self: Any, submissions: Any, now: float) -> list[Put]:
        if any(submission.refused or submission.idempotency_key for submission in submissions):
            return list(await put(self, submissions, now))
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, lambda: loop.create_task(put(self, submissions, now)))
        return [Put(id=submission.id) for submission in submissions]

    return hasty


def _any_epoch(read: Callable[..., Any]) -> Callable[..., Any]:
    async def lenient(db: Any, settlements: Any) -> Any:
        held, codes = await read(db, settlements)
        for settlement in settlements:
            if settlement.chunk in held:
                held[settlement.chunk].epoch = settlement.epoch
        return held, codes

    return lenient


def _one_row_short(add: Callable[..., Any]) -> Callable[..., Any]:
    async def forgetful(db: Any, settling: Any, *more: Any) -> None:
        chunk, number, rows = settling.retries[-1]
        settling.retries[-1] = chunk, number, rows[:-1]
        await add(db, settling, *more)

    return forgetful


def _next_byte(accept: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, position: accept(self, (position + 1) % len(self.chunk.ids))


def _opens_at_once(close: Callable[..., Any]) -> Callable[..., Any]:
    def forgetful(self: Any, now: float, *arguments: Any, **more: Any) -> bool:
        before = self.state
        closed = close(self, now, *arguments, **more)
        self.state = before
        return bool(closed)

    return forgetful


def _an_hour_longer(init: Callable[..., Any]) -> Callable[..., Any]:
    def generous(self: Any, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **more)
        self.expires_at += 3600.0

    return generous


def _without_accepted(take: Callable[..., Any]) -> Callable[..., Any]:
    def careless(self: Any) -> Any:
        settlement = take(self)
        if settlement.release is not None:
            settlement.results.pop(("accepted", ""), None)
        return settlement

    return careless


def _nobody_to_wait_for(cancel: Callable[..., Any]) -> Callable[..., Any]:
    async def impatient(self: Any, *arguments: Any) -> int:
        await cancel(self, *arguments)
        return 0

    return impatient


def _looks_for_none(look: Callable[..., Any]) -> Callable[..., Any]:
    async def blind(self: Any, *arguments: Any) -> None:
        return None

    return blind


def _everybody_probes(ready: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, now: now >= self.until


def _any_generation(change: Callable[..., Any]) -> Callable[..., Any]:
    async def lenient(db: Any, changes: Any, now: float) -> None:
        for what in changes:
            current = await db.value("SELECT generation FROM endpoint WHERE id = $1", what.endpoint)
            await change(db, [replace(what, generation=current)], now)

    return lenient


def _forgets_the_stream(on_reset: Callable[..., Any]) -> Callable[..., Any]:
    def silent(self: Any, flags: int, stream: int, payload: bytes) -> None:
        self.streams.pop(stream, None)
        self.partial.pop(stream, None)
        self.outflow.drop(stream)

    return silent


def _all_excluded(on_goaway: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, flags, stream, payload: on_goaway(self, flags, stream, bytes(4) + payload[4:])


def _nothing_lost(extend: Callable[..., Any]) -> Callable[..., Any]:
    async def credulous(self: Any, *arguments: Any) -> list[int]:
        await extend(self, *arguments)
        return []

    return credulous


def _cursor_by(step: int) -> _Make:
    def make(store: Callable[..., Any]) -> Callable[..., Any]:
        async def shifted(db: Any, moved: Any, *more: Any) -> None:
            for source in moved:
                source.cursor += step
            await store(db, moved, *more)

        return shifted

    return make


def _too_early(gather: Callable[..., Any]) -> Callable[..., Any]:
    def eager(db: Any, binding: int, lane: int, limit: int, now: float) -> Any:
        return gather(db, binding, lane, limit, now + 0.3)

    return eager


def _every_key_is_new(check: Callable[..., Any]) -> Callable[..., Any]:
    async def forgetful(db: Any, submissions: Any, *more: Any) -> Any:
        return type(await check(db, submissions, *more))(fresh=list(range(len(submissions))))

    return forgetful


def _all_active(resolve: Callable[..., Any]) -> Callable[..., Any]:
    def blind(*arguments: Any) -> Any:
        return [row._replace(state="active") for row in resolve(*arguments)]

    return blind


def _doubt_is_certainty(decide: Callable[..., Any]) -> Callable[..., Any]:
    def bold(outcome: Any, *more: Any) -> Any:
        if isinstance(outcome, Unavailable) and outcome.sent == "unknown":
            outcome = replace(outcome, sent="no")
        return decide(outcome, *more)

    return bold


def _unmarked(mark: Callable[..., Any]) -> Callable[..., Any]:
    async def unmarked(self: Any, *arguments: Any) -> bool:
        return True

    return unmarked


def _believes_for_ever(cap_deadline: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, alive: None


def _all_dead(forsaken: Callable[..., Any]) -> Callable[..., Any]:
    return lambda seen_at, until, now, late: True


_STORE = "fanout.storage.sqlite.store:SqliteStorage"
_SQLITE = "fanout.storage.sqlite"

_ALL = (
    Bug(
        "ack-before-commit",
        "`send` returns 50 ms before the notification is stored.",
        "fanout.storage.sql.storage:SqlStorage.put",
        _stores_later,
    ),
    Bug(
        "ignore-epoch",
        "A settlement counts whoever holds the lease by now.",
        "fanout.storage.sql.settling:_read",
        _any_epoch,
    ),
    Bug(
        "lose-retry",
        "One retry row of a settlement is not written.",
        "fanout.storage.sql.settling:_add_retries",
        _one_row_short,
    ),
    Bug(
        "wrong-byte", "The neighbour's byte is set in the chunk's map.", "fanout.engine.lease:Lease.accept", _next_byte
    ),
    Bug("forget-gate", "A gate that closes is open again at once.", "fanout.core.gate:Gate.close", _opens_at_once),
    Bug(
        "ignore-ttl",
        "A worker sends for an hour past the end.",
        "fanout.engine.lease:Prepared.__init__",
        _an_hour_longer,
    ),
    Bug(
        "forget-accepted",
        "An accepted delivery is left open when the lease is given back.",
        "fanout.engine.lease:Lease.take",
        _without_accepted,
    ),
    Bug(
        "ignore-cancel",
        "`cancel` waits for no other worker.",
        "fanout.storage.sql.storage:SqlStorage.cancel",
        _nobody_to_wait_for,
    ),
    Bug(
        "ignore-pause",
        "`pause` waits for no other worker.",
        "fanout.storage.sql.storage:SqlStorage.pause",
        _nobody_to_wait_for,
    ),
    Bug(
        "ignore-collapse",
        "A delivery in hand is sent although a later notification has taken its place.",
        "fanout.engine.dispatcher:Dispatcher._look_for_later",
        _looks_for_none,
    ),
    Bug("all-probe", "Past a gate's time everything goes at once.", "fanout.core.gate:Gate.ready", _everybody_probes),
    Bug(
        "ignore-generation",
        "A late verdict removes an endpoint that was registered again.",
        "fanout.storage.sql.settling:change",
        _any_generation,
    ),
    Bug(
        "lose-future",
        "A request whose stream is reset is never answered.",
        "fanout.http.inbound:_RULES[RST_STREAM]",
        _forgets_the_stream,
    ),
    Bug(
        "goaway-excludes-all",
        "A GOAWAY is taken to exclude requests that it promises to answer.",
        "fanout.http.inbound:_RULES[GOAWAY]",
        _all_excluded,
    ),
    Bug("revive-lease", "A lease that was lost is extended.", f"{_STORE}.extend", _nothing_lost),
    Bug(
        "skip-at-page-edge",
        "Expansion leaves one id out between two pages.",
        "fanout.storage.sql.expansion:_store",
        _cursor_by(1),
    ),
    Bug(
        "expand-twice",
        "Expansion cuts the last id of a page again.",
        "fanout.storage.sql.expansion:_store",
        _cursor_by(-1),
    ),
    Bug("retry-early", "A retry goes 0.3 s before it is due.", f"{_SQLITE}.leasing:_gather", _too_early),
    Bug(
        "ignore-key",
        "An idempotency key is forgotten at once.",
        "fanout.storage.sql.intake:_check_keys",
        _every_key_is_new,
    ),
    Bug(
        "send-to-former-owner",
        "Endpoints that changed hands still get it.",
        f"{_SQLITE}.leasing:resolve",
        _all_active,
    ),
    Bug(
        "doubt-is-certainty",
        "An attempt in doubt counts as not sent.",
        "fanout.engine.sender:decide",
        _doubt_is_certainty,
    ),
    Bug(
        "unmarked-once",
        "`at_most_once` deliveries are not marked before they are sent.",
        "fanout.engine.dispatcher:Dispatcher._mark",
        _unmarked,
    ),
    Bug(
        "ignore-heartbeat",
        "A worker that stood still for longer than its heartbeat believes in its leases.",
        "fanout.engine.lease:Lease.cap_deadline",
        _believes_for_ever,
    ),
    Bug("bury-the-living", "Workers are buried whose heartbeat runs.", "fanout.storage.sql.fleet:forsaken", _all_dead),
)

BUGS: Mapping[str, Bug] = {bug.name: bug for bug in _ALL}
"""Every planted bug by name."""
