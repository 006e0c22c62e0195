"""Two hosts on one database: network namespaces with a cable each, and one of the cables is pulled."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from shutil import which

from tests.faults.nursery import Child
from tests.faults.rows.kills import honest, words
from tests.faults.rows.postgres import quit_all, server
from tests.faults.table import Finding, NotRun
from tests.faults.world import Form, moment, until, world

__all__ = ["hosts", "relay_main", "two_hosts"]

_NET = "10.{}.{}.{}"
_NEEDED = "needs network namespaces: run as root, with iproute2 installed"


class Host:
    """A network namespace that reaches this machine's loopback ports under their own numbers, through relays on both
    sides of a cable."""

    def __init__(self, number: int, cables: int) -> None:
        self.name = f"fanout-{os.getpid()}-{number}"
        self.cables = [f"fo{os.getpid() % 1_000_000}{number}{cable}" for cable in range(cables)]
        # Another trial on this machine has other networks.
        nets = [(128 + os.getpid() // 256 % 128, os.getpid() % 256, 16 * number + 4 * cable) for cable in range(cables)]
        self.ours = [_NET.format(first, second, last + 1) for first, second, last in nets]
        self.theirs = [_NET.format(first, second, last + 2) for first, second, last in nets]

    def make(self) -> None:
        """Raises `NotRun` where this user may not."""
        try:
            _ip("netns", "add", self.name)
        except (OSError, subprocess.CalledProcessError):
            raise NotRun(_NEEDED) from None
        _ip("-n", self.name, "link", "set", "lo", "up")
        for number, (cable, ours, theirs) in enumerate(zip(self.cables, self.ours, self.theirs, strict=True)):
            end = f"eth{number}"
            _ip("link", "add", cable, "type", "veth", "peer", "name", end, "netns", self.name)
            _ip("addr", "add", f"{ours}/30", "dev", cable)
            _ip("link", "set", cable, "up")
            _ip("-n", self.name, "addr", "add", f"{theirs}/30", "dev", end)
            _ip("-n", self.name, "link", "set", end, "up")

    def remove(self) -> None:
        """Its cables go with it."""
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self.name)

    def plug(self, cable: int = 0, *, plugged: bool) -> None:
        """Pull a cable, or put it back."""
        _ip("link", "set", self.cables[cable], "up" if plugged else "down")


def _ip(*words_: str) -> None:
    subprocess.run(["ip", *words_], check=True, capture_output=True)


@asynccontextmanager
async def hosts(form: Form, *cables: list[int], count: int = 2) -> AsyncIterator[list[Host]]:
    """That many hosts, each with so many cables, over which these loopback ports can be reached. Raises `NotRun`."""
    if which("ip") is None:
        raise NotRun(_NEEDED)
    made = [Host(number, len(cables)) for number in range(1, count + 1)]
    relays: list[Child] = []
    async with AsyncExitStack() as stack:
        for host in made:
            stack.callback(host.remove)
            host.make()
            for ours, port in ((ours, port) for ours, ports in zip(host.ours, cables, strict=True) for port in ports):
                # On this side from the cable to loopback, and in the namespace from its loopback to the cable.
                for place, listen, upstream in (("", ours, "127.0.0.1"), (host.name, "127.0.0.1", ours)):
                    log = form.folder / f"relay-{len(relays)}.log"
                    argv = ["relay", listen, upstream, str(port)]
                    relays.append(
                        form.nursery.spawn("tests.faults.rows.hosts:relay_main", argv, log=log, network=place)
                    )
        try:
            for relay in relays:
                await until(lambda relay=relay: "ready" in relay.said or relay.ended, what="a relay")  # type: ignore[misc]
            yield made
        finally:
            for relay in relays:
                relay.kill()
                await relay.wait()


def relay_main() -> int:
    """A relay: `relay LISTEN UPSTREAM PORT`, until it is killed."""
    listen, upstream, port = sys.argv[1:4]
    asyncio.run(_relay(listen, upstream, int(port)))
    return 0


async def _relay(listen: str, upstream: str, port: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            theirs, ours = await asyncio.open_connection(upstream, port)
            await asyncio.gather(_pass(reader, ours), _pass(theirs, writer), return_exceptions=True)
        writer.close()

    async with await asyncio.start_server(serve, listen, port):
        print("ready", flush=True)
        await asyncio.Event().wait()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def two_hosts(form: Form) -> Finding:
    """Four workers, two to a host. A host's cable is pulled past its leases: the other goes on with what it held, and
    it comes back."""
    pulls, lease = form.pick(1, 20), 1.0
    rng = form.rng
    async with server(form) as database:
        url = database.url(database.fresh())
        async with world(form, devices=200, policy={"lease": lease}, storage=url) as here:
            port = int(str(here.gateway.settings["gateway"]).rpartition(":")[2].strip("/"))
            async with hosts(form, [database.port, port]) as pair:
                workers = [here.work(network=host.name) for host in pair for _ in range(2)]
                for _ in range(pulls):
                    before = here.gateway.arrived
                    # Slow answers, so that both hosts have something in hand.
                    await here.gateway.faults(delay=0.5, delay_seconds=0.3)
                    await here.submit(6)
                    await here.pushed(before, *workers)
                    cut = pair[rng.randrange(2)]
                    await asyncio.to_thread(cut.plug, plugged=False)
                    pulled = time.monotonic()
                    here.edges.append(here.gateway.arrived)
                    await here.gateway.faults()
                    await here.submit(4)
                    # Its leases run out, and the other host alone finishes everything.
                    id = here.promised()[-1]
                    await until(lambda id=id: _done(here, id), 60, "the end of what the other host was left with")  # type: ignore[misc]
                    await moment(pulled + 2 * lease)
                    await asyncio.to_thread(cut.plug, plugged=True)
                failed = await quit_all(workers)
            await here.drain()
            audit = await here.audit()
    found = f"{words(audit)}, workers that failed {failed}"
    scale = f"a cable pulled {pulls} times, four workers on two hosts, {audit.deliveries:,} deliveries"
    return Finding(found, honest(audit) and failed == 0, scale)


async def _done(here: object, id: str) -> bool:
    status = await here.engine.status(id)  # type: ignore[attr-defined]
    return bool(status.state == "done")
