"""One seed, from its plan to the verdict."""

from __future__ import annotations

import itertools
import logging
import os
import random
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fanout.plugin import Context, Secret, StorageContext, Transport
from fanout.registry import Registry
from fanout.testing.simulator import Faults
from fanout_kit.simulation.checks import Violation, judge
from fanout_kit.simulation.disk import Disk, LabelledStorage
from fanout_kit.simulation.fate import Fate
from fanout_kit.simulation.gateway import Device, Gateway
from fanout_kit.simulation.history import History, Rest
from fanout_kit.simulation.loop import NodeLoop
from fanout_kit.simulation.network import Host, Network
from fanout_kit.simulation.observe import CriticalLog, Recorder, at_once
from fanout_kit.simulation.plan import APNS, Plan, draw, stream
from fanout_kit.simulation.trace import Trace
from fanout_kit.simulation.worker import Worker
from fanout_kit.simulation.world import NodeClock, Stuck, World

__all__ = ["Report", "Simulation", "simulate"]

_PATIENCE = 120.0
"""Virtual seconds after the last fault in which everything must have ended: thirty times the longest back-off of any
plan."""

_runs = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a seed. `digest` is the hash of its whole trace; `seconds` are virtual; `figures` count
    events."""

    seed: int
    digest: str
    violations: Sequence[Violation]
    seconds: float
    figures: dict[str, int] = field(default_factory=dict)
    lines: Sequence[str] = ()

    @property
    def command(self) -> str:
        """The command that replays it, readably."""
        return f"python -m fanout_kit.simulation --seed {self.seed} --trace"

    @property
    def ok(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations


class Simulation:
    """The parts of one run. `folder` takes the database."""

    def __init__(self, plan: Plan, folder: Path, trace: Trace) -> None:
        self.plan = plan
        self.world = World(self.rng("world"), trace)
        self.history = History(plan)
        self.network = Network(
            self.world, self.rng("network"), latency=plan.latency, split=plan.split, window=plan.window
        )
        self.disk_full = False
        self.devices: dict[str, Device] = {}
        self.gateways: dict[str, Gateway] = {}
        self._path = str(folder / "fanout.db")
        self._witness = self._make_witness()
        self.recorder = Recorder(self.world, self.history, self._witness)
        self.workers = [Worker(self, number) for number in range(2)]
        self.fate = Fate(self)
        for number, host in enumerate(plan.dialects):
            self._make_host(number, host)
        for device in plan.devices:
            self.add_device(device.address)

    def rng(self, name: str) -> random.Random:
        """The random numbers of one part."""
        return stream(self.plan.seed, name)

    # -- making

    def _make_host(self, number: int, name: str) -> None:
        plan = self.plan
        every, to = plan.shrink.get(name, (0, 1))
        often, short = plan.goaways.get(name, (0, 0))
        gateway = self.gateways[name] = Gateway(
            self.world,
            self.rng(f"{name}/gateway"),
            self.devices,
            self.history.arrivals,
            dialect=plan.dialects[name],
            streams=plan.streams[name],
            faults=Faults(shrink_every=every, shrink_to=to, goaway_every=often, goaway_short=short),
            gone=self.fate.said_gone,
        )
        gateway.manners.rates = dict(plan.rates[name])
        gateway.manners.think = plan.think
        gateway.manners.slow = plan.slow.get(name, 0.0)
        gateway.manners.told = plan.told
        node = NodeLoop(self.world, self.network, f"g{number}", self.rng(f"{name}/loop"))
        addresses = [f"10.0.{number}.{each}" for each in range(1, 2 + number % 2)]
        gateway.host = Host(name, addresses, node, gateway.connection)
        self.network.add(gateway.host)

    def add_device(self, place: str) -> None:
        """A device that its gateway knows."""
        name = place.rpartition("/")[2]
        self.devices.setdefault(name, Device(name))

    def make_storage(self, context: StorageContext, offload: Callable[[], Any]) -> Any:
        """A connection to the run's database."""
        return _sqlite()(self._path, context, offload=offload)

    def _make_witness(self) -> Any:
        node = NodeLoop(self.world, self.network, "witness", self.rng("witness"), takes_part=False)
        disk = Disk(node, self.rng("witness/disk"), lambda call: None, lambda call: False, latency=None)
        context = StorageContext(clock=NodeClock(self.world), chunk=self.plan.chunk)
        self._witness_disk = disk
        witness = LabelledStorage(self.make_storage(context, lambda: disk), disk, node)
        at_once(witness.__aenter__())
        return witness

    def make_apns(self, context: Context) -> Transport:
        """The real transport to Apple, pointed at the simulated host."""
        registry = _registry()
        settings = registry.settings_type("apns", "simulation")(
            topic="com.example.app",
            team_id="SIMULATED0",
            key_id="SIMKEY0000",
            key=Secret(_key() + _blank(next(_runs))),
            gateway=f"https://{APNS}",
            connections=self.plan.pool.connections,
            streams=self.plan.pool.streams,
            request_timeout=self.plan.policy.request_timeout,
        )
        return registry.make_transport("apns", settings, context)

    # -- running

    def run(self) -> None:
        """Until everything has ended, or should have."""
        world, plan, fate = self.world, self.plan, self.fate
        for worker in self.workers:
            worker.start()
        world.run(lambda: all(worker.open for worker in self.workers), limit=5.0)
        fate.enrol()
        for step in plan.steps:
            world.at(step.at, fate.do, step)
        world.at(plan.calm_at, fate.calm)
        world.run(lambda: False, limit=plan.calm_at + 0.001)
        self._look()
        if world.run(lambda: self.history.drained is not None, limit=plan.calm_at + _PATIENCE):
            world.run(lambda: False, limit=world.time + 0.2)
        for worker in self.workers:
            worker.stop()
        if world.run(lambda: not any(worker.alive for worker in self.workers), limit=world.time + 30.0):
            world.run(lambda: False, limit=world.time + 0.5)
        else:
            self.history.errors.append("An engine did not end within 30 s after it was asked to.")

    def _look(self) -> None:
        """Whether anything is left to do, four times a second."""
        unanswered = any(
            request.returned is None and not self.history.lives[request.node].end for request in self.history.requests
        )
        if unanswered or at_once(self._witness.outstanding()):
            self.world.after(0.25, self._look)
        else:
            self.history.drained = self.world.time

    def close(self) -> None:
        """Write down how things stand in the end, and let go of everything."""
        history = self.history
        history.ended = self.world.time
        for node in self.world.nodes:
            if node.name in history.lives:
                history.lives[node.name].left = node.left()
        history.errors += self.world.errors
        history.violations += [
            f"{name}: {text}" for name, gateway in self.gateways.items() for text in gateway.counters.violations
        ]
        self._ask_witness()
        for worker in self.workers:
            if worker.disk is not None:
                worker.disk.pull()
        self._witness_disk.pull()

    def _ask_witness(self) -> None:
        history, witness = self.history, self._witness
        after = 0
        while page := at_once(witness.events(after=after, limit=1000)):
            history.events += page
            after = page[-1].id
        history.outstanding = at_once(witness.outstanding())
        ids = [put.id for call in history.calls if call.name == "put" and call.result for put in call.result if put.id]
        ids += [request.result.id for request in history.requests if request.what == "send" and request.result]
        for id in dict.fromkeys(ids):
            rows: list[tuple[int, str, str]] = []
            while page := at_once(witness.deliveries(id, after=rows[-1][0] if rows else 0)):
                rows += page
            some = {endpoint for endpoint, _, _ in rows[:: max(1, len(rows) // 2)]}
            explained = {endpoint: at_once(witness.explain(id, endpoint)) for endpoint in sorted(some)}
            history.rest[id] = Rest(at_once(witness.status(id, self.world.wall)), rows, explained)


def simulate(
    seed: int, *, keep: bool = False, echo: Callable[[str], None] | None = None, folder: Path | None = None
) -> Report:
    """Run one seed and judge it. `keep` leaves the trace readable in the report; `echo` is handed each line as it is
    made."""
    plan = draw(seed)
    trace = Trace(keep=keep, echo=echo)
    place = Path(tempfile.mkdtemp(prefix="fanout-simulation-", dir=folder or _quick()))
    logs: list[str] = []
    with _swapped(logs):
        try:
            simulation = Simulation(plan, place, trace)
            stuck = ""
            try:
                simulation.run()
            except Stuck as error:
                stuck = str(error)
            simulation.close()
            history = simulation.history
            history.errors += logs + ([stuck] if stuck else [])
            for node in simulation.world.born:
                node.bury()
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return Report(seed, trace.digest, judge(history), history.ended, _figures(history), trace.lines)


@cache
def _quick() -> Path | None:
    """A folder in memory where the system has one: the losses of a power cut are not looked at, so fsync need not cost
    a disk."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else None


def _figures(history: History) -> dict[str, int]:
    states: dict[str, int] = {}
    for rest in history.rest.values():
        for _, state, _ in rest.deliveries:
            states[state] = states.get(state, 0) + 1
    return {
        "notifications": len(history.rest),
        "deliveries": sum(states.values()),
        **dict(sorted(states.items())),
        "attempts": len(history.attempts),
        "requests": len(history.arrivals),
        "taken twice": _twice(history),
        "storage calls": len(history.calls),
        "lives": len(history.lives),
    }


def _twice(history: History) -> int:
    taken: dict[str, int] = {}
    for arrival in history.arrivals:
        if arrival.accepted:
            taken[arrival.delivery] = taken.get(arrival.delivery, 0) + 1
    return sum(count - 1 for count in taken.values())


@contextmanager
def _swapped(errors: list[str]) -> Iterator[None]:
    """Without TLS contexts, which take longer to make than a run takes, and without the engine's log lines."""
    log = logging.getLogger("fanout")
    handler = CriticalLog(errors)
    before = log.level, log.propagate
    make = ssl.create_default_context
    ssl.create_default_context = lambda *_, **__: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    log.addHandler(handler)
    log.setLevel(logging.CRITICAL)
    log.propagate = False
    try:
        yield
    finally:
        ssl.create_default_context = make
        log.removeHandler(handler)
        log.level, log.propagate = before


@cache
def _registry() -> Registry:
    return Registry()


@cache
def _sqlite() -> Callable[..., Any]:
    return _registry().resolve("storage", "sqlite", _registry().storage("sqlite").factory)


@cache
def _key() -> str:
    """A throw-away key that is the same everywhere, for the same bytes on the wire."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return (
        ec.derive_private_key(20_270_115, ec.SECP256R1())
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


def _blank(number: int) -> str:
    """White space that says a number. Two processes have two provider tokens; here one process plays both, and the
    key's text, of which this is no part that counts, decides which processes share a token.
    """
    return "".join("\n" if digit == "1" else " " for digit in f"{number:b}")
