"""The steps of a plan: requests of the engine's users, and faults."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fanout.plugin import Policy
    from fanout_kit.simulation.plan import Enrolment

__all__ = ["draw_steps"]

_Drawn = tuple[float, str, dict[str, Any]]


def draw_steps(
    rng: random.Random, calm_at: float, policy: Policy, devices: Sequence[Enrolment], hosts: Sequence[str]
) -> list[_Drawn]:
    """All steps of one plan, by time."""
    steps = _sends(rng, calm_at, devices)
    moments = [at for at, what, _ in steps if what == "send"]
    steps += _directory(rng, calm_at, devices, hosts)
    for share, make in _DRAWS:
        if rng.random() < share:
            steps += make(rng, _Span(calm_at, moments), policy, hosts)
    return sorted(steps, key=lambda step: step[0])


class _Span:
    """The time in which things may go wrong. `moments` are when something is sent."""

    def __init__(self, calm_at: float, moments: Sequence[float]) -> None:
        self.calm_at = calm_at
        self._moments = moments

    def any(self, rng: random.Random) -> float:
        """Any time."""
        return rng.uniform(0.1, 0.95 * self.calm_at)

    def busy(self, rng: random.Random) -> float:
        """A time at which there is probably work in hand."""
        if rng.random() < 0.3:
            return self.any(rng)
        return min(rng.choice(self._moments) + rng.choice((0.05, 0.2, 0.6)) * rng.random(), 0.95 * self.calm_at)


# -- users' requests


def _sends(rng: random.Random, calm_at: float, devices: Sequence[Enrolment]) -> list[_Drawn]:
    users = sorted({device.user for device in devices})
    collapsing = rng.random() < 0.4
    killing = rng.random() < 0.1
    asked = {what: share for what, share in _ASKED.items() if rng.random() < 0.5}
    steps: list[_Drawn] = []
    for number in range(rng.randrange(2, 11)):
        at = rng.uniform(0.1, 0.8 * calm_at)
        data: dict[str, Any] = {"number": number, "worker": rng.randrange(2)}
        data["target"] = _target(rng, users, len(devices))
        data["lane"] = rng.choice(("urgent", "normal", "normal", "bulk"))
        data["ttl"] = rng.choice((0, 1, 2, 4, 60, 3600, 3600, 3600))
        data["repeat"] = rng.choice(("prefer_delivery",) * 4 + ("prefer_once", "at_most_once"))
        if rng.random() < 0.2:
            data["due"] = round(rng.uniform(0.2, 4.0), 3)
        if collapsing and rng.random() < 0.6:
            data["collapse"] = rng.choice(("match", "score"))
        if rng.random() < 0.4:
            data["key"] = f"k{number}"
            data["again"] = round(rng.uniform(0.0, 2.0), 3)
        if killing and rng.random() < 0.4:
            data["kill"] = rng.choice((0, 0, 1, 4, 16))
        steps.append((at, "send", data))
        for what, share in asked.items():
            if rng.random() < share:
                later = at + rng.choice((0.05, 0.5, 2.0)) * rng.random()
                steps.append((later, what, {"worker": rng.randrange(2), "send": number}))
                if what == "pause":
                    again = later + rng.uniform(0.1, 2.0)
                    steps.append((again, "resume", {"worker": rng.randrange(2), "send": number}))
    return steps


_ASKED = {"cancel": 0.3, "look": 0.5, "pause": 0.25}
"""How likely each is asked for after a send, in the seeds in which it is asked for at all."""


def _target(rng: random.Random, users: Sequence[str], devices: int) -> str:
    match rng.randrange(10):
        case 0 | 1 | 2:
            return "all"
        case 3 | 4 | 5:
            return rng.choice(("topic:news", "topic:sport"))
        case 6 | 7:
            return f"user:{rng.choice(users)}"
        case 8:
            return "users:" + ",".join(rng.sample(list(users), min(len(users), 3)))
        case _:
            chosen = sorted(rng.sample(range(1, devices + 1), min(devices, 5)))
            return "endpoints:" + ",".join(map(str, chosen))


_CHANGES = ("refresh", "takeover", "remove", "restore", "die", "break", "new", "erase")


def _directory(rng: random.Random, calm_at: float, devices: Sequence[Enrolment], hosts: Sequence[str]) -> list[_Drawn]:
    """Devices that come, go, change hands and die."""
    kinds = [kind for kind in _CHANGES if rng.random() < 0.4]
    steps: list[_Drawn] = []
    for kind in kinds:
        for _ in range(rng.randrange(1, 5)):
            data: dict[str, Any] = {"worker": rng.randrange(2), "device": rng.randrange(len(devices))}
            if kind == "takeover":
                data["user"] = rng.choice(("mallory", devices[rng.randrange(len(devices))].user))
            if kind == "new":
                data |= {"device": rng.randrange(1000, 9999), "host": rng.choice(tuple(hosts))}
            if kind in ("die", "break"):
                del data["worker"]
            if kind == "erase":
                data = {"worker": rng.randrange(2), "user": devices[rng.randrange(len(devices))].user}
            steps.append((rng.uniform(0.0, calm_at), kind, data))
            if kind == "erase":
                break
    return steps


# -- faults

_Draw = Callable[[random.Random, _Span, "Policy", Sequence[str]], list[_Drawn]]


def _spell(what: str, low: float, high: float, **more: tuple[Any, ...]) -> _Draw:
    """A few spells of `what` at some host, each lasting between `low` and `high` seconds."""

    def make(rng: random.Random, span: _Span, policy: Policy, hosts: Sequence[str]) -> list[_Drawn]:
        steps: list[_Drawn] = []
        for _ in range(rng.randrange(1, 4)):
            at = span.busy(rng)
            data: dict[str, Any] = {"host": rng.choice(tuple(hosts))}
            data |= {name: rng.choice(values) for name, values in more.items()}
            if high:
                data["seconds"] = round(min(rng.uniform(low, high), span.calm_at - at), 3)
            steps.append((at, what, data))
        return steps

    return make


def _crashes(rng: random.Random, span: _Span, policy: Policy, hosts: Sequence[str]) -> list[_Drawn]:
    return [
        (
            span.busy(rng),
            "crash",
            {
                "worker": rng.randrange(2),
                "fuse": rng.choice((0, 0, 5, 40, 200)),
                "seconds": round(rng.uniform(0.1, 1.5 * policy.lease), 3),
            },
        )
        for _ in range(rng.randrange(1, 4))
    ]


def _restarts(rng: random.Random, span: _Span, policy: Policy, hosts: Sequence[str]) -> list[_Drawn]:
    data = {"worker": rng.randrange(2), "seconds": round(rng.uniform(0.1, 1.0), 3)}
    return [(span.busy(rng), "restart", data)]


def _freezes(rng: random.Random, span: _Span, policy: Policy, hosts: Sequence[str]) -> list[_Drawn]:
    return [
        (
            span.busy(rng),
            "freeze",
            {"worker": rng.randrange(2), "seconds": round(policy.lease * rng.choice((0.2, 0.9, 1.1, 1.6, 3.0)), 3)},
        )
        for _ in range(rng.randrange(1, 4))
    ]


def _jumps(rng: random.Random, span: _Span, policy: Policy, hosts: Sequence[str]) -> list[_Drawn]:
    return [
        (span.busy(rng), "jump", {"seconds": rng.choice((-8.0, -3.0, -0.9, 0.9, 3.0, 8.0, 3600.0))})
        for _ in range(rng.randrange(1, 3))
    ]


def _full(rng: random.Random, span: _Span, policy: Policy, hosts: Sequence[str]) -> list[_Drawn]:
    at = span.busy(rng)
    return [(at, "full", {"seconds": round(min(rng.uniform(0.1, 3.0), span.calm_at - at), 3)})]


def _held_bindings(rng: random.Random, span: _Span, policy: Policy, hosts: Sequence[str]) -> list[_Drawn]:
    at, host = span.busy(rng), rng.choice(tuple(hosts))
    again = at + rng.uniform(0.1, 2.0)
    return [
        (at, "pause_binding", {"worker": rng.randrange(2), "host": host}),
        (again, "resume_binding", {"worker": rng.randrange(2), "host": host}),
    ]


_DRAWS: Sequence[tuple[float, _Draw]] = (
    (0.35, _crashes),
    (0.3, _freezes),
    (0.15, _restarts),
    (0.2, _jumps),
    (0.12, _full),
    (0.15, _held_bindings),
    (0.3, _spell("outage", 0.5, 4.0)),
    (0.15, _spell("swallow", 0.3, 3.0)),
    (0.1, _spell("nameless", 0.5, 3.0)),
    (0.2, _spell("hang", 0.2, 3.0)),
    (0.2, _spell("partition", 0.1, 3.0)),
    (0.2, _spell("power", 0.0, 0.0)),
    (0.25, _spell("goaway", 0.0, 0.0, short=(0, 0, 1, 2, 10))),
    (0.2, _spell("shrink", 0.0, 0.0, streams=(1, 1, 2, 5))),
    (0.2, _spell("storm", 0.5, 3.0, verdict=("busy", "broken", "throttled", "overrun", "refused", "credential"))),
)
"""How likely a seed has each."""
