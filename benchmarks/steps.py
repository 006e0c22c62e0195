"""Where the CPU of one durable APNs delivery goes, step by step.

    python -m benchmarks.steps [--rounds N] [--devices N]

A broadcast to nginx as in `broadcast`, interrupted by a timer for each millisecond of CPU: the main thread's CPU since
the last time belongs to the step in whose code it is found. Code in C counts for the Python that called it. Storage's
thread is a step by itself, and is the rest of the process's CPU. The timer costs a few per cent, so the sum is a little
above the row of `broadcast`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Self

import fanout
from benchmarks import rig
from benchmarks.rig import Sample, broadcast, enter, gateway, nginx, on_client_cpu
from benchmarks.row import Row

__all__ = ["run"]

_PARTS = {
    "HTTP/2": ("/fanout/http/",),
    "TLS and socket": ("/asyncio/sslproto.py", "/asyncio/selector_events.py", "/ssl.py", "/selectors.py"),
    "fanout_apns": ("/fanout_apns/",),
    "limiter, gates, budget": ("/fanout/core/limiter.py", "/fanout/core/gate.py", "/fanout/core/budget.py"),
    "sender": (
        "/fanout/engine/pump.py",
        "/fanout/engine/sender.py",
        "/fanout/engine/group.py",
        "/fanout/engine/lane_queue.py",
        "/fanout/engine/gates.py",
        "/fanout/core/run.py",
    ),
    "lease": ("/fanout/engine/lease.py",),
    "settler": ("/fanout/engine/settler.py", "/fanout/engine/live.py", "/fanout/engine/counters.py"),
    "lease and resolve": ("/fanout/engine/", "/fanout/storage/", "/fanout/core/"),
    "loop": ("/asyncio/",),
}
"""The step of a code file; the first that fits the innermost frame that fits any."""
_STEPS = {
    "wire": ("HTTP/2", "TLS and socket", "fanout_apns"),
    "storage": ("storage",),
    "policy": ("sender", "limiter, gates, budget"),
    "settling": ("lease", "settler"),
    "the rest": ("lease and resolve", "loop", "other"),
}
_BUDGET = {"wire": 8.0, "storage": 1.0, "policy": 1.0, "settling": 0.5, "the rest": 1.5}
"""Microseconds that a delivery was meant to cost."""


class _Profile:
    """`with _Profile() as profile`: afterwards `used` has the main thread's seconds of CPU by part."""

    def __init__(self) -> None:
        self.used: Counter[str] = Counter()
        self._known: dict[CodeType, str] = {}
        self._last = 0.0

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGPROF, self._tick)
        self._last = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, self._before)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        self.used[self._part(frame)] += now - self._last
        self._last = now

    def _part(self, frame: FrameType | None) -> str:
        while frame is not None:
            part = self._known.get(frame.f_code)
            if part is None:
                file = frame.f_code.co_filename
                part = next((part for part, ends in _PARTS.items() if any(end in file for end in ends)), "")
                self._known[frame.f_code] = part
            if part:
                return part
            frame = frame.f_back
        return "other"


def run(*, rounds: int = 3, devices: int = 200_000) -> list[Row]:
    """The steps, as rows: medians of the rounds."""
    taken: list[Counter[str]] = []
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rig.make_certificate(folder)
        port = rig.free_port()
        transports = {"apns": rig.apns_settings(f"https://127.0.0.1:{port}", folder)}

        async def main(first: bool) -> None:
            async with fanout.open(storage=f"sqlite:{folder}/steps.db", transports=transports) as engine:
                if first:
                    await enter(engine, "apns", (f"{n + 1:064x}" for n in range(devices)))
                await (await engine.send(fanout.Notification(title="Warm up"), "user:u0")).wait(60)
                began = time.thread_time()
                with _Profile() as profile:
                    sample = await broadcast(engine, process)
                spent = time.thread_time() - began
                # Time that the timer missed at the end of the run is spread over all parts.
                whole = sum(profile.used.values())
                used = Counter({part: seconds * spent / whole for part, seconds in profile.used.items()})
                used["storage"] = sample.cpu - spent
                taken.append(used)
                samples.append(sample)

        with gateway(nginx(folder, port), port) as process, on_client_cpu(dedicated=True):
            for number in range(rounds):
                asyncio.run(main(number == 0))
    cost = {
        part: statistics.median(used[part] / sample.requests * 1e6 for used, sample in zip(taken, samples, strict=True))
        for part in {part for used in taken for part in used}
    }
    rows = []
    for step, parts in _STEPS.items():
        detail = ", ".join(f"{part} {cost.get(part, 0.0):.1f}" for part in parts) if len(parts) > 1 else ""
        value = sum(cost.get(part, 0.0) for part in parts)
        rows.append(Row(step, value, "us of CPU", note="; ".join(filter(None, (f"meant {_BUDGET[step]:g}", detail)))))
    whole = statistics.median(sample.cost for sample in samples)
    note = f"meant {sum(_BUDGET.values()):g}; {statistics.median(sample.rate for sample in samples):,.0f}/s"
    rows.append(Row("one durable APNs delivery", whole, "us of CPU", note=note, cores=rig.cores()))
    return [row._replace(figure="CPU of one durable APNs delivery by step") for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", type=int, default=200_000)
    arguments = parser.parse_args()
    for row in run(rounds=arguments.rounds, devices=arguments.devices):
        print(row)


if __name__ == "__main__":
    main()
