"""An engine over scripted transports and a storage of the test's choice."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

from fanout.engine import Engine, EngineOptions
from fanout.engine.engine import Role
from fanout.plugin import Clock, Policy, Storage
from fanout.testing.scripted import Script, ScriptedTransport

FAST = Policy(backoff_base=0.02, backoff_throttled=0.02, probe=0.02, request_timeout=2.0)
"""Short waits, so that tests of retries end soon; nothing asserts how long anything takes."""


class SystemClock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


make_storage: ContextVar[Callable[[], Storage]] = ContextVar("make_storage")
"""Which backend the test at hand runs on; set by a fixture, so that every test runs on each."""


reopen: ContextVar[Callable[[Storage], Storage]] = ContextVar("reopen")


def fresh_storage() -> Storage:
    return make_storage.get()()


def opened_again(storage: Storage) -> Storage:
    """The same database through another object; memory is still there."""
    return reopen.get()(storage)


@asynccontextmanager
async def running(
    script: Script | None = None,
    *,
    storage: Storage | None = None,
    transports: dict[tuple[str, str], ScriptedTransport] | None = None,
    policy: Policy = FAST,
    role: Role = "both",
    rng: random.Random | None = None,
    clock: Clock | None = None,
    **more: Any,
) -> AsyncIterator[tuple[Engine, ScriptedTransport]]:
    """An engine with one scripted binding `push` (or those given), and that binding's transport."""
    made = transports or {("default", "push"): ScriptedTransport(*([script] if script else []))}
    engine = Engine(
        storage or fresh_storage(),
        made,
        EngineOptions(clock=clock or SystemClock(), rng=rng or random.Random(1), policy=policy, role=role, **more),
    )
    async with engine:
        yield engine, next(iter(made.values()))
    # What a group took has ended or was given up, each once; nothing waits in a queue; and each sum is that of its
    # parts.
    for state in engine._states:
        groups = state.groups.values()
        left = {
            g.name: (g.active, g.queued, len(g.handed), len(g.runs), *(queue.size for queue in g.queues))
            for g in groups
        }
        assert not {name: counts for name, counts in left.items() if any(counts)}
        assert not any(state._sizes)
        assert state.hand.left >= 0
        assert state.limit == sum(group.limit for group in groups)


async def register(
    engine: Engine, user: str, *addresses: str, tags: Iterable[str] = (), binding: str = "push"
) -> list[int]:
    """Endpoints of one user; their ids."""
    return await register_each(engine, [(user, address) for address in addresses], tags=tags, binding=binding)


async def register_each(
    engine: Engine, devices: Iterable[tuple[str, str]], *, tags: Iterable[str] = (), binding: str = "push"
) -> list[int]:
    """Endpoints of (user, address) in one commit; their ids."""
    into = engine.endpoints
    made = [into.registration(user=user, binding=binding, address=address, tags=tags) for user, address in devices]
    return [endpoint.id for endpoint in await into.register_many(made)]
