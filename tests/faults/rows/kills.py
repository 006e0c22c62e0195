"""Rows 1, 2 and 3: `kill -9` at random, at every named failpoint, and again while what the first one left is being
recovered."""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import apsw

from fanout_kit.faulty.audit import Audit
from tests.faults.table import Finding, measured
from tests.faults.world import Form, World, until, world

__all__ = ["ROWS"]

IN_FLIGHT = 1000
"""Two connections of 500 streams: the APNs binding's defaults."""
CHECKPOINT = 0.05
_LATE = {"delay": 0.5, "delay_seconds": 0.4, "decide_late": True}
"""Half of the answers come 0.4 s late, and only then is the push in the ledger: what a worker has booked accepted
before its answer is found out by a kill in between."""
_HONEST = "0 lost, 0 falsely accepted, duplicates <= in flight + rate x checkpoint per killed worker"


def plan(rng: random.Random, count: int, key: str = "") -> list[list[Any]]:
    """A round: half to everybody, half to one user."""
    return [
        [
            "all" if n % 2 else f"user:u{rng.randrange(10)}",
            {"title": f"n{n}", "lane": rng.choice(("urgent", "normal", "bulk"))},
            f"{key}-{n}" if key else None,
        ]
        for n in range(count)
    ]


def honest(audit: Audit) -> bool:
    """Whether the auditor has nothing to say."""
    return (
        audit.lost == 0
        and audit.false == 0
        and audit.unasked == 0
        and audit.deliveries > 0
        and audit.worst <= audit.bound(IN_FLIGHT, CHECKPOINT)
    )


def words(audit: Audit) -> str:
    """The figures of an audit."""
    bound = audit.bound(IN_FLIGHT, CHECKPOINT)
    return f"lost {audit.lost}, false {audit.false}, duplicates {audit.duplicates:,}, worst kill {audit.worst:,} <= {bound:,.0f}"


@measured(1, "kill -9 at random times", _HONEST)
async def random_kills(form: Form) -> Finding:
    """Workers at moments from 0 to 2 s after their start, and every third driver too."""
    kills, count, longest = form.pick(3, 200), form.pick(20, 80), form.pick(0.6, 2.0)
    rng = form.rng
    drivers = 0
    async with world(form, devices=50, policy={"lease": 0.6}) as here:
        await here.gateway.faults(**_LATE)
        for cycle in range(kills):
            rounds = [plan(rng, count // 4) for _ in range(4)]
            settled = _settled(here)
            driver = here.drive(rounds)
            worker = here.work()
            if cycle % 3 == 2:
                await asyncio.sleep(rng.uniform(0.05, 0.3))
                drivers += not driver.ended
                driver.kill()
            before = here.gateway.arrived
            await here.pushed(before, worker, driver)
            if cycle % 3:
                await asyncio.sleep(rng.uniform(0.0, longest) ** 2 / longest)
            else:
                # At the moment of the first results: half of what is under way then has no answer yet.
                await until(lambda: _settled(here) > settled + 20 or worker.ended, what="results")  # noqa: B023
            worker.kill()
            await asyncio.gather(worker.wait(), driver.wait())
            here.edges.append(here.gateway.arrived)
        await here.gateway.faults()
        await here.drain()
        audit = await here.audit(unknown=True)
    scale = f"{kills} workers and {drivers} drivers killed, {audit.deliveries:,} deliveries"
    return Finding(words(audit), honest(audit), scale)


def _settled(here: World) -> int:
    """Results that are stored."""
    with closing(apsw.Connection(str(here.database))) as connection:
        return int(connection.execute("SELECT coalesce(sum(settled), 0) FROM notification").get)


@dataclass(frozen=True, slots=True)
class Scene:
    """How a failpoint is brought about: whose it is, how late it may come, and what the gateway does meanwhile."""

    hits: int
    who: str = "worker"
    faults: tuple[tuple[str, Any], ...] = ()
    checkpoint: int = 0
    terminated: bool = False


_SLOW = (("delay", 1.0), ("delay_seconds", 0.5))
_BAD = (("errors", {"ServiceUnavailable": 0.2}),)
SCENES: dict[str, Scene] = {
    "put.before": Scene(4, "driver"),
    "put.inside": Scene(4, "driver"),
    "put.after": Scene(4, "driver"),
    "driver commit.before": Scene(4, "driver"),
    "driver wal.write": Scene(60, "driver"),
    "driver wal.sync": Scene(4, "driver"),
    "driver wal.synced": Scene(4, "driver"),
    "expand.inside": Scene(3),
    "expand.after": Scene(3),
    "lease.inside": Scene(3),
    "lease.after": Scene(3),
    "send.before": Scene(300),
    "send.unanswered": Scene(300),
    "send.after": Scene(300),
    "settle.before": Scene(3),
    "settle.inside": Scene(3),
    "settle.after": Scene(3),
    "retry.inside": Scene(2, faults=_BAD),
    "extend.before": Scene(2, faults=_SLOW),
    "extend.inside": Scene(2, faults=_SLOW),
    "extend.after": Scene(2, faults=_SLOW),
    "commit.before": Scene(6),
    "wal.write": Scene(80),
    "wal.sync": Scene(6),
    "wal.synced": Scene(6),
    "checkpoint.write": Scene(20, checkpoint=20),
    "checkpoint.sync": Scene(2, checkpoint=20),
    "shutdown.before": Scene(1, terminated=True, faults=_SLOW),
    "shutdown.after": Scene(1, terminated=True, faults=_SLOW),
}
"""Every failpoint on the path; those of the migration are row 43's."""


@measured(2, "kill -9 at every failpoint", _HONEST)
async def failpoints(form: Form) -> Finding:
    """Each name of `fanout_kit.faulty`, at a hit drawn anew each time."""
    each = form.pick(1, 30)
    rng = form.rng
    audits: dict[str, tuple[int, Audit]] = {}
    if form.long:
        for name, scene in SCENES.items():
            audits[name] = await _campaign(form, {name: scene}, each, rng)
    else:
        audits["all of them"] = await _campaign(form, SCENES, each, rng)
    total = Audit()
    killed = 0
    details = []
    good = True
    wanted = each * (1 if form.long else len(SCENES))
    for name, (kills, audit) in audits.items():
        killed += kills
        good &= honest(audit) and kills == wanted
        for figure in ("lost", "false", "unasked", "duplicates", "deliveries"):
            setattr(total, figure, getattr(total, figure) + getattr(audit, figure))
        details.append(f"{name:<20} killed {kills:>3} of {wanted}, {words(audit)}")
    found = f"lost {total.lost}, false {total.false}, duplicates {total.duplicates:,}"
    scale = f"{killed} kills at {len(SCENES)} failpoints, {total.deliveries:,} deliveries"
    return Finding(found, good, scale, tuple(details) if form.long else ())


async def _campaign(form: Form, scenes: dict[str, Scene], each: int, rng: random.Random) -> tuple[int, Audit]:
    """So many kills at each of these failpoints, over one database; how many there were, and the audit."""
    killed = 0
    async with world(form, devices=form.pick(20, 50), policy={"lease": 0.6}) as here:
        cycle = 0
        for name, scene in scenes.items():
            await here.gateway.faults(**dict(scene.faults))
            done = tries = 0
            while done < each and tries < 3 * each + 3:
                cycle += 1
                # Where the first draw came too late to be reached, an earlier one is tried.
                hit = rng.randint(1, max(1, scene.hits // form.pick(4, 1) // (1 + tries - done)))
                done += await _one(here, name.rpartition(" ")[2], scene, hit, plan(rng, form.pick(4, 12), f"k{cycle}"))
                tries += 1
            killed += done
        await here.gateway.faults()
        await here.drain()
        return killed, await here.audit(unknown=any(scene.who == "driver" for scene in scenes.values()))


async def _one(here: World, name: str, scene: Scene, hit: int, batch: list[list[Any]]) -> bool:
    """One kill at that failpoint; whether it came to it."""
    failpoint = f"{name}:{hit}"
    rounds = [batch[n : n + 3] for n in range(0, len(batch), 3)]
    if scene.who == "driver":
        code = await here.drive(rounds, failpoint=failpoint).wait()
        # What the caller does that got no answer: the same again. It was stored, or is now; never twice.
        if await here.drive(rounds).wait() != 0:
            raise RuntimeError("a driver was refused")
        return code == -signal.SIGKILL
    if await here.drive(rounds).wait() != 0:
        raise RuntimeError("a driver was refused")
    before = here.gateway.arrived
    worker = here.work(*([] if scene.terminated else ["--drain"]), failpoint=failpoint, checkpoint=scene.checkpoint)
    if scene.terminated:
        await here.pushed(before, worker)
        worker.signal(signal.SIGTERM)
    code = await worker.wait()
    here.edges.append(here.gateway.arrived)
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a worker ended with {code}: {worker.said[-2000:]}")
    return code == -signal.SIGKILL


@measured(3, "double kill during recovery", _HONEST)
async def double_kills(form: Form) -> Finding:
    """A worker is killed in the middle of sending, and the next one within 200 ms of its start, before it could recover
    much."""
    pairs = form.pick(2, 200)
    rng = form.rng
    async with world(form, devices=50, policy={"lease": 0.6}) as here:
        await here.gateway.faults(**_LATE)
        for cycle in range(pairs):
            await here.drive([plan(rng, 12)]).wait()
            before, settled = here.gateway.arrived, _settled(here)
            first = here.work()
            await here.pushed(before, first)
            if cycle % 2:
                await asyncio.sleep(rng.uniform(0.0, 0.05))
            else:
                await until(lambda: _settled(here) > settled + 20 or first.ended, what="results")  # noqa: B023
            first.kill()
            await first.wait()
            here.edges.append(here.gateway.arrived)
            second = here.work()
            await asyncio.sleep(rng.uniform(0.0, 0.2) if cycle % 4 else rng.uniform(0.1, 0.2))
            second.kill()
            await second.wait()
            here.edges.append(here.gateway.arrived)
        await here.gateway.faults()
        await here.drain()
        audit = await here.audit()
    return Finding(words(audit), honest(audit), f"{pairs} pairs of kills, {audit.deliveries:,} deliveries")


ROWS = [random_kills, failpoints, double_kills]
