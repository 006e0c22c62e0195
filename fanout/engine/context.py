"""The two frozen objects that the engine's constructors take: the options of its caller, and the values that its parts
share."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fanout.config import BindingSettings, Watcher
from fanout.core.policy import BacklogLimits, Policy
from fanout.core.text import cleaned
from fanout.engine.link import FleetLink
from fanout.engine.live import Live
from fanout.engine.patience import Trouble
from fanout.engine.watch import ClockWatch
from fanout.plugin import Clock, Storage, Transport, clock_of

__all__ = ["EngineContext", "EngineOptions", "Renewer", "Role"]

Role = Literal["submit", "work", "both"]
"""`submit` accepts and looks; `work` delivers (and does the rest too, for it has all parts that this needs); `both` is
the default."""


@dataclass(frozen=True, slots=True)
class Renewer:
    """How a binding's transport is made again.

    Attributes:
        watcher: The watcher that finds out when.
        make: Takes (app, binding, settings); raises a `FanoutError` for settings that cannot be used.
    """

    watcher: Watcher
    make: Callable[[str, str, BindingSettings], Transport]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Everything of an `Engine` but its storage and its transports.

    Attributes:
        clock: The clock of the process; a storage with a clock of its own has the last word.
        rng: The source of jitter and of ids.
        policy: Time limits, attempts and backoff.
        role: The engine's work: `submit` accepts, `work` delivers, `both` does both.
        hooks: Observers of live events.
        drain_timeout: Seconds for which the exit waits for answers that are under way.
        backlog: Bounds on the deliveries that may wait; None for none.
        renewer: The maker of transports from a changed configuration; None where the configuration does not change.
        link: This process's parts of rates that a fleet shares; None makes one.
        apps: Apps that have no binding.
        names: Names of transports, under which a notification may have overrides besides those of the bindings.
    """

    clock: Clock
    rng: random.Random
    policy: Policy = field(default_factory=Policy)
    role: Role = "both"
    hooks: Sequence[object] = ()
    drain_timeout: float = 10.0
    backlog: BacklogLimits | None = None
    renewer: Renewer | None = None
    link: FleetLink | None = None
    apps: Iterable[str] = ()
    names: Iterable[str] = ()


@dataclass(frozen=True, slots=True)
class EngineContext:
    """The values that the parts of one engine have in common.

    Attributes:
        storage: The storage, which the engine opens.
        clock: The clock that everything of the engine reads.
        rng: The source of jitter.
        policy: Time limits, attempts and backoff.
        worker: The name of this worker in leases and heartbeats: host, process and a random number.
        trouble: The refusal of storage at present.
        watch: The steps of the wall clock.
        live: The live events.
    """

    storage: Storage
    clock: Clock
    rng: random.Random
    policy: Policy
    worker: str
    trouble: Trouble
    watch: ClockWatch
    live: Live

    @classmethod
    def of(cls, storage: Storage, options: EngineOptions) -> EngineContext:
        """Made once by an engine of this storage."""
        clock, rng = clock_of(storage, options.clock), options.rng
        return cls(
            storage=storage,
            clock=clock,
            rng=rng,
            policy=options.policy,
            worker=f"{cleaned(socket.gethostname())}:{os.getpid()}:{rng.getrandbits(32):08x}",
            trouble=Trouble(clock, rng),
            watch=ClockWatch(clock),
            live=Live(options.hooks),
        )
