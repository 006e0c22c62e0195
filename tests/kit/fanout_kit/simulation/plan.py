"""The plan of one seed: the world's make-up and the list of everything that will be done to it, drawn before it begins.

Each seed takes part of the faults only (swarm testing: Groce and others, ISSTA 2012), for many faults together hide the
effect of a single one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from typing import Any

from fanout.plugin import Policy, PoolSettings
from fanout_kit.simulation.steps import draw_steps

__all__ = ["HOSTS", "Enrolment", "Plan", "Step", "draw", "stream"]

HOSTS = ("alpha.sim", "beta.sim", "gamma.sim")
APNS = "apns.sim"


@dataclass(frozen=True, slots=True)
class Step:
    """Something done at the virtual time `at` (seconds): by a user of the engine, or by fate."""

    at: float
    what: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.at:8.3f} {self.what} " + " ".join(f"{key}={value}" for key, value in self.data.items())


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A device that is registered before anything else happens."""

    user: str
    binding: str
    address: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One seed, spelt out. All times in seconds.

    `rates` are fractions of the requests at each host, by fault; `calm_at` is when every fault ends; `lags` are how
    long an iteration of each worker's loop takes at most; `disk` the latency of storage, None for inline.
    """

    seed: int
    hosts: tuple[str, ...]
    dialects: Mapping[str, str]
    devices: tuple[Enrolment, ...]
    chunk: int
    policy: Policy
    pool: PoolSettings
    padding: int
    latency: tuple[float, float]
    split: float
    window: int
    disk: tuple[float, float] | None
    lags: tuple[float, ...]
    think: float
    slow: Mapping[str, float]
    streams: Mapping[str, int]
    shrink: Mapping[str, tuple[int, int]]
    goaways: Mapping[str, tuple[int, int]]
    rates: Mapping[str, Mapping[str, float]]
    told: float
    reinstall: float
    calm_at: float
    steps: tuple[Step, ...]

    def spelt(self) -> str:
        """Every option, one a line."""
        lines = []
        for name, value in asdict(self).items():
            if name == "steps":
                lines += ["steps:", *(f"  {step}" for step in self.steps)]
            elif name == "devices":
                lines += ["devices:", *(f"  {d.user} {d.binding} {d.address} {' '.join(d.tags)}" for d in self.devices)]
            else:
                lines.append(f"{name}: {value}")
        return "\n".join(lines)


def stream(seed: int, name: str) -> random.Random:
    """The random numbers of one part of a run: apart from all others, so that a change in one part moves no other."""
    return random.Random(int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=16).digest(), "big"))


_BEFALLS = {
    "busy": 0.2,
    "broken": 0.1,
    "throttled": 0.15,
    "overrun": 0.03,
    "rejected": 0.1,
    "credential": 0.02,
    "leaving": 0.08,
    "refused": 0.1,
    "reset": 0.08,
    "reset_after": 0.08,
    "stall": 0.06,
    "stall_after": 0.06,
    "cut": 0.03,
    "cut_after": 0.03,
}
"""The largest share of requests that each may befall."""


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = stream(seed, "plan")
    hosts = HOSTS[: rng.choice((1, 2, 2, 3))]
    with_apns = rng.random() < 0.3
    dialects = dict.fromkeys(hosts, "push") | ({APNS: "apns"} if with_apns else {})
    policy = _policy(rng)
    calm_at = rng.uniform(3.5, 8.0)
    devices = _devices(rng, dialects)
    return Plan(
        seed=seed,
        hosts=hosts,
        dialects=dialects,
        devices=devices,
        chunk=rng.choice((3, 4, 5, 8, 20)),
        policy=policy,
        pool=_pool(rng, policy),
        padding=rng.choice((0, 0, 0, 300, 3000)),
        latency=rng.choice(((0.0002, 0.002), (0.0005, 0.02), (0.005, 0.08))),
        split=rng.choice((0.0, 0.1, 0.5)),
        window=rng.choice((2_000, 16_000, 65_536, 65_536)),
        disk=rng.choice((None, (0.0001, 0.002), (0.0002, 0.01), (0.002, 0.03))),
        lags=tuple(rng.choice((2e-5, 2e-4, 3e-3)) for _ in range(2)),
        think=rng.choice((0.002, 0.02, 0.2)),
        slow={host: policy.request_timeout * rng.uniform(0.3, 1.3) for host in dialects if rng.random() < 0.15},
        streams={host: rng.choice((2, 5, 20, 100)) for host in dialects},
        shrink={host: (rng.randrange(3, 20), rng.choice((1, 2))) for host in dialects if rng.random() < 0.15},
        goaways={host: (rng.randrange(3, 25), rng.choice((0, 0, 1, 3))) for host in dialects if rng.random() < 0.2},
        rates={host: _rates(rng) for host in dialects},
        told=rng.choice((0.0, 0.5, 1.0)),
        reinstall=rng.choice((0.0, 0.3, 0.8)),
        calm_at=calm_at,
        steps=tuple(Step(*step) for step in draw_steps(rng, calm_at, policy, devices, tuple(dialects))),
    )


def _rates(rng: random.Random) -> dict[str, float]:
    return {what: round(rng.uniform(0.005, most), 3) for what, most in _BEFALLS.items() if rng.random() < 0.2}


def _policy(rng: random.Random) -> Policy:
    request_timeout = rng.uniform(0.65, 1.2)
    drawn = _drawn_policy(rng, request_timeout)
    return replace(drawn, heartbeat=max(1.0, 0.4 * drawn.lease))


def _drawn_policy(rng: random.Random, request_timeout: float) -> Policy:
    return Policy(
        attempts=rng.choice((3, 5, 10, 10)),
        backoff_base=rng.uniform(0.05, 0.3),
        backoff_throttled=rng.uniform(0.2, 0.8),
        backoff_cap=rng.uniform(0.8, 2.0),
        retry_after_cap=2.0,
        free_retries=rng.choice((0, 1, 3, 3)),
        zero_ttl_grace=rng.uniform(1.0, 4.0),
        request_timeout=request_timeout,
        lease=request_timeout * rng.choice((1.3, 1.8, 2.5, 2.5, 6.0)) + 0.2,
        checkpoint=rng.choice((0.02, 0.05, 0.05, 0.1)),
        probe=rng.uniform(0.2, 0.8),
    )


def _pool(rng: random.Random, policy: Policy) -> PoolSettings:
    return PoolSettings(
        connections=rng.choice((1, 2, 2, 3)),
        streams=rng.choice((3, 10, 50)),
        max_waiting=rng.choice((4, 1000)),
        request_timeout=policy.request_timeout,
        connect_timeout=policy.request_timeout * rng.uniform(0.4, 1.0),
        idle_ping=rng.uniform(1.0, 4.0),
        stall_ping=rng.uniform(0.15, 0.5),
        ping_timeout=rng.uniform(0.2, 0.6),
        max_age=rng.choice((None, rng.uniform(1.5, 6.0))),
        idle_close=rng.choice((None, None, rng.uniform(1.0, 3.0))),
        dns_interval=rng.choice((None, 1.0)),
        backoff_base=rng.uniform(0.02, 0.2),
        backoff_cap=rng.uniform(0.3, 1.5),
        warm=rng.choice((0.0, 2.0, 60.0)),
        tick=rng.choice((0.05, 0.1, 0.25)),
    )


def _devices(rng: random.Random, dialects: Mapping[str, str]) -> tuple[Enrolment, ...]:
    users = [f"u{n}" for n in range(rng.randrange(2, 9))]
    devices = []
    for number in range(rng.randrange(10, 41)):
        host = rng.choice(tuple(dialects))
        binding = dialects[host]
        tags = tuple(tag for tag in ("news", "sport") if rng.random() < 0.6)
        devices.append(Enrolment(rng.choice(users), binding, address(host, binding, number), tags))
    return tuple(devices)


def address(host: str, binding: str, number: int) -> str:
    """The address of a simulated device: behind a host of the kit, or in Apple's form."""
    return f"{number:064x}" if binding == "apns" else f"{host}/d{number}"
