"""Rows 5, 6, 7, 34, 36, 37, 42, 53 and 54: workers that come back, stand still, are poisoned, told to end, cancelled
and starved."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from typing import Any

import apsw
import psutil

import fanout
from fanout.testing.simulator.ledger import Entry, read_ledger
from fanout_apns.simulator import ApnsSimulator
from tests.faults.endings import told_to_end
from tests.faults.nursery import Child
from tests.faults.rows.kills import honest, words
from tests.faults.table import Finding, measured
from tests.faults.world import Form, World, moment, until, world

__all__ = ["ROWS"]


@measured(5, "recovery time", "first send < 2 s, full rate < 10 s after a new start")
async def recovery(form: Form) -> Finding:
    """A worker is killed with a large queue; a new Python process takes over."""
    devices, broadcasts = form.pick(1_000, 100_000), form.pick(6, 10)
    async with world(form, {"apns": {"lean": True}}, policy={"lease": 2.0}) as here:
        await here.register(devices, users=1000)
        await here.submit(broadcasts)
        first = here.work()
        await until(lambda: here.gateway.arrived > devices // 2, 60, "half a broadcast")
        first.kill()
        await first.wait()
        await until(lambda: _still(here), what="a quiet gateway")
        here.edges.append(here.gateway.arrived)
        began = time.time()
        # A program of its own, with all its imports, as an operator would start it.
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fanout", "work", "--drain", "--config", str(here.config), stderr=asyncio.subprocess.DEVNULL
        )  # fmt: skip
        try:
            async with asyncio.timeout(form.pick(60, 600)):
                await worker.wait()
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
        after = [entry.at for entry in read_ledger(here.gateway.ledger)][here.edges[0] :]
        audit = await here.audit()
    slots = Counter(int((at - began) * 5) for at in after)
    rate = sorted(slots.values())[len(slots) // 2]
    full = next(slot for slot in sorted(slots) if slots[slot] >= 0.8 * rate) / 5
    found = f"first send {after[0] - began:.2f} s, full rate ({rate * 5:,}/s) {full:.1f} s, {words(audit)}"
    scale = f"{devices * broadcasts:,} deliveries queued, start of Python included"
    return Finding(found, audit.lost == audit.false == 0, scale, time=after[0] - began < 2 and full < 10)


async def _still(here: World) -> bool:
    before = here.gateway.arrived
    await asyncio.sleep(0.1)
    return here.gateway.arrived == before


@measured(6, "zombie worker", "all of its settlements are refused, no state changes")
async def zombie(form: Form) -> Finding:
    """A is stopped with a chunk in hand, and wakes up with its answers waiting in the socket: after B has finished, and
    while B is at it.

    Most of the chunk A has not sent yet: it may not send it then.
    """
    rounds = form.pick(1, 10)
    held = changed = late = wrong = stale = inconclusive = 0
    settings = {"connections": 1, "streams": 50}
    async with world(form, devices=200, policy={"lease": 0.5, "checkpoint": 0.02}, settings=settings) as here:
        gateway = here.gateway
        for number in range(2 * rounds):
            meanwhile = number % 2 == 1
            # In the second case B's answers must come well after A's, so that whose results are stored can be told.
            answer = 3.0 if meanwhile else 0.3
            await gateway.faults(delay=1.0, delay_seconds=answer)
            before = gateway.arrived
            (id,) = await here.submit(1)
            a = here.work()
            await here.pushed(before + 20, a)
            held += await _stopped(here, a)
            sent = time.monotonic()
            await moment(sent + 1.2 * meanwhile)
            arrived = gateway.arrived
            b = here.work()
            if meanwhile:
                await here.pushed(arrived, b)
                taken_over = time.monotonic()
                await moment(sent + answer + 0.2)
            else:
                await here.engine.wait(id, 60)
            rows = [row async for row in here.engine.deliveries(id)]
            last = [event.id async for event in here.engine.events()][-1:]
            arrived = gateway.arrived
            a.signal(signal.SIGCONT)
            # It reads the answers that wait in its socket, and tries to settle them before it ends.
            with suppress(TimeoutError):
                await until(lambda a=a: "was taken over" in a.said or a.ended, 0.3)
            a.signal(signal.SIGTERM)
            wrong += await a.wait() != 0
            stale += "was taken over" in a.said
            after = [row async for row in here.engine.deliveries(id)]
            if meanwhile and time.monotonic() > taken_over + answer - 0.1:
                inconclusive += 1
            else:
                changed += rows != after
                changed += bool([event async for event in here.engine.events(after=last[0] if last else 0)])
                late += gateway.arrived - arrived if not meanwhile else 0
            await gateway.faults()
            await here.engine.wait(id, 60)
            b.signal(signal.SIGTERM)
            wrong += await b.wait() != 0
            here.edges.append(gateway.arrived)
        audit = await here.audit()
    found = f"states and events changed {changed}, refused aloud {stale}, sent after waking {late}, {words(audit)}"
    good = changed == wrong == late == 0 and honest(audit) and inconclusive < 2 * rounds
    scale = (
        f"{2 * rounds} workers stopped past leases of 0.5 s, half of them woken while B was at it ({inconclusive} too late to tell); "
        f"{held} stops undone, for the worker held the database's lock"
    )
    return Finding(found, good, scale)


async def _stopped(here: World, worker: Child) -> int:
    """Stop it while it does not hold the database's write lock; how often it had to be let go again.

    SQLite has one lock for all writers, and a process that is stopped with it in hand stops every other: nobody can
    take it away.
    """
    tries = 0
    with closing(apsw.Connection(str(here.database))) as connection:
        while True:
            worker.signal(signal.SIGSTOP)
            # The signal has been sent, and the process runs on until each of its threads has noticed.
            await until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED, what="the worker's stop")
            try:
                connection.execute("BEGIN IMMEDIATE; ROLLBACK")
                return tries
            except apsw.BusyError:
                worker.signal(signal.SIGCONT)
                tries += 1
                await asyncio.sleep(0.003)


@measured(7, "lease extension", "an answer after 3 leases: 1 send, no second lease")
async def extension(form: Form) -> Finding:
    """Two workers; the gateway takes three times a lease to answer."""
    rounds, lease = form.pick(1, 5), 0.5
    async with world(form, devices=50, policy={"lease": lease}) as here:
        await here.gateway.faults(delay=1.0, delay_seconds=3 * lease)
        workers = [here.work(), here.work()]
        for _ in range(rounds):
            (id,) = await here.submit(1)
            await here.engine.wait(id, 60)
        for child in workers:
            child.signal(signal.SIGTERM)
            await child.wait()
        with closing(apsw.Connection(str(here.database))) as connection:
            epochs = connection.execute("SELECT max(epoch) FROM chunk").get
        audit = await here.audit()
    sends = here.gateway.arrived / audit.deliveries
    found = f"{sends:.2f} sends per delivery, most leases of a chunk {epochs}, lost {audit.lost}"
    good = here.gateway.arrived == audit.deliveries == 50 * rounds and epochs == 1 and honest(audit)
    return Finding(found, good, f"answers after {3 * lease:g} s, leases of {lease:g} s, {rounds} rounds")


@measured(34, "poison: a delivery that kills its worker", "quarantined after 3 crashes, the neighbours sent")
async def poisoned(form: Form) -> Finding:
    """One device's every attempt ends the process; a supervisor starts the worker again each time."""
    rounds = form.pick(1, 5)
    crashes = 0
    worst = 0
    dead: Counter[str] = Counter()
    sent_dead = 0
    async with world(form, devices=form.pick(12, 100), policy={"lease": 0.4}) as here:
        for n in range(rounds):
            address = ApnsSimulator.address(7 + n)
            ids = await here.submit(2)
            mine = 0
            while True:
                worker = here.work("--drain", poison=address)
                code = await worker.wait(60)
                here.edges.append(here.gateway.arrived)
                if code == 0:
                    break
                if code != -signal.SIGKILL:
                    raise RuntimeError(f"a worker ended with {code}: {worker.said[-1000:]}")
                mine += 1
                if mine > 60:
                    return Finding(f"the worker was killed {mine} times and the delivery is still tried", False)
            crashes += mine
            worst = max(worst, mine)
            for id in ids:
                async for _, state, reason in here.engine.deliveries(id, state="dead"):
                    dead[f"{state}: {reason}"] += 1
            # Another notification to the same device, once it no longer kills, arrives: the device is not blamed.
            await here.submit(1)
            await here.drain()
        audit = await here.audit()
    sent_dead = audit.states["dead"]
    others = audit.deliveries - 2 * rounds
    found = (
        f"dead {dict(dead)}, neighbours accepted {audit.states['accepted']} of {others}, crashes {crashes} "
        f"(most for a round of two notifications {worst}), lost {audit.lost}, false {audit.false}, duplicates {audit.duplicates}"
    )
    good = (
        sent_dead == 2 * rounds
        and audit.states["accepted"] == others
        and audit.lost == audit.false == 0
        and worst <= 24
    )
    return Finding(found, good, f"{rounds} poisonous devices among {form.pick(12, 100)}")


@measured(36, "idempotency", "one notification per key across kills; another body with the key is refused")
async def idempotency(form: Form) -> Finding:
    """50 concurrent sends of the same key from five drivers, of which two are killed; then another body."""
    keys = form.pick(2, 60)
    rng = form.rng
    refused = killed = 0
    async with world(form, devices=20, policy={"lease": 0.6}) as here:
        worker = here.work()
        for n in range(keys):
            batch = [["user:u1", {"title": f"goal {n}"}, f"key-{n}"] for _ in range(10)]
            points = [
                f"{name}:{rng.randint(1, 8)}" for name in ("put.after", "commit.before", "wal.sync", "put.before")
            ]
            drivers = [
                here.drive([batch], single=True, failpoint=rng.choice(points) if i < 2 else "") for i in range(5)
            ]
            killed += sum(code == -signal.SIGKILL for code in [await driver.wait() for driver in drivers])
            other = here.drive([[["user:u1", {"title": "another body"}, f"key-{n}"]]], single=True)
            refused += await other.wait() == 3 and "Conflict" in other.said
        worker.signal(signal.SIGTERM)
        await worker.wait()
        await here.drain()
        lines = {tuple(text.split(" ")) for text in here.log.read_text().splitlines()}
        per_key = Counter(key for _, key in lines)
        stored = [event async for event in here.engine.events() if event.kind == "notification.finished"]
        audit = await here.audit()
    found = (
        f"{len(stored)} notifications of {keys} keys, most ids per key {max(per_key.values())}, another body refused {refused} times, "
        f"lost {audit.lost}, false {audit.false}, duplicates {audit.duplicates}"
    )
    good = len(stored) == keys == refused and set(per_key.values()) == {1} and audit.lost == audit.false == 0
    return Finding(found, good and audit.duplicates == 0, f"{keys} keys, 50 sends each, {killed} drivers killed")


@measured(37, "cancellation race", "after `cancel` has returned nothing more goes out")
async def cancelled(form: Form) -> Finding:
    """Cancel from another process at every phase: before, in mid-flight, in back-off, scheduled, at the end."""
    count = form.pick(10, 1500)
    rng = form.rng
    late = disagree = 0
    phases: Counter[str] = Counter()
    async with world(form, devices=100, policy={"backoff_base": 0.02}) as here:
        worker, gateway = here.work(), here.gateway
        ends: dict[str, float] = {}
        await gateway.faults(delay=1.0, delay_seconds=0.01)
        for n in range(count):
            phase = ("at once", "in flight", "in back-off", "scheduled", "near the end")[n % 5]
            phases[phase] += 1
            if phase == "in back-off":
                await gateway.strain(share=0.8)
            at = time.time() + 0.03 if phase == "scheduled" else None
            everybody = fanout.Target.users(f"u{user}" for user in range(10))
            before = gateway.arrived  # read behind `send`, it may have them all
            receipt = await here.engine.send(fanout.Notification(title="x"), everybody, at=at)
            with here.log.open("a") as file:
                file.write(f"{receipt.id} \n")
            if phase != "at once":
                if phase != "scheduled":
                    await until(lambda before=before: gateway.arrived > before, what="something sent")
                await asyncio.sleep(rng.uniform(0, 0.05 if phase in ("near the end", "scheduled") else 0.01))
            status = await receipt.cancel()
            ends[receipt.id] = time.time()
            disagree += status.counts["pending"] > 0
            if phase == "in back-off":
                await gateway.strain(share=0.0)
        worker.signal(signal.SIGTERM)
        await worker.wait()
        for entry in read_ledger(gateway.ledger):
            late += entry.at > ends[entry.notification]
        arrived = Counter(entry.notification for entry in read_ledger(gateway.ledger))
        for id in ends:
            disagree += (await here.engine.status(id)).counts["accepted"] != arrived[id]
        audit = await here.audit()
    found = f"sent after `cancel` returned {late}, figures that disagree {disagree}, {dict(audit.states)}, lost {audit.lost}"
    return Finding(
        found, late == disagree == audit.lost == audit.false == 0, f"{count} cancellations of 100 deliveries each"
    )


@measured(42, "graceful stop and rolling restart under load", "0 duplicates, 0 lost, exit < 10 s")
async def rolling(form: Form) -> Finding:
    """Two workers under a steady load; one after the other is told to end, and replaced."""
    restarts = form.pick(3, 100)
    rng = form.rng
    longest, unclean = 0.0, 0
    async with world(form, devices=100) as here:
        await here.gateway.faults(delay=0.5, delay_seconds=0.05)
        over = False

        async def load() -> None:
            while not over:
                await here.submit(2)
                await asyncio.sleep(0.02)

        loading = asyncio.create_task(load())
        workers = [here.work(), here.work()]
        try:
            for n in range(restarts):
                before = here.gateway.arrived
                await until(lambda before=before: here.gateway.arrived > before + 100, what="something sent")
                await asyncio.sleep(rng.uniform(0, 0.1))
                began = time.monotonic()
                old, workers[n % 2] = workers[n % 2], here.work()
                unclean += sum(not ending.clean for ending in await told_to_end([old]))
                longest = max(longest, time.monotonic() - began)
        finally:
            over = True
            await loading
        unclean += sum(not ending.clean for ending in await told_to_end(workers))
        await here.drain()
        audit = await here.audit()
    found = f"lost {audit.lost}, false {audit.false}, duplicates {audit.duplicates}, longest end {longest:.2f} s, workers that failed {unclean}"
    counts = honest(audit) and audit.duplicates == unclean == 0
    return Finding(found, counts, f"{restarts} restarts, {audit.deliveries:,} deliveries", time=longest < 10)


@measured(53, "cancellation safety", "no delivery at another's device, no leaked stream")
async def cancelling(form: Form) -> Finding:
    """Sends over the real client are cancelled at random, one each millisecond; each push names its delivery, the
    ledger its device."""
    from fanout.core.delivery import Delivery
    from fanout.core.ids import DeliveryIds

    seconds, width = form.pick(1.0, 60.0), 300
    rng = form.rng
    outcomes: Counter[str] = Counter()
    async with world(form) as here:
        await here.gateway.faults(delay=0.7, delay_seconds=0.01)
        async with fanout.open(here.config) as engine:
            transport = engine.transports["default", "apns"]
            notification = fanout.Notification(
                title="x", id="01a1ffce-56f2-75b0-a3bd-f5f463147c8f", expires_at=time.time() + 3600
            )
            message = transport.prepare(notification)
            ids = DeliveryIds(notification.id)
            owners: dict[str, str] = {}

            async def one(number: int) -> None:
                address = transport.parse_address(ApnsSimulator.address(number))
                delivery = Delivery.of(address, id=ids(number), endpoint=number)
                owners[delivery.id] = address.digest
                outcomes[type(await transport.send(message, delivery)).__name__] += 1

            tasks: set[asyncio.Task[None]] = set()
            number = cancelled = 0
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                while len(tasks) < width:
                    number += 1
                    tasks.add(asyncio.create_task(one(number)))
                await asyncio.sleep(0.001)
                victim = rng.choice(tuple(tasks))
                cancelled += victim.cancel()
                tasks = {task for task in tasks if not task.done()}
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            raised = [end for end in ends if isinstance(end, Exception)]
            if raised:
                raise raised[0]
            await here.gateway.faults()
            capacity = transport.capacity("")
            last = [one(number + n + 1) for n in range(2 * capacity)]
            async with asyncio.timeout(120):
                await asyncio.gather(*last)
            streams = (await here.gateway.counters())["violations"]
        crossed = sum(owners[entry.delivery] != entry.address for entry in read_ledger(here.gateway.ledger))
    found = f"at another's device {crossed}, capacity at the end {capacity}, violations {len(streams)}, outcomes {dict(outcomes)}"
    good = crossed == 0 and capacity == 1000 and not streams and set(outcomes) == {"Accepted"}
    return Finding(found, good, f"{number:,} sends, {cancelled:,} cancelled in {seconds:g} s")


@measured(54, "file descriptors and memory exhausted", "degrades with refusals, nothing lost")
async def starved(form: Form) -> Finding:
    """Workers and drivers with few descriptors or little memory; then one with enough drains."""
    details = []
    async with world(form, devices=200, policy={"lease": 0.6}) as here:
        for limits in form.pick(
            [{"NOFILE": 64}, {"NOFILE": 16}], [{"NOFILE": n} for n in (64, 20, 18, 16, 14, 12, 11, 10, 9, 8, 7)]
        ) + form.pick([], [{"AS": megabytes * 2**20} for megabytes in (600, 400, 300, 250)]):
            await here.submit(10)
            worker = here.work("--drain", limits=limits)
            try:
                code = str(await worker.wait(form.pick(3, 15)))
            except TimeoutError:
                worker.signal(signal.SIGTERM)
                try:
                    code = f"told to end: {await worker.wait(15)}"
                except TimeoutError:
                    worker.kill()
                    code = f"killed: {await worker.wait()}"
            here.edges.append(here.gateway.arrived)
            ((name, value),) = limits.items()
            details.append(f"{name} {value if value < 10**6 else f'{value >> 20} MB'}: {code}")
        await here.drain()
        audit = await here.audit()
    good = honest(audit)
    return Finding(
        f"{words(audit)}; exits: {', '.join(details)}", good, f"{len(details)} limits, {audit.deliveries:,} deliveries"
    )


def entries(here: World) -> list[Entry]:
    """The ledger of the first gateway."""
    return list(read_ledger(here.gateway.ledger))


def memory(pid: int) -> float:
    """Megabytes that a process holds."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


ROWS: list[Any] = [recovery, zombie, extension, poisoned, idempotency, cancelled, rolling, cancelling, starved]
