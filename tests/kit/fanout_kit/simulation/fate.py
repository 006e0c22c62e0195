"""Carries out the steps of a plan: asks the engines for things, and lets things happen to hosts, processes and the
machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fanout.core.model import Notification, Target
from fanout.testing.simulator import Faults
from fanout_kit.simulation.gateway import Device, Manners
from fanout_kit.simulation.history import Request
from fanout_kit.simulation.plan import address

if TYPE_CHECKING:
    from fanout.engine import Engine
    from fanout_kit.simulation.plan import Step
    from fanout_kit.simulation.run import Simulation
    from fanout_kit.simulation.worker import Worker

__all__ = ["Fate"]


class Fate:
    """One method per kind of step. A step that does not find its object (a worker that lives, say) waits or passes."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._rng = simulation.rng("fate")
        self._calm = False
        self._killed: set[int] = set()
        self._paused: dict[str, None] = {}
        self._paused_bindings: dict[str, None] = {}
        """Everything that a step asked to pause, with any result."""
        self._ids: dict[int, str] = {}
        """Notification ids by the number of the send."""
        self._users: dict[str, str] = {}
        self._endpoints: dict[str, int] = {}
        """The user and the endpoint of an address, as the app that registered it last knows."""

    def do(self, step: Step) -> None:
        """Carry out one step."""
        self._world.say("fate", step.what, str(dict(step.data)))
        getattr(self, f"_{step.what}")(**step.data)

    # -- users of the engine

    def _worker(self, number: int) -> Worker | None:
        workers = self._simulation.workers
        for worker in (workers[number % 2], workers[1 - number % 2]):
            if worker.alive and worker.open:
                return worker
        return None

    def enrol(self) -> None:
        """Register the devices of the plan, at the first worker, in one call."""
        worker, plan = self._simulation.workers[0], self._simulation.plan

        async def call(engine: Engine) -> Any:
            wanted = [
                engine.endpoints.registration(user=d.user, binding=d.binding, address=d.address, tags=d.tags)
                for d in plan.devices
            ]
            return await engine.endpoints.register_many(wanted)

        def then(request: Request) -> None:
            for device, endpoint in zip(plan.devices, request.result, strict=True):
                self._users[device.address] = device.user
                self._endpoints[device.address] = endpoint.id

        worker.ask("enrol", {}, call, then)

    def _send(self, number: int, worker: int, target: str, **more: Any) -> None:
        at = self._world.wall + more["due"] if "due" in more else None
        self._post(number, worker, target, at, more)
        if "key" in more:
            self._world.after(more["again"], self._post, number, worker + 1, target, at, more)

    def _post(self, number: int, worker: int, target: str, at: float | None, more: Mapping[str, Any]) -> None:
        chosen = self._worker(worker)
        if chosen is None:
            self._world.after(0.2, self._post, number, worker, target, at, more)
            return
        notification = Notification(
            title=f"n{number}",
            ttl=more["ttl"],
            lane=more["lane"],
            repeat=more["repeat"],
            collapse_key=more.get("collapse"),
        )
        to = _target(target)

        async def call(engine: Engine) -> Any:
            return await engine.send(notification, to, at=at, idempotency_key=more.get("key"))

        def then(request: Request) -> None:
            if request.error is None:
                self._ids[number] = request.result.id
                if more.get("kill") is not None and not self._calm and number not in self._killed:
                    # At any instant after the receipt: now, or so many callbacks later.
                    self._killed.add(number)
                    self._world.after(0.0, self._crash, chosen.number, more["kill"], 0.5)

        data = {"number": number, "target": target, "at": at, **more}
        chosen.ask("send", data, call, then)

    def _cancel(self, worker: int, send: int) -> None:
        self._about("cancel", worker, self._ids.get(send))

    def _look(self, worker: int, send: int) -> None:
        self._about("status", worker, self._ids.get(send))

    def _pause(self, worker: int, send: int) -> None:
        id = self._ids.get(send)
        if id is not None and not self._calm:
            self._paused[id] = None
            self._about("pause", worker, id)

    def _resume(self, worker: int, send: int) -> None:
        self._about("resume", worker, self._ids.get(send))

    def _about(self, what: str, worker: int, id: str | None) -> None:
        chosen = self._worker(worker)
        if id is None or (what == "pause" and self._calm):
            return
        if chosen is None:
            self._world.after(0.2, self._about, what, worker, id)
            return

        async def call(engine: Engine) -> Any:
            return await getattr(engine, what)(id)

        def then(request: Request) -> None:
            if self._calm and (what == "pause" or (what == "resume" and request.error is not None)):
                self._world.after(0.1, self._about, "resume", worker + 1, id)

        chosen.ask(what, {"id": id}, call, then)

    def _pause_binding(self, worker: int, host: str) -> None:
        binding = self._simulation.plan.dialects[host]
        if not self._calm:
            self._paused_bindings[binding] = None
            self._binding("pause_binding", worker, binding)

    def _resume_binding(self, worker: int, host: str) -> None:
        self._binding("resume_binding", worker, self._simulation.plan.dialects[host])

    def _binding(self, what: str, worker: int, binding: str) -> None:
        chosen = self._worker(worker)
        if what == "pause_binding" and self._calm:
            return
        if chosen is None:
            self._world.after(0.2, self._binding, what, worker, binding)
            return

        async def call(engine: Engine) -> Any:
            return await getattr(engine, what)(binding)

        def then(request: Request) -> None:
            if self._calm and (what == "pause_binding" or (what == "resume_binding" and request.error is not None)):
                self._world.after(0.1, self._binding, "resume_binding", worker + 1, binding)

        chosen.ask(what, {"binding": binding}, call, then)

    # -- devices

    def _refresh(self, worker: int, device: int) -> None:
        enrolled = self._simulation.plan.devices[device]
        self._register(worker, enrolled.address, self._users.get(enrolled.address, enrolled.user), enrolled.tags)

    def _takeover(self, worker: int, device: int, user: str) -> None:
        enrolled = self._simulation.plan.devices[device]
        self._register(worker, enrolled.address, user, enrolled.tags)

    def _new(self, worker: int, device: int, host: str) -> None:
        binding = self._simulation.plan.dialects[host]
        place = address(host, binding, device)
        self._simulation.add_device(place)
        self._register(worker, place, f"u{device % 4}", ("news",))

    def _register(self, worker: int, place: str, user: str, tags: tuple[str, ...]) -> None:
        chosen = self._worker(worker)
        if chosen is None:
            return
        binding = "push" if "/" in place else "apns"

        async def call(engine: Engine) -> Any:
            return await engine.endpoints.register(user=user, binding=binding, address=place, tags=tags)

        def then(request: Request) -> None:
            if request.error is None:
                self._users[place] = user
                self._endpoints[place] = request.result.id

        chosen.ask("register", {"user": user, "address": place}, call, then)

    def _erase(self, worker: int, user: str) -> None:
        chosen = self._worker(worker)
        if chosen is None:
            return

        async def call(engine: Engine) -> Any:
            return await engine.erase_user(user)

        chosen.ask("erase", {"user": user}, call)

    def _remove(self, worker: int, device: int) -> None:
        self._shelve("remove", worker, device)

    def _restore(self, worker: int, device: int) -> None:
        self._shelve("restore", worker, device)

    def _shelve(self, what: str, worker: int, device: int) -> None:
        chosen = self._worker(worker)
        id = self._endpoints.get(self._simulation.plan.devices[device].address)
        if chosen is None or id is None:
            return

        async def call(engine: Engine) -> Any:
            return await getattr(engine.endpoints, what)(id)

        chosen.ask(what, {"endpoint": id}, call)

    def _die(self, device: int) -> None:
        self._device(device).dead_since = self._world.wall

    def _break(self, device: int) -> None:
        self._device(device).broken = True

    def _device(self, device: int) -> Device:
        return self._simulation.devices[self._simulation.plan.devices[device].address.rpartition("/")[2]]

    def said_gone(self, device: str) -> None:
        """A gateway has called this device gone: now and then its app is installed again at just this moment."""
        if self._calm or self._rng.random() >= self._simulation.plan.reinstall:
            return
        place = next((each for each in self._users if each.rpartition("/")[2] == device), None)
        if place is not None:
            self._world.after(self._rng.uniform(0.0, 0.12), self._reinstall, place)

    def _reinstall(self, place: str) -> None:
        self._world.say("fate", "reinstall", place)
        self._simulation.devices[place.rpartition("/")[2]].dead_since = None
        tags = next((d.tags for d in self._simulation.plan.devices if d.address == place), ())
        self._register(self._rng.randrange(2), place, self._users[place], tags)

    # -- processes and the machine

    def _crash(self, worker: int, fuse: int, seconds: float) -> None:
        chosen = self._simulation.workers[worker]
        chosen.crash(fuse)
        self._later(seconds, chosen.start)

    def _restart(self, worker: int, seconds: float) -> None:
        chosen = self._simulation.workers[worker]
        chosen.stop()
        self._later(seconds, chosen.start)

    def _freeze(self, worker: int, seconds: float) -> None:
        self._simulation.workers[worker].freeze(seconds)

    def _jump(self, seconds: float) -> None:
        self._world.wall_offset += seconds
        self._simulation.history.jumps.append((self._world.time, seconds))

    def _full(self, seconds: float) -> None:
        self._simulation.history.full.append((self._world.time, self._world.time + seconds))
        self._fill(True)
        self._later(seconds, self._fill, False)

    def _fill(self, full: bool) -> None:
        self._simulation.disk_full = full
        for worker in self._simulation.workers:
            if worker.disk is not None:
                worker.disk.full = full

    def _later(self, seconds: float, action: Any, *arguments: Any) -> None:
        """Faults are over when the calm begins."""
        left = max(0.0, self._simulation.plan.calm_at - self._world.time)
        self._world.after(min(seconds, left), action, *arguments)

    # -- hosts

    def _outage(self, host: str, seconds: float) -> None:
        chosen = self._simulation.network.hosts[host]
        chosen.state = "refusing"
        for end in list(chosen.node.ends):
            end.kill()
        self._later(seconds, self._up, host)

    def _swallow(self, host: str, seconds: float) -> None:
        self._simulation.network.hosts[host].state = "swallowing"
        self._later(seconds, self._up, host)

    def _up(self, host: str) -> None:
        self._simulation.network.hosts[host].state = "up"

    def _nameless(self, host: str, seconds: float) -> None:
        self._simulation.network.hosts[host].named = False
        self._later(seconds, self._name, host)

    def _name(self, host: str) -> None:
        self._simulation.network.hosts[host].named = True

    def _hang(self, host: str, seconds: float) -> None:
        self._simulation.network.hosts[host].node.frozen = True
        self._later(seconds, self._unhang, host)

    def _unhang(self, host: str) -> None:
        self._simulation.network.hosts[host].node.frozen = False

    def _partition(self, host: str, seconds: float) -> None:
        self._simulation.network.hosts[host].cut_until = self._world.time + seconds

    def _power(self, host: str) -> None:
        for end in list(self._simulation.network.hosts[host].node.ends):
            end.vanish()

    def _goaway(self, host: str, short: int) -> None:
        gateway = self._simulation.gateways[host]
        self._simulation.network.hosts[host].node.post(gateway.go_away, short)

    def _shrink(self, host: str, streams: int) -> None:
        gateway = self._simulation.gateways[host]
        self._simulation.network.hosts[host].node.post(gateway.announce, streams)

    def _storm(self, host: str, verdict: str, seconds: float) -> None:
        manners = self._simulation.gateways[host].manners
        before = manners.rates
        manners.rates = {verdict: 0.9}
        self._later(seconds, self._abate, manners, before)

    def _abate(self, manners: Manners, rates: dict[str, float]) -> None:
        if not self._calm:
            manners.rates = rates

    # -- the end of it

    def calm(self) -> None:
        """No more faults: living processes go on, and dead ones are started again."""
        self._calm = True
        self._world.say("fate", "calm")
        for name, gateway in self._simulation.gateways.items():
            gateway.manners = Manners()
            gateway.faults = Faults()
            host = self._simulation.network.hosts[name]
            host.state, host.named, host.cut_until = "up", True, 0.0
            host.node.frozen = False
            host.node.post(gateway.announce, 100)
        self._fill(False)
        for worker in self._simulation.workers:
            worker.start()
        self._resume_all()

    def _resume_all(self) -> None:
        """Everything that was paused goes on: asked again for as long as a pause is still waiting for other workers."""
        for id in self._paused:
            self._about("resume", 0, id)
        for binding in self._paused_bindings:
            self._binding("resume_binding", 0, binding)
        history = self._simulation.history
        if any(
            request.what in ("pause", "pause_binding")
            and request.returned is None
            and not history.lives[request.node].end
            for request in history.requests
        ):
            self._world.after(0.5, self._resume_all)


def _target(text: str) -> Target:
    kind, _, names = text.partition(":")
    if kind == "users":
        return Target.users(names.split(","))
    if kind == "endpoints":
        return Target.endpoints(map(int, names.split(",")))
    return Target.parse(text)
