"""`fanout demo`: a broadcast to thousands of simulated devices of every kind, from nothing, with commands to try
next."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer

from fanout import bootstrap
from fanout.cli.demo_browser import browser_demo
from fanout.cli.demo_folder import clear, write_config
from fanout.cli.demo_page import key_table, opened_page
from fanout.cli.gateways import Gateway, Simulated, simulated_transports
from fanout.cli.progress import Meter
from fanout.cli.shell import quoted, run, this_program
from fanout.core.endpoint import Registration
from fanout.core.model import Notification
from fanout.core.records import Status
from fanout.core.states import FINAL_STATES
from fanout.engine import Engine, LiveEvent, Receipt
from fanout.errors import UsageError
from fanout.registry import Registry
from fanout.service.auth import new_user_key

__all__ = ["demo"]

_ODD = ("dead", "throttled", "slow")
_ODD_EVERY = 250
"""One device in so many is dead, throttled or slow."""
_POLICY = {"backoff_base": 0.2, "backoff_throttled": 0.5, "backoff_cap": 5.0}
_BATCH = 1000


def demo(
    context: typer.Context,
    devices: Annotated[int, typer.Option("--devices", metavar="N", help="How many devices.", min=1)] = 20_000,
    users: Annotated[int, typer.Option("--users", metavar="N", help="How many users have them.", min=1)] = 8_000,
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="Where the database and the configuration are left.")
    ] = Path("fanout-demo"),
    browser: Annotated[
        bool,
        typer.Option(
            "--browser", help="Nothing simulated: a page on loopback from which your own browser gets a real push."
        ),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="Where that page is served; 0 is a free port.", min=0, max=65_535)
    ] = 0,
) -> None:
    """Try it without an account: every gateway simulated and a broadcast to all, or with --browser a real push."""
    for name, wrong in (("devices", browser), ("users", browser), ("port", not browser)):
        source = context.get_parameter_source(name)
        if wrong and source is not None and source.name == "COMMANDLINE":
            raise UsageError(f"--{name} has no meaning {'with' if browser else 'without'} --browser: take it out.")
    if browser:
        run(lambda: browser_demo(folder.absolute(), port), graceful=True)
    run(lambda: _demo(devices, min(users, devices), folder.absolute()))


async def _demo(devices: int, users: int, folder: Path) -> int:
    registry = Registry()
    transports = simulated_transports(registry)
    clear(folder)
    alice = _user(_alice(users), users)
    async with AsyncExitStack() as stack:
        gateways: dict[str, Gateway] = {}
        for transport in transports:
            gateway = await stack.enter_async_context(Gateway(transport.name, folder / "gateways" / transport.name))
            gateways[transport.name] = gateway
            typer.echo(f"A simulated {transport.name} gateway listens at {gateway.url}.")
        settings = {name: gateway.settings for name, gateway in gateways.items()}
        key = new_user_key()
        config = write_config(folder, settings, _POLICY, key_table(key))
        made = bootstrap.prepare(bootstrap.make_settings(config, registry=registry), registry)
        engine = await stack.enter_async_context(made.engine())
        page = await stack.enter_async_context(opened_page(made, engine, alice, key))
        send = engine.send if page is None else page.post

        await _register(engine, transports, devices, users)
        hello = Notification(title="Hello", body="This one is for you alone.")
        receipt = await send(hello, f"user:{alice}")
        status = await receipt.wait()
        typer.echo(
            f"To {alice}: {_counts(status)} of {status.total} devices; {await _takers(engine, receipt.id, alice)}."
        )

        everyone = Notification(title="Hello, everyone", body="A broadcast to every device.", lane="bulk")
        total = (await engine.preview(everyone, "all")).total
        broadcast, rate = await _broadcast(engine, send(everyone, "all"), total)
        _summary(broadcast, rate, engine.reads.location)
        if page is not None and not sys.stdout.isatty():
            page.tell(config)
        _try_next(broadcast.id, alice, config)
        if page is not None and sys.stdout.isatty():
            await page.serve(engine)
    return 0


async def _register(engine: Engine, transports: Sequence[Simulated], devices: int, users: int) -> None:
    begun = time.monotonic()
    batch: list[Registration] = []
    with Meter("registering", total=devices) as meter:
        for number, registration in enumerate(_devices(engine, transports, devices, users), start=1):
            batch.append(registration)
            if len(batch) == _BATCH or number == devices:
                await engine.endpoints.register_many(batch)
                batch.clear()
                meter.show(f"{number:,} devices", done=number)
    seconds = time.monotonic() - begun
    kinds = Counter(_transport(number, transports, users).name for number in range(devices))
    odd = sum(
        _behaviour(number, _transport(number, transports, users), transports) != "good" for number in range(devices)
    )
    typer.echo(
        f"{devices:,} devices of {users:,} users are registered ({_each(kinds)}), in {seconds:.1f} s; "
        f"{odd:,} of them are {_listed(_ODD)}."
    )


def _devices(engine: Engine, transports: Sequence[Simulated], devices: int, users: int) -> Iterator[Registration]:
    for number in range(devices):
        transport = _transport(number, transports, users)
        yield engine.endpoints.registration(
            user=_user(_owner(number, transports, users), users),
            binding=transport.name,
            address=transport.address(number, _behaviour(number, transport, transports)),
            platform=transport.name,
            tags=["demo"],
        )


def _alice(users: int) -> int:
    """The user whose devices are shown."""
    return min(42, users - 1)


def _owner(number: int, transports: Sequence[Simulated], users: int) -> int:
    """The first devices, one of each kind, are those of the user who is shown; the others are divided equally between
    all users."""
    return _alice(users) if number < len(transports) else number % users


def _transport(number: int, transports: Sequence[Simulated], users: int) -> Simulated:
    """One user's devices are of different kinds."""
    return transports[(number + number // users) % len(transports)] if number >= len(transports) else transports[number]


def _behaviour(number: int, transport: Simulated, transports: Sequence[Simulated]) -> str:
    odd = [word for word in _ODD if word in transport.behaviours]
    if number < len(transports) or number % _ODD_EVERY or not odd:
        return "good"
    return odd[number // _ODD_EVERY % len(odd)]


async def _takers(engine: Engine, id: str, user: str) -> str:
    """Which gateway took how many."""
    bindings = {endpoint.id: endpoint.binding async for endpoint in engine.endpoints.list(user=user, state=None)}
    took = Counter([bindings[one] async for one, state, _ in engine.deliveries(id) if state == "accepted"])
    return f"taken by {_each(took)}" if took else "no gateway took any"


async def _broadcast(engine: Engine, sending: Awaitable[Receipt], total: int) -> tuple[Status, float]:
    """Send, and show rate, outcomes and remaining time until the last of `total` deliveries has ended.

    The final status, and the rate (deliveries per second) up to 99 %, before those that wait for slow and throttled
    devices.
    """
    most = 0.0
    counts: Counter[str] = Counter()
    receipt = await sending
    with Meter("broadcast", total=total, every=0.5) as meter:
        begun = time.monotonic()

        def show() -> None:
            nonlocal most
            done = sum(counts.values())
            rate = done / max(time.monotonic() - begun, 0.001)
            if not most and done >= 0.99 * total:
                most = rate
            eta = f", {(total - done) / rate:.0f} s left" if done and not sys.stderr.isatty() else ""
            listed = ", ".join(f"{state} {counts[state]:,}" for state in FINAL_STATES if counts[state])
            meter.show(f"{rate:,.0f}/s  {listed or 'starting'}{eta}", done=done)

        async def watch() -> None:
            async for event in engine.live():
                if _concerns(event, receipt.id):
                    counts.update(event.data["counts"])
                    show()

        watching = asyncio.ensure_future(watch())
        try:
            status = await receipt.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        counts.clear()
        counts.update({state: status.counts.get(state, 0) for state in FINAL_STATES})
        show()
    return status, most


def _concerns(event: LiveEvent, notification: str) -> bool:
    return event.kind == "settled" and event.data.get("notification") == notification


def _summary(status: Status, rate: float, location: str) -> None:
    seconds = (status.finished_at or status.accepted_at) - status.accepted_at
    typer.echo(
        f"\nThe broadcast: {status.total or 0:,} deliveries in {seconds:.1f} s, from accepted to the last one settled."
    )
    for state in FINAL_STATES:
        if count := status.counts.get(state, 0):
            reasons = ", ".join(f"{reason} {n:,}" for reason, n in status.reasons.get(state, {}).items() if reason)
            typer.echo(f"  {state:<10} {count:>9,}" + (f"  ({reasons})" if reasons else ""))
    typer.echo(
        f"  {(status.total or 0) / max(seconds, 0.001):,.0f} deliveries/s, each stored durably "
        f"({rate:,.0f}/s for the first 99 %, before the wait for slow and throttled devices)"
    )
    typer.echo(f"  the database is {location}")


def _try_next(broadcast: str, alice: str, config: Path) -> None:
    program, flags = this_program(), ["--config", str(config)]
    typer.echo("\nTry next:")
    for words in (
        ["status", broadcast],
        ["endpoints", "list", "--user", alice],
        ["send", "--to", "topic:demo", "--title", "Hello again", "--dry-run"],
    ):
        typer.echo(f"  {quoted([*program, *words, *flags])}")


def _counts(status: Status) -> str:
    return ", ".join(f"{status.counts[state]:,} {state}" for state in FINAL_STATES if status.counts.get(state))


def _each(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


def _user(number: int, users: int) -> str:
    return f"user-{number:0{len(str(users - 1))}}"


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
