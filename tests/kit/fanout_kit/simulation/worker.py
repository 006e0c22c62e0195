"""A worker: one simulated process with the production engine in it, which can be started, frozen, stopped and
killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from fanout.engine import Engine, EngineOptions
from fanout.plugin import Context, StorageContext, Transport
from fanout_kit.simulation.disk import Disk, LabelledStorage
from fanout_kit.simulation.history import Life, Request
from fanout_kit.simulation.loop import NodeLoop
from fanout_kit.simulation.observe import Hook, ObservedTransport
from fanout_kit.simulation.plan import stream
from fanout_kit.simulation.transport import PushTransport
from fanout_kit.simulation.world import NodeClock

if TYPE_CHECKING:
    from fanout_kit.simulation.run import Simulation

__all__ = ["Worker"]


class Worker:
    """A worker of the machine, over all its incarnations."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        self._simulation = simulation
        self.number = number
        self.node: NodeLoop | None = None
        self.disk: Disk | None = None
        self.engine: Engine | None = None
        self.open = False
        self._born = 0
        self._stopping: asyncio.Future[None] | None = None

    @property
    def life(self) -> Life:
        """The incarnation at present, or the last."""
        assert self.node is not None
        return self._simulation.history.lives[self.node.name]

    @property
    def alive(self) -> bool:
        """Whether there is a process, frozen or not."""
        return self.node is not None and not self.node.dead and not self.life.end

    def start(self) -> None:
        """A new process."""
        if self.alive:
            return
        simulation = self._simulation
        plan, world, history = simulation.plan, simulation.world, simulation.history
        name = f"w{self.number}.{self._born}"
        self._born += 1
        lag = plan.lags[self.number]
        node = self.node = NodeLoop(world, simulation.network, name, stream(plan.seed, f"{name}/loop"), lag=lag)
        history.lives[name] = Life(self.number, name, world.time)
        recorder = simulation.recorder
        self.disk = disk = Disk(
            node, stream(plan.seed, f"{name}/disk"), recorder.done, recorder.alone, latency=plan.disk
        )
        disk.full = simulation.disk_full
        clock, rng = NodeClock(world), stream(plan.seed, name)
        storage: Any = simulation.make_storage(StorageContext(clock=clock, chunk=plan.chunk), lambda: disk)
        transports: dict[tuple[str, str], Transport] = {}
        for binding in sorted(set(plan.dialects.values())):
            context = Context(app="default", binding=binding, clock=clock, rng=rng, policy=plan.policy)
            made = (
                simulation.make_apns(context)
                if binding == "apns"
                else PushTransport(context, plan.pool, padding=plan.padding)
            )
            transports["default", binding] = ObservedTransport(made, binding, node, history)
        labelled: Any = LabelledStorage(storage, disk, node)
        self.engine = Engine(
            labelled,
            transports,
            EngineOptions(
                clock=clock,
                rng=rng,
                policy=plan.policy,
                hooks=[Hook(node, history)],
                drain_timeout=2 * plan.policy.request_timeout,
            ),
        )
        world.say(name, "start")
        node.begin(partial(self._main, self.engine, node))

    async def _main(self, engine: Engine, node: NodeLoop) -> None:
        await engine.__aenter__()
        self.open = True
        self._stopping = node.create_future()
        await self._stopping
        self.open = False
        await engine.__aexit__(None, None, None)
        life = self._simulation.history.lives[node.name]
        life.end, life.died = "stop", node.world.time
        node.world.say(node.name, "stopped")

    def stop(self) -> None:
        """Ask it to end in good order."""
        node, stopping = self.node, self._stopping
        if node is not None and self.open and stopping is not None:
            node.post(_resolve, stopping)

    def crash(self, fuse: int) -> None:
        """kill -9, after so many callbacks more."""
        node = self.node
        if node is None or not self.alive:
            return
        if fuse and not node.frozen:
            node.fuse, node.on_fuse = fuse, self._die
        else:
            self._die()

    def _die(self) -> None:
        node, disk = self.node, self.disk
        if node is None or disk is None or node.dead:
            return
        self.life.end, self.life.died = "crash", node.world.time
        node.world.say(node.name, "killed")
        self.open = False
        node.kill()
        disk.pull()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT so many seconds later."""
        node = self.node
        if node is None or not self.alive or node.frozen:
            return
        world = node.world
        world.say(node.name, "frozen", f"{seconds:g} s")
        node.frozen = True
        self.life.freezes.append((world.time, world.time + seconds))
        world.after(seconds, self._thaw, node)

    def _thaw(self, node: NodeLoop) -> None:
        node.frozen = False
        node.world.say(node.name, "thawed")

    def ask(
        self,
        what: str,
        data: dict[str, Any],
        call: Callable[[Engine], Awaitable[Any]],
        then: Callable[[Request], None] | None = None,
    ) -> Request:
        """Call the engine as a user of it in its process; `then` hears of the end, if there is one."""
        node, engine = self.node, self.engine
        assert node is not None
        assert engine is not None
        world = node.world
        request = Request(what, node.name, data, world.time)
        self._simulation.history.requests.append(request)

        async def run() -> None:
            world.say(node.name, what, f"{data}")
            try:
                request.result = await call(engine)
            except Exception as error:
                request.error = error
            request.returned, request.line = world.time, len(world.trace)
            world.say(node.name, "returned", f"{what} {data} {request.error or request.result!r}")
            if then is not None:
                then(request)

        node.begin(run)
        return request


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
