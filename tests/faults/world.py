"""One trial's world: a folder, gateways, a configuration, workers and drivers, and the auditor's own engine."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fanout
from fanout.cli.gateways import toml_value
from fanout.engine import Engine
from fanout_apns.simulator import ApnsSimulator
from fanout_kit.faulty.audit import Audit, audit
from tests.faults.endings import Ending
from tests.faults.gateway import Gateway
from tests.faults.nursery import Child, Nursery

__all__ = ["POLICY", "Form", "World", "moment", "until", "world"]

POLICY: dict[str, Any] = {"lease": 1.0, "backoff_base": 0.05, "backoff_throttled": 0.1, "probe": 0.2}
"""A short lease, so that a worker need not wait long for what a killed one held; short waits, so that trials end."""


@dataclass(slots=True)
class Form:
    """How a row is run: the long form of `make faults` or the short one of the tests. `pick` chooses between the two.

    A row measures the same in both, and hands over what it found of counts and of time apart (`table.Finding`).
    """

    long: bool
    folder: Path
    nursery: Nursery
    seed: int = 0
    logs: list[Path] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    """The processes of the trial that did not end well, and were not killed by it."""

    def pick(self, short: Any, long: Any) -> Any:
        """`long` in the long form, else `short`."""
        return long if self.long else short

    @property
    def rng(self) -> random.Random:
        """Chance, from the run's seed."""
        return random.Random(self.seed)


async def until(condition: Callable[[], Any], timeout: float = 30.0, what: str = "the awaited state") -> Any:
    """Look every 5 ms until it is true (or an awaitable of something true); what it said. Raises `TimeoutError` that
    names it."""
    began = time.monotonic()
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        if time.monotonic() - began > timeout:
            raise TimeoutError(f"{what} did not come within {timeout:g} s")
        await asyncio.sleep(0.005)


async def moment(at: float) -> None:
    """Wait for a moment of the monotonic clock: where the passing of time itself is the fault."""
    await asyncio.sleep(max(0.0, at - time.monotonic()))


class World:
    """Made by `world`. `engine` is the auditor's: it looks, registers and submits, and never sends."""

    def __init__(self, form: Form, folder: Path, gateways: Mapping[str, Gateway], policy: Mapping[str, Any]) -> None:
        self.form = form
        self.folder = folder
        self.gateways = gateways
        self.policy = dict(policy)
        self.config = folder / "fanout.toml"
        self.faulty = folder / "faulty.toml"
        self.database = folder / "fanout.db"
        self.storage = ""
        """The storage's address, where it is not the SQLite file."""
        self.log = folder / "accepted"
        self.engine: Engine
        self.edges: list[int] = []
        self._children: list[Child] = []
        self._number = 0

    @property
    def gateway(self) -> Gateway:
        """The only one, or the first."""
        return next(iter(self.gateways.values()))

    def write(self, **settings: Any) -> None:
        """Write both configurations; `settings` are added to each binding's."""
        bindings = {name: gateway.settings | settings for name, gateway in self.gateways.items()}
        storage = self.storage or f"sqlite:{self.database}"
        self.config.write_text(document(storage, self.gateways, bindings, self.policy))
        types = {name: f"faulty-{gateway.transport}" for name, gateway in self.gateways.items()}
        self.faulty.write_text(document(f"faulty-{storage}", types, bindings, self.policy))

    async def register(self, devices: int, *, users: int = 10, binding: str = "apns", first: int = 0) -> list[int]:
        """Devices of users u0, u1, …; their endpoint ids."""
        from fanout.core.endpoint import Registration

        ids: list[int] = []
        transport = self.engine.transports["default", binding]
        for begin in range(first, first + devices, 10_000):
            rows = [
                Registration(
                    user=f"u{n % users}",
                    binding=binding,
                    address=transport.parse_address(ApnsSimulator.address(n)),
                    tags=("news",),
                )
                for n in range(begin, min(begin + 10_000, first + devices))
            ]
            ids += [made.id for made in await self.engine.storage.register(rows, time.time())]
        return ids

    def spawn(
        self,
        *words: str,
        failpoint: object = "",
        poison: str = "",
        checkpoint: int = 0,
        limits: Mapping[str, int] | None = None,
        faulty: bool = False,
        uid: int = 0,
        network: str = "",
        config: Path | None = None,
    ) -> Child:
        """`fanout WORDS`, with the failpoint, the poisonous address or the autocheckpoint if there is one."""
        self._number += 1
        if config is None:
            config = self.faulty if failpoint or poison or checkpoint or faulty else self.config
        environment = {
            "FANOUT_FAILPOINT": str(failpoint or ""),
            "FANOUT_POISON": poison,
            "FANOUT_CONFIG": str(config),
        }
        if checkpoint:
            environment["FANOUT_AUTOCHECKPOINT"] = str(checkpoint)
        log = self.folder / f"work-{self._number}.log"
        child = self.form.nursery.spawn(
            "tests.faults.nursery:fanout_main",
            ["fanout", *words],
            log=log,
            environment=environment,
            limits=limits,
            uid=uid,
            network=network,
        )
        self.form.logs.append(log)
        self._children.append(child)
        return child

    def work(self, *words: str, **more: Any) -> Child:
        """A worker."""
        return self.spawn("work", *words, **more)

    def drive(self, rounds: Sequence[Sequence[Any]], *, failpoint: object = "", single: bool = False) -> Child:
        """A driver with that plan: rounds of (target, notification's fields, idempotency key)."""
        self._number += 1
        config = self.faulty if failpoint else self.config
        log = self.folder / f"drive-{self._number}.log"
        child = self.form.nursery.spawn(
            "tests.faults.world:driver_main",
            ["driver", str(config), str(self.log), json.dumps({"rounds": rounds, "single": single})],
            log=log,
            environment={"FANOUT_FAILPOINT": str(failpoint or "")},
        )
        self.form.logs.append(log)
        self._children.append(child)
        return child

    async def submit(self, count: int, target: str = "all", **what: Any) -> list[str]:
        """The auditor submits: notifications to the target; their ids, which are written down."""
        what = {"title": "x"} | what
        receipts = await self.engine.send_many([(fanout.Notification(**what), target) for _ in range(count)])
        with self.log.open("a") as file:
            file.writelines(f"{receipt.id} \n" for receipt in receipts)
        return [receipt.id for receipt in receipts]

    def promised(self) -> list[str]:
        """The ids that were written down, each once."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return list(dict.fromkeys(line.split(" ")[0] for line in lines if len(line) >= 36))

    async def drain(self, patience: float = 120.0) -> Child:
        """A last worker that runs until nothing is left. Raises if it does not end well, or no push arrives for
        `patience` seconds: how long all of it takes says how busy the machine is.
        """
        child = self.work("--drain")
        arrived, moved = self.arrived, time.monotonic()
        while not child.ended:
            await asyncio.sleep(0.02)
            if self.arrived > arrived:
                arrived, moved = self.arrived, time.monotonic()
            elif time.monotonic() - moved > patience:
                left = await self.engine.storage.outstanding()
                raise TimeoutError(
                    f"the last worker has sent nothing for {patience:g} s, and has not ended: {left}; it said: {child.said[-1500:]}"
                )
        code = await child.wait()
        if code != 0:
            raise RuntimeError(f"the last worker ended with {code}: {child.said[-2000:]}")
        return child

    @property
    def arrived(self) -> int:
        """Pushes that all gateways took."""
        return sum(gateway.arrived for gateway in self.gateways.values())

    async def pushed(self, before: int, *unless: Child) -> None:
        """Wait until the ledger has more than `before` records, or one of these processes has ended."""
        await until(lambda: self.gateway.arrived > before or any(child.ended for child in unless), what="a push")

    async def working(self, *workers: Child) -> None:
        """Wait until each of these workers has opened its storage, or one has ended: what fails before that is a start
        that failed."""
        await until(
            lambda: all("Working on" in child.said for child in workers) or any(child.ended for child in workers),
            60,
            "workers",
        )

    async def audit(self, *, unknown: bool = False) -> Audit:
        """Join the driver's log, the states and the ledger."""
        return await audit(self.engine, self.promised(), self.gateway.ledger, edges=self.edges, unknown=unknown)

    async def close(self) -> None:
        """End what runs."""
        for child in self._children:
            child.kill()
        for child in self._children:
            ending = Ending(child.log.stem, await child.wait(), child.said)
            if not ending.clean and ending.code != -signal.SIGKILL:
                self.form.endings.append(ending)
        for gateway in self.gateways.values():
            await gateway.stop()


def driver_main() -> int:
    """The driver, for a child of the nursery: with the faulty storage where the configuration asks for it."""
    from fanout_kit.faulty.failpoints import arm
    from fanout_kit.faulty.installed import install
    from tests.faults.driver import main

    install()
    arm()
    return main()


def document(
    storage: str, types: Mapping[str, Any], bindings: Mapping[str, Mapping[str, Any]], policy: Mapping[str, Any]
) -> str:
    """A configuration file: `types` maps a binding to its transport's name (or a gateway, which has one). A binding may
    be `app/name`."""
    lines = [f"storage = {toml_value(storage)}"]
    for name, settings in bindings.items():
        app, _, binding = name.rpartition("/")
        kind = types[name].transport if isinstance(types[name], Gateway) else types[name]
        lines += ["", f"[apps.{app or 'default'}.transports.{binding}]", f"type = {toml_value(kind)}"]
        lines += [f"{key} = {toml_value(value)}" for key, value in settings.items() if value is not None]
    lines += ["", "[policy]", *(f"{key} = {toml_value(value)}" for key, value in policy.items())]
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def world(
    form: Form,
    gateways: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    policy: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    devices: int = 0,
    name: str = "",
    database: Path | None = None,
    storage: str = "",
) -> AsyncIterator[World]:
    """A world with these gateways (binding to options; `transport` names the kind) and the auditor's engine open.

    `policy` changes `POLICY`; `settings` are added to every binding's. `storage` is another one
    than a SQLite file of the world's own.
    """
    form.folder.mkdir(exist_ok=True)
    folder = form.folder / f"{name or 'world'}-{sum(1 for _ in form.folder.iterdir())}"
    folder.mkdir()
    made: dict[str, Gateway] = {}
    for binding, options in (gateways or {"apns": {}}).items():
        chosen = dict(options)
        kind = chosen.pop("transport", binding.rpartition("/")[2])
        made[binding] = Gateway(form.nursery, folder, kind, name=binding.replace("/", "-"), **chosen)
    here = World(form, folder, made, POLICY | dict(policy or {}))
    if database is not None:
        here.database = database
    here.storage = storage
    try:
        for gateway in made.values():
            await gateway.start()
        here.write(**(settings or {}))
        async with fanout.open(here.config, role="submit") as here.engine:
            if devices:
                await here.register(devices)
            yield here
    finally:
        await here.close()
