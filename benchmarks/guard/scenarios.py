"""The scenarios: deliveries of each kind, from `engine.send` to the last committed settlement."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fanout
from benchmarks.guard.counting import Blocks, Calls, Counting, Instructions, part_of
from benchmarks.guard.posts import CALLERS, Posts
from benchmarks.guard.process import Process
from fanout.engine import Engine
from fanout.plugin import Run, literal

__all__ = ["PASSES", "SCENARIOS", "Count", "measure"]

_MOST = 1000
PASSES: Mapping[str, tuple[type[Counting], int]] = {
    "calls": (Calls, _MOST),
    "instructions": (Instructions, 500),
    "blocks": (Blocks, 25),
}
"""The number of deliveries for each count: the finer the count, the longer it takes."""
NOTE = fanout.Notification(title="Storm warning", body="Gale-force winds from the west after six.")


@dataclass(frozen=True, slots=True)
class Count:
    """One measure: how many for so many `deliveries`, and where it is a count of Python, by part of the program and by
    function."""

    deliveries: int
    total: int
    parts: Mapping[str, int] = field(default_factory=dict)
    functions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`open` makes the process, in a folder, with one binding, of the transport `binding`; `address` the device of a
    number; `act` sends to so many of them, until all are settled. `enrol` registers these addresses, one for each user,
    where it is not the engine's import that does."""

    binding: str
    open: Callable[[Path], Process]
    address: Callable[[int], Any]
    act: Callable[[Engine, int], Awaitable[None]]
    share: float = 1.0
    """Of the deliveries in `PASSES`: for those that cost more."""
    enrol: Callable[[Engine, list[Any]], Awaitable[None]] | None = None

    def size(self, most: int) -> int:
        """How many deliveries a pass counts here."""
        return round(most * self.share)


async def _broadcast(engine: Engine, devices: int) -> None:
    """One notification to the first so many devices: they have a tag."""
    _accepted(await (await engine.send(NOTE, f"topic:first-{devices}")).wait(60), devices)


async def _singles(engine: Engine, devices: int) -> None:
    """A notification for each user, sent by callers that wait until it is settled before they send the next."""
    users = iter(range(devices))

    async def caller() -> None:
        for user in users:
            _accepted(await (await engine.send(NOTE, f"user:u{user}")).wait(60), 1)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


def _accepted(status: Any, devices: int) -> None:
    if status.counts["accepted"] != devices or status.total != devices:
        raise RuntimeError(f"Not all of {devices} were accepted: {dict(status.counts)}")


# -- the processes


def _apns(folder: Path, **more: Any) -> Process:
    from fanout_apns.simulator import ApnsSimulator

    return Process(folder, "apns", ApnsSimulator(folder=folder).settings(), **more)


def _apns_address(number: int) -> str:
    return f"{number + 1:064x}"


def _fcm(folder: Path) -> Process:
    import fanout_fcm.auth
    from fanout.plugin import Fetched
    from fanout_fcm.simulator import FcmSimulator

    async def fetch(*_: object, **__: object) -> Fetched:
        return Fetched("ya29." + "x" * 1000, 3600.0)

    # The token endpoint is asked once an hour, over HTTP/1.1, which wants a real loop.
    fanout_fcm.auth.Credentials._fetch = fetch  # type: ignore[method-assign]
    simulator = FcmSimulator(folder=folder)
    settings = {
        "service_account": simulator.service_account,
        "ca_file": simulator.ca_file,
        "token_url": "https://token.test/",
        "rate_per_minute": 0,
    }
    return Process(folder, "fcm", settings, body=simulator.lean_body)


def _fcm_address(number: int) -> str:
    from fanout_fcm.simulator import FcmSimulator

    return FcmSimulator.address(number)


def _webpush(folder: Path) -> Process:
    from fanout_webpush.simulator import WebPushSimulator

    # `:status 201` as a literal, never indexed: 8 is the name's place in the static table (RFC 7541, appendix A).
    return Process(
        folder,
        "webpush",
        WebPushSimulator(folder=folder).settings(),
        answer=b"\x18\x03201" + literal("location", "https://push.example/m/1"),
    )


def _webpush_address(number: int) -> str:
    from fanout_webpush.browsers import Browser

    host = ("https://fcm.googleapis.com/fcm/send", "https://updates.push.services.mozilla.com/wpush/v2")[number % 2]
    return json.dumps(Browser.seeded(f"{host}/{number:064x}", "", "good", f"guard {number}").subscription())


def _hosts(folder: Path) -> Process:
    from benchmarks.growth import Hosts

    return Process(folder, "apns", {}, made=Hosts())


def _hosts_address(number: int) -> str:
    return f"h{number}/{number:060x}"


def _runs(folder: Path) -> Process:
    from benchmarks.engine import Instant

    class Runs(Instant):
        """Accepts a whole run as it begins."""

        def start(self, run: Run) -> Sequence[int]:
            run.accept(range(len(run)))
            return ()

    return Process(folder, "apns", {}, made=Runs())


def _posted(posts: Posts) -> Scenario:
    return Scenario("apns", partial(_apns, beside=posts.service), _apns_address, posts.act, 0.1, posts.enrol)


SCENARIOS: Mapping[str, Scenario] = {
    "apns broadcast": Scenario("apns", _apns, _apns_address, _broadcast),
    "apns single": Scenario("apns", _apns, _apns_address, _singles, 0.1),
    "rest single": _posted(Posts(graph=False)),
    "graph single": _posted(Posts(graph=True)),
    "fcm broadcast": Scenario("fcm", _fcm, _fcm_address, _broadcast),
    "webpush broadcast": Scenario("webpush", _webpush, _webpush_address, _broadcast, 0.5),
    # Without a wire: each delivery to a host, and so a group, of its own; and all in runs of one group.
    "hosts broadcast": Scenario("apns", _hosts, _hosts_address, _broadcast),
    "runs broadcast": Scenario("apns", _runs, _apns_address, _broadcast),
}


def measure(name: str, only: Container[str] = PASSES) -> dict[str, Count]:
    """Count one scenario: by measure. It needs a process of its own, with `PYTHONHASHSEED=0`, for earlier work would
    show.

    `only` names the passes; counts outside of Python are taken along with the calls.
    """
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory(prefix="fanout-guard-", dir=_quick()) as folder:
        process = scenario.open(Path(folder))
        process.open()
        try:
            process.do(lambda engine: _enrol(engine, scenario))
            # Connections, statements and caches are warm in any process that has lived for a second.
            process.do(lambda engine: scenario.act(engine, scenario.size(_MOST)))
            found: dict[str, Count] = {}
            for what, (counting, most) in PASSES.items():
                if what not in only:
                    continue
                counts, deliveries = counting(), scenario.size(most)
                totals = process.counted(counts, lambda engine, n=deliveries: scenario.act(engine, n))
                functions = counts.functions()
                parts: Counter[str] = Counter()
                for function, count in functions.items():
                    parts[part_of(function)] += count
                found[what] = Count(deliveries, parts.total(), dict(sorted(parts.items())), functions)
                if isinstance(counts, Calls):
                    found |= {name: Count(deliveries, total) for name, total in totals.counts.items()}
        finally:
            process.close()
    return found


def _quick() -> Path | None:
    """A folder in memory where there is one: nothing here is about the disk's speed."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else None


async def _enrol(engine: Engine, scenario: Scenario) -> None:
    """As many devices as the longest pass needs. A topic has those of each pass."""
    devices = scenario.size(_MOST)
    if scenario.enrol is not None:
        await scenario.enrol(engine, [scenario.address(number) for number in range(devices)])
        return
    sizes = [scenario.size(most) for _, most in PASSES.values()]
    lines = (
        json.dumps(
            {
                "user": f"u{number}",
                "transport": scenario.binding,
                "address": scenario.address(number),
                "tags": [f"first-{size}" for size in sizes if number < size],
            }
        ).encode()
        for number in range(devices)
    )
    report = await engine.endpoints.import_(lines)
    if report.imported != devices:
        raise RuntimeError(f"Only {report.imported} of {devices} devices were registered: {report}")
