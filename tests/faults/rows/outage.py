"""Rows 14, 15, 16 and 21: a gateway at a tenth of its capacity, one that is gone, one that fails at random, one that
slows down."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import Any

import apsw

import fanout
from fanout.core.policy import Policy
from fanout_apns.simulator import ApnsSimulator
from tests.faults.rows.measures import percentile
from tests.faults.table import Finding, measured
from tests.faults.world import Form, World, until, world

__all__ = ["ROWS"]


async def _idle(here: World) -> bool:
    return not await here.engine.storage.outstanding()


class Load:
    """A steady load: one notification to all devices each `pause` seconds, until it is told to end."""

    def __init__(self, here: World, pause: float) -> None:
        self._here = here
        self._pause = pause
        self._over = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        due = time.monotonic()
        while not self._over:
            await self._here.submit(1)
            due += self._pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def end(self) -> None:
        """No more of it."""
        self._over = True
        await self._task


def between(timeline: dict[int, int], start: float, end: float) -> int:
    """How many of a gateway's timeline fall into these UNIX seconds."""
    return sum(count for slot, count in timeline.items() if start <= slot / 10 < end)


@measured(
    14,
    "brown-out to 10 % of the capacity",
    "attempts offered <= 1.2 times the capacity; goodput >= 95 % within 30 s after",
)
async def brownout(form: Form) -> Finding:
    """A gateway of so many a second, with answers after 50 ms, is offered 60 % of that; then it takes a tenth, and 503
    is the rest."""
    capacity, settle, seconds = form.pick(600, 1500), form.pick(1.0, 5.0), form.pick(2.5, 30.0)
    async with world(
        form, devices=50, policy={"backoff_base": form.pick(0.3, 1.0), "backoff_cap": form.pick(3.0, 30.0)}
    ) as here:
        await here.gateway.faults(delay=1.0, delay_seconds=0.05)
        await here.gateway.strain(capacity=capacity)
        worker = here.work()
        load = Load(here, 50 / (0.6 * capacity))
        await asyncio.sleep(settle + 1.0)
        start = time.time()
        served = await here.gateway.timeline("served")
        usual = between(served, start - settle * 0.6, start) / (settle * 0.6)
        before = (await here.gateway.counters())["rejected"].get("ServiceUnavailable", 0)
        await here.gateway.strain(capacity=capacity / 10)
        await asyncio.sleep(seconds)
        refused = (await here.gateway.counters())["rejected"].get("ServiceUnavailable", 0) - before
        end = time.time()
        await here.gateway.strain(capacity=capacity)

        async def well() -> bool:
            served = await here.gateway.timeline("served")
            now = time.time()
            return between(served, now - 1.2, now - 0.2) >= 0.95 * usual

        try:
            await until(well, 60, "the goodput of before")
            back = time.time() - end
        except TimeoutError:
            back = 60.0
        await load.end()
        offered = await here.gateway.timeline("offered")
        # The first second is how long it takes to notice.
        notice = min(1.0, seconds / 4)
        rate = between(offered, start + notice, end) / (end - start - notice)
        burst = between(offered, start, start + notice)
        await until(lambda: _idle(here), 180, "the end of the backlog")
        worker.kill()
        await worker.wait()
        audit = await here.audit()
    ratio = rate / (capacity / 10)
    found = (
        f"offered {ratio:.2f} times the capacity ({burst} in the first {notice:g} s), goodput back after {back:.1f} s, "
        f"refused {refused}, lost {audit.lost}, false {audit.false}, duplicates {audit.duplicates}"
    )
    counts = refused > 0 and audit.lost == audit.false == 0
    scale = f"{capacity}/s down to {capacity // 10}/s for {seconds:g} s"
    return Finding(found, counts, scale, time=ratio <= 1.2 and back <= 30)


@measured(
    15,
    "full outage: every connect refused",
    "<= 2 connects a second and host, asked within 1.5 s of its return, no attempt burnt, no second overload",
)
async def outage(form: Form) -> Finding:
    """The gateway's process is gone; who knocks is counted; then it is back, with room for a part of what waits."""
    base, seconds, capacity = form.pick(0.2, 1.0), form.pick(2.0, 60.0), form.pick(800, 1500)
    # The limiter needs some windows of 50 ms to find the gateway's pace: what is refused meanwhile must be a small part
    # of it all.
    count = form.pick(12, 60)
    policy = {"backoff_base": base, "backoff_cap": form.pick(1.0, 10.0)}
    knocks: list[float] = []
    async with world(form, devices=200, policy=policy) as here:
        await here.gateway.faults(delay=1.0, delay_seconds=0.02)
        worker = here.work()
        for id in await here.submit(2):
            await here.engine.wait(id, 30)
        before = here.gateway.arrived
        await here.gateway.stop()

        def knocked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            knocks.append(time.monotonic())
            writer.transport.abort()

        server = await asyncio.start_server(knocked, "127.0.0.1", here.gateway.port)
        began = time.monotonic()
        ids = await here.submit(count)
        await asyncio.sleep(seconds)
        lasted = time.monotonic() - began
        with closing(apsw.Connection(str(here.database))) as connection:
            burnt = connection.execute(
                "SELECT (SELECT count(*) FROM retry) + (SELECT count(*) FROM chunk WHERE attempt > 1)"
            ).get
        server.close()
        await server.wait_closed()
        # It is back, and cannot serve anybody yet: what knocks now are requests, and few may.
        await here.gateway.start()
        await here.gateway.strain(share=1.0)
        began = time.monotonic()

        async def asked() -> bool:
            return bool((await here.gateway.counters())["requests"])

        await until(asked, 60, "a probe of the gateway that is back")
        found_again = time.monotonic() - began
        await asyncio.sleep(seconds)
        probed = (await here.gateway.counters())["requests"]
        probing = time.monotonic() - began
        await here.gateway.faults(delay=1.0, delay_seconds=0.02)
        await here.gateway.strain(share=0.0, capacity=capacity)
        back = time.monotonic()
        await until(lambda: here.gateway.arrived > before, 60, "the first push after the outage")
        first = time.monotonic() - back
        for id in ids:
            await here.engine.wait(id, 300)
        counters = await here.gateway.counters()
        worker.kill()
        await worker.wait()
        audit = await here.audit()
    refused = sum(counters["rejected"].values()) - probed
    probes = len(knocks) / (lasted / base)
    total = 200 * count
    found = (
        f"{len(knocks)} connects in {lasted:.0f} s, asked {found_again:.2f} s after its return, "
        f"{probed} probes in {probing:.0f} s of 503, attempts burnt {burnt}, first push {first:.1f} s after, "
        f"refused for overload {refused} of {total:,}, lost {audit.lost}, false {audit.false}, duplicates {audit.duplicates}"
    )
    # A gate that no connection came about for is probed at an even pace, and the pool connects for that; a few come in
    # the first second.
    good = (
        len(knocks) <= 2 * lasted / base + 3
        and 0 < probed <= 2 * probing / base + 10
        and burnt == 0
        and refused <= form.pick(0.5, 0.1) * total
        and audit.lost == audit.false == 0
    )
    return Finding(
        found,
        good and audit.duplicates == 0,
        f"{seconds:g} s (of 10 min) with a first pause of {base:g} s, {probes:.2f} probes for each of them",
        time=found_again <= 1.5,
    )


@measured(
    16,
    "retry amplification",
    "attempts / deliveries <= 1 + budget while half fails; then the rest within a minute or two",
)
async def amplification(form: Form) -> Finding:
    """Half of all requests are answered 503 at random, with the default budget; then the gateway is well again."""
    devices, seconds = form.pick(1_000, 20_000), form.pick(2.5, 20.0)
    defaults = Policy(retry_floor=form.pick(10.0, 1.0))
    policy = {"backoff_base": form.pick(0.3, 1.0), "backoff_cap": 10.0, "retry_floor": defaults.retry_floor}
    async with world(form, policy=policy) as here:
        await here.register(devices, users=1)
        await here.gateway.strain(share=0.5)
        worker = here.work()
        began = time.monotonic()
        (id,) = await here.submit(1)
        status = await here.engine.status(id)
        while time.monotonic() - began < seconds:
            status = await here.engine.status(id)
            await asyncio.sleep(0.05)
        counters = await here.gateway.counters()
        lasted = time.monotonic() - began
        offered, accepted = counters["requests"], status.counts["accepted"]
        waits = dict(status.pending_by_reason)
        allowed = devices + defaults.retry_ratio * accepted + defaults.retry_burst + defaults.retry_floor * lasted
        await here.gateway.strain(share=0.0)
        back = time.monotonic()
        status = await here.engine.wait(id, form.pick(120, 240))
        drained = time.monotonic() - back
        worker.kill()
        await worker.wait()
        audit = await here.audit()
    found = (
        f"{offered / devices:.2f} attempts per delivery (allowed {allowed / devices:.2f}), waiting then {waits}, "
        f"rest done {drained:.0f} s after, lost {audit.lost}, dead {audit.states['dead']}"
    )
    # Without a success in a window of 24 attempts a share of a half may look like less than a tenth for a moment.
    counts = offered <= 1.05 * allowed and audit.states["accepted"] == audit.deliveries
    counts = counts and audit.lost == audit.false == 0
    return Finding(found, counts, f"{devices:,} deliveries", time=drained <= form.pick(90, 150))


@measured(21, "slow gateway: 10 ms to 5 s in one step", "its limit falls; other hosts' p99 unchanged (<= 10 %)")
async def slow(form: Form) -> Finding:
    """Two gateways under one worker; one of them becomes slow.

    Under way is what the gateway has been asked and has not answered. It is judged once it has stayed below a half of
    what the limit was for twice the new delay, however long the worker took to get there.
    """
    seconds, late = form.pick(1.2, 15.0), form.pick(0.8, 5.0)
    gateways = {"apns": {}, "other": {"transport": "apns"}}
    async with world(form, gateways, devices=100) as here:
        for n in range(100):
            await here.engine.endpoints.register(user="o", binding="other", address=ApnsSimulator.address(n))
        a, b = here.gateways["apns"], here.gateways["other"]
        for gateway in (a, b):
            await gateway.faults(delay=1.0, delay_seconds=0.01, decide_late=True)
        worker = here.work()

        async def ping(pause: asyncio.Task[Any]) -> list[float]:
            waits = []
            while not pause.done():
                receipt = await here.engine.send(fanout.Notification(title="b"), "user:o")
                status = await receipt.wait(60)
                waits.append((status.finished_at or 0.0) - status.accepted_at)
            return waits

        async def load() -> None:
            while not over:
                receipts = await here.engine.send_many([(fanout.Notification(title="a"), "user:u1") for _ in range(20)])
                await asyncio.sleep(0.05)
                del receipts

        async def fallen() -> tuple[int, int, float]:
            """(the most under way, the most in the end, seconds); the two are equal if it never fell."""
            began = low = time.monotonic()
            most = lately = 0
            while (now := time.monotonic()) - low < 2 * late:
                counters = await a.counters()
                under_way = counters["requests"] - counters["accepted"]
                most, lately = max(most, under_way), max(lately, under_way)
                if under_way >= 500:
                    if now - began > 60:
                        return most, most, now - began
                    low, lately = now, 0
                await asyncio.sleep(0.02)
            return most, lately, now - began

        await ping(asyncio.create_task(asyncio.sleep(0.5)))
        over = False
        loading = asyncio.create_task(load())
        before = await ping(asyncio.create_task(asyncio.sleep(seconds)))
        await a.faults(delay=1.0, delay_seconds=late, decide_late=True)
        falling = asyncio.create_task(fallen())
        during = await ping(falling)
        most, in_the_end, lasted = await falling
        over = True
        await loading
        counters = await a.counters()
        await a.faults()
        await until(lambda: _idle(here), 120, "the end of the backlog")
        worker.kill()
        await worker.wait()
    p_before, p_during = percentile(before, 0.99), percentile(during, 0.99)
    found = (
        f"slow one: {most} under way, {in_the_end} at most in the last {2 * late:g} s, "
        f"the other's p99 {p_before * 1000:.0f} -> {p_during * 1000:.0f} ms"
    )
    in_time = p_during <= max(1.1 * p_before, p_before + 0.05)
    scale = f"10 ms to {late:g} s for {lasted:.1f} s, {counters['accepted']:,} pushes"
    return Finding(found, 0 < in_the_end < 500, scale, time=in_time)


ROWS = [brownout, outage, amplification, slow]
