"""Rows 40 and 41: fairness between tenants, and many hosts."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import fanout
from fanout.core.policy import Policy
from fanout.engine import Engine, EngineOptions
from fanout.plugin import ACCEPTED, StorageContext
from fanout.registry import Registry
from fanout.testing.scripted import ScriptedTransport
from fanout.testing.simulator.ledger import read_ledger
from fanout_apns.simulator import ApnsSimulator
from tests.faults.rows.measures import SystemClock, percentile
from tests.faults.table import Finding, measured
from tests.faults.world import Form, until, world


@measured(40, "fairness between apps", "quiet apps' p99 <= 2 times their p99 alone")
async def fairness(form: Form) -> Finding:
    """App A broadcasts; the others send one push a second each, to the same gateway, from the same worker."""
    apps, devices, seconds = form.pick(9, 99), form.pick(6_000, 300_000), form.pick(0.8, 12.0)
    names = [f"q{n}/apns" for n in range(apps)]
    async with world(form, {"apns": {"lean": True}}) as here:
        gateway = here.gateway
        # All apps talk to the one gateway; each has connections and gates of its own.
        here.gateways = {"apns": gateway} | dict.fromkeys(names, gateway)
        here.write()
        async with fanout.open(here.config, role="submit") as engine:
            for n in range(apps):
                await engine.endpoints.register(user="u", binding="apns", address=ApnsSimulator.address(n), app=f"q{n}")
            await here.register(devices, users=100)
            worker = here.work()

            async def quiet() -> list[float]:
                sent: dict[str, float] = {}
                end = time.monotonic() + seconds
                n = 0
                while time.monotonic() < end:
                    began = time.time()
                    receipt = await engine.send(fanout.Notification(title="q"), "user:u", app=f"q{n % apps}")
                    sent[receipt.id] = began
                    n += 1
                    await asyncio.sleep(1 / apps)
                for id in sent:
                    await engine.wait(id, 60)
                at = {entry.notification: entry.at for entry in read_ledger(gateway.ledger)}
                return [at[id] - began for id, began in sent.items()]

            await quiet()  # connections are made
            alone = await quiet()
            before = gateway.arrived
            ids = await here.submit(form.pick(2, 4))
            beside = await quiet()
            served = gateway.arrived - before
            del ids
        worker.kill()
        await worker.wait()
        here.gateways = {"apns": gateway}
    first, second = percentile(alone, 0.99), percentile(beside, 0.99)
    found = f"quiet p50 {percentile(alone, 0.5) * 1000:.0f} -> {percentile(beside, 0.5) * 1000:.0f} ms, p99 {first * 1000:.0f} -> {second * 1000:.0f} ms"
    # A worker looks at what others committed every 50 ms, 100 under load; that is not the neighbour's doing.
    in_time = second <= max(2 * first, 2 * 0.11)
    scale = f"{apps} quiet apps, {served:,} deliveries of A meanwhile"
    return Finding(found, len(alone) > 0 and len(beside) > 0 and served > 0, scale, time=in_time)


@measured(41, "many hosts, 5 % of them dead", "connections bounded; dead hosts cost < 5 % of the throughput")
async def hosts(form: Form) -> Finding:
    """10,000 Web Push hosts in the engine, 500 of which never answer; and real connections to 150 through the
    transport."""
    count = form.pick(200, 10_000)
    rates: dict[bool, float] = {}
    form.folder.mkdir(exist_ok=True)
    held = asyncio.Event()
    for dead in (False, True):

        async def answer(message: Any, delivery: Any, dead: bool = dead) -> Any:
            if dead and delivery.endpoint % 20 == 0:
                await held.wait()
            await asyncio.sleep(0)
            return ACCEPTED

        clock = SystemClock()
        engine = Engine(
            Registry().make_storage(f"sqlite:{form.folder}/{dead}.db", StorageContext(clock=clock)),
            {("default", "push"): ScriptedTransport(answer, capacity=10, record=False)},
            EngineOptions(clock=clock, rng=form.rng, policy=Policy(request_timeout=600.0), drain_timeout=0.1),
        )
        async with engine:
            for begin in range(0, count, 1000):
                for n in range(begin, min(begin + 1000, count)):
                    await engine.endpoints.register(user="u", binding="push", address=f"host{n}.example.com/d{n}")
            living = count - count // 20 if dead else count
            began = time.monotonic()
            receipts = await engine.send_many([(fanout.Notification(title="x"), "all") for _ in range(form.pick(4, 3))])
            wanted = living * len(receipts)

            async def enough(engine: Engine = engine, receipts: Any = receipts, wanted: int = wanted) -> bool:
                done = 0
                for receipt in receipts:
                    done += (await engine.status(receipt.id)).counts["accepted"]
                return done >= wanted

            await until(enough, 120, "the living hosts' deliveries")
            rates[dead] = wanted / (time.monotonic() - began)
    held.set()
    cost = 1 - rates[True] / rates[False]
    connections, accepted, total = await _real_hosts(form)
    found = (
        f"{rates[False]:,.0f}/s all alive, {rates[True]:,.0f}/s with the dead ones: {cost:+.1%}; "
        f"over real connections: most open {connections} of 64 allowed, accepted {accepted} of {total}"
    )
    return Finding(found, connections <= 2 * 64 and accepted == total, f"{count:,} hosts", time=cost < 0.05)


async def _real_hosts(form: Form) -> tuple[int, int, int]:
    """The most connections that a gateway saw at once, and how many pushes it took, of how many."""
    many = form.pick(70, 400)
    gateways = {"webpush": {"lean": True}}
    settings = {"allow_private": True, "allowed_hosts": ["push.services.mozilla.com"], "max_hosts": 64}
    async with world(form, gateways, settings=settings) as here:
        import base64

        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        for n in range(many):
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
            point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
            await here.engine.endpoints.register(
                user="u",
                binding="webpush",
                address={
                    "endpoint": f"https://h{n}.push.services.mozilla.com/wpush/v2/good-{n}",
                    "keys": {
                        "p256dh": base64.urlsafe_b64encode(point).rstrip(b"=").decode(),
                        "auth": secrets.token_urlsafe(16),
                    },
                },
            )
        worker = here.work()
        (id,) = await here.submit(1, "user:u")
        most = 0
        waiting = asyncio.create_task(here.engine.wait(id, 90))
        while not waiting.done():
            most = max(most, (await here.gateway.counters())["open_connections"])
            await asyncio.sleep(0.01)
        status = await waiting
        worker.kill()
        await worker.wait()
    return most, status.counts["accepted"], many


ROWS: list[Any] = [fairness, hosts]
