"""Rows 18 to 20 and 22 to 25: gateways that say goodbye, refuse, fall silent, talk nonsense, and call credentials
expired or revoked."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from contextlib import suppress

import fanout
from fanout.testing.simulator.ledger import read_ledger
from tests.faults.table import Finding, measured
from tests.faults.world import Form, until, world

__all__ = ["ROWS"]

_POLICY = {"backoff_base": 0.02, "backoff_cap": 0.5, "attempts": 100}


@measured(
    18, "GOAWAY storm", "0 lost; streams above the last id sent again free; duplicates only where the last id lied"
)
async def goodbyes(form: Form) -> Finding:
    """GOAWAY every 50 to 500 streams: first with the right last stream id, then with one that is too low by some.

    Half of the notifications are `at_most_once`: they end dead where a stream that the gateway excluded is taken for
    one that it saw.
    """
    count = form.pick(6, 300)
    details, good = [], True
    total = 0
    for short in (0, 3):
        async with world(form, devices=form.pick(100, 200), policy=_POLICY) as here:
            worker = here.work()
            for every in (50, 120, 500):
                await here.gateway.faults(
                    goaway_every=every, goaway_short=short, delay=float(short > 0), delay_seconds=0.02
                )
                ids = await here.submit(count // 6 or 1)
                ids += await here.submit(count // 6 or 1, repeat="at_most_once")
                for id in ids:
                    await here.engine.wait(id, 120)
            counters = await here.gateway.counters()
            worker.signal(signal.SIGTERM)
            await worker.wait()
            audit = await here.audit()
        most = counters["goaways"] * short
        attempts_fair = audit.states["accepted"] == audit.deliveries
        good &= (
            audit.lost == audit.false == 0 and audit.duplicates <= most and attempts_fair and counters["goaways"] > 2
        )
        total += audit.deliveries
        what = "right last id" if not short else f"last id {short} too low"
        details.append(
            f"{what}: {counters['goaways']} GOAWAY, lost {audit.lost}, duplicates {audit.duplicates} <= {most}, "
            f"accepted {audit.states['accepted']:,} of {audit.deliveries:,}"
        )
    return Finding("; ".join(details), good, f"{total:,} deliveries")


@measured(
    19,
    "RST_STREAM, REFUSED_STREAM, SETTINGS to 1 stream",
    "no leaked permit, nothing hangs beyond its deadline, 0 lost",
)
async def resets(form: Form) -> Finding:
    """All of them at once, and then a calm in which every stream must be free again."""
    count = form.pick(5, 250)
    faults = {
        "reset": 0.02, "reset_after": 0.02, "refuse": 0.05, "shrink_every": 300, "shrink_to": 1, "kill_before": 0.0005, "stall": 0.0005,
    }  # fmt: skip
    async with world(form, devices=200, policy=_POLICY, settings={"request_timeout": 2.0}) as here:
        await here.gateway.faults(**faults)
        worker = here.work()
        longest = 0.0
        for id in await here.submit(count):
            status = await here.engine.wait(id, 240)
            longest = max(longest, (status.finished_at or time.time()) - status.accepted_at)
        storm = await here.gateway.counters()
        # A connection that was told 1 is told 1,000 again: the same ones go on.
        await here.gateway.faults(shrink_every=1, shrink_to=1000, delay=1.0, delay_seconds=0.05)
        await here.gateway.tell(simulator={"counters.most_streams": 0})
        # In the calm, as many must be under way at once as a connection takes: a leaked stream would be missing for
        # ever. The adaptive limit was lowered by the storm, and needs some time.
        end = time.monotonic() + 60
        most = 0
        while most < 490 and time.monotonic() < end:
            for id in await here.submit(10):
                await here.engine.wait(id, 60)
            most = (await here.gateway.counters())["most_streams"]
        counters = await here.gateway.counters()
        worker.signal(signal.SIGTERM)
        await worker.wait()
        audit = await here.audit()
    faults_seen = storm["resets"] + storm["stalls"] + storm["disconnects"]
    found = (
        f"lost {audit.lost}, false {audit.false}, duplicates {audit.duplicates}, most streams on a connection afterwards {most} "
        f"of 500, refused {counters['refused']}, violations {len(counters['violations'])}"
    )
    good = (
        audit.lost == audit.false == 0
        and audit.states["accepted"] == audit.deliveries
        and most >= 490
        and not counters["violations"]
    )
    return Finding(found, good, f"{audit.deliveries:,} deliveries, {faults_seen:,} resets, stalls and cuts")


@measured(20, "half-open TCP: a silent peer", "noticed <= 15 s, everything in flight resolved as doubtful, 0 lost")
async def silence(form: Form) -> Finding:
    """The gateway's process is stopped: its kernel still takes what is sent, and nobody answers."""
    # In the short form the deadline of the request ends it before the PING does.
    settings = {"request_timeout": 1.0} if not form.long else {"request_timeout": 30.0}
    async with world(form, devices=100, policy=_POLICY | {"request_timeout": 30.0}, settings=settings) as here:
        worker = here.work()
        for id in await here.submit(2):
            await here.engine.wait(id, 30)
        await here.gateway.faults(delay=1.0, delay_seconds=0.3)
        before = here.gateway.arrived
        ids = await here.submit(3)
        await until(lambda: here.gateway.arrived > before, what="pushes under way")
        here.gateway.process.signal(signal.SIGSTOP)
        began = time.monotonic()
        await until(
            lambda: "closed for" in worker.said or "gate" in worker.said,
            60,
            "the worker's word that the gateway is silent",
        )
        noticed = time.monotonic() - began
        waiting = Counter[str]()
        for id in ids:
            waiting.update((await here.engine.status(id)).pending_by_reason)
        here.gateway.process.signal(signal.SIGCONT)
        for id in ids:
            await here.engine.wait(id, 120)
        worker.signal(signal.SIGTERM)
        await worker.wait()
        audit = await here.audit()
    found = f"noticed after {noticed:.1f} s, lost {audit.lost}, false {audit.false}, duplicates {audit.duplicates}"
    counts = audit.lost == audit.false == 0 and audit.states["accepted"] == audit.deliveries
    how = f"request deadline {settings['request_timeout']:g} s; PING after 4 s, given up 8 s later"
    return Finding(found, counts, how, time=noticed <= 15)


@measured(22, "slow, huge and mutated answers", "no crash, memory capped, every answer classified")
async def nonsense(form: Form) -> Finding:
    """Statuses, bodies and headers that no gateway should send, some late, some never, in pieces of 7 bytes."""
    import psutil

    count = form.pick(6, 100)
    async with world(form, devices=100, policy=_POLICY, settings={"request_timeout": 2.0}) as here:
        worker = here.work()
        for id in await here.submit(1):
            await here.engine.wait(id, 30)
        idle = psutil.Process(worker.pid).memory_info().rss / 2**20
        await here.gateway.strain(mutate=True)
        await here.gateway.faults(body_chunk=7, delay=0.05, delay_seconds=0.2, stall_after=0.001)
        ids = await here.submit(count, ttl=form.pick(5, 60))
        pending = dict.fromkeys(ids)
        peak = idle
        deadline = time.monotonic() + form.pick(8, 90)
        while pending and time.monotonic() < deadline:
            peak = max(peak, psutil.Process(worker.pid).memory_info().rss / 2**20)
            for id in [*pending]:
                if (await here.engine.status(id)).finished_at is not None:
                    del pending[id]
            await asyncio.sleep(0.02)
        alive = not worker.ended
        await here.gateway.strain(mutate=False)
        await here.gateway.faults()
        # The endpoints that a mutated answer called gone are gone; restored, they are served like the others.
        gone = [endpoint.id async for endpoint in here.engine.endpoints.list(state=fanout.EndpointState.GONE)]
        await here.engine.endpoints.restore(gone)
        last = await here.submit(1)
        await here.engine.wait(last[0], 60)
        requests = (await here.gateway.counters())["requests"]
        for id in ids:
            with suppress(TimeoutError):
                await here.engine.wait(id, 90)
        worker.signal(signal.SIGTERM)
        code = await worker.wait()
        faults = worker.said.count("escaped") + worker.said.count("Traceback")
        audit = await here.audit()
    found = f"crashed {int(not alive)}, exceptions {faults}, memory {peak - idle:+.0f} MB, undecided {audit.states['pending']}, {dict(audit.states)}"
    good = alive and code == 0 and faults == 0 and peak - idle < 64 and audit.states["pending"] == 0
    return Finding(found, good, f"{requests:,} answers")


@measured(
    23, "token expiry in mid-burst", "<= 1 token per 20 minutes and team over all connections and workers; all retried"
)
async def expired_token(form: Form) -> Finding:
    """403 ExpiredProviderToken for a tenth of all requests, with two workers of several connections each."""
    count = form.pick(2, 100)
    async with world(
        form, devices=200, policy=_POLICY, settings={"connections": form.pick(4, 25), "streams": 40}
    ) as here:
        await here.gateway.faults(errors={"ExpiredProviderToken": 0.1})
        workers = [here.work(), here.work()]
        ids = await here.submit(count)
        for id in ids:
            await here.engine.wait(id, 240)
        counters = await here.gateway.counters()
        tokens = (await here.gateway.tell(get=["tokens"]))["tokens"]
        for child in workers:
            child.signal(signal.SIGTERM)
            await child.wait()
        audit = await here.audit()
    refused = counters["rejected"].get("ExpiredProviderToken", 0)
    found = f"tokens {len(tokens)}, refused and tried again {refused:,}, lost {audit.lost}, false {audit.false}, duplicates {audit.duplicates}"
    # A slot of ten minutes may end during the run: then a worker that starts after it has the next one.
    good = len(tokens) <= 2 and refused > 0 and audit.lost == audit.false == 0
    return Finding(
        found,
        good and audit.states["accepted"] == audit.deliveries,
        f"{counters['connections']} connections, {audit.deliveries:,} deliveries",
    )


@measured(24, "credential revoked", "its binding parked with an alarm, others unchanged, resumes without loss")
async def revoked(form: Form) -> Finding:
    """Two apps: A's key is refused, B's is not; then A's is good again."""
    rounds, seconds = form.pick(1, 5), form.pick(0.6, 5.0)
    async with world(form, {"apns": {}, "b/apns": {}}, policy={"probe": 0.3}) as here:
        await here.register(50)
        for n in range(20):
            from fanout_apns.simulator import ApnsSimulator

            await here.engine.endpoints.register(
                user=f"u{n}", binding="apns", address=ApnsSimulator.address(n), app="b"
            )
        b = here.gateways["b/apns"]
        worker = here.work()
        alarms, calm, during = 0, [], []

        async def quiet(seconds: float, into: list[float]) -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                receipt = await here.engine.send(fanout.Notification(title="b"), "user:u1", app="b")
                status = await receipt.wait(30)
                into.append((status.finished_at or 0.0) - status.accepted_at)
                await asyncio.sleep(0.01)

        await quiet(0.5, [])
        await quiet(seconds, calm)
        parked, lasted = 0, 0.0
        for _ in range(rounds):
            await here.gateway.strain(share=1.0, error="InvalidProviderToken")
            began = time.monotonic()
            ids = await here.submit(5)
            await quiet(seconds, during)
            waits: Counter[str] = Counter()
            end = time.monotonic() + 60
            # At the moment of a probe, what is leased for it does not wait for the breaker.
            while waits["breaker"] < 240 and time.monotonic() < end:
                waits.clear()
                for id in ids:
                    waits.update((await here.engine.status(id)).pending_by_reason)
            parked += waits["breaker"]
            alarms += "ERROR" in worker.said and "InvalidProviderToken" in worker.said
            await here.gateway.strain(share=0.0)
            lasted += time.monotonic() - began
            for id in ids:
                await here.engine.wait(id, 60)
        offered = await here.gateway.counters()
        worker.signal(signal.SIGTERM)
        await worker.wait()
        audit = await here.audit()
        assert b.arrived
    refused = offered["rejected"].get("InvalidProviderToken", 0)
    before, after = _p(calm, 0.99), _p(during, 0.99)
    found = (
        f"parked {parked} of {250 * rounds}{'' if parked else f' {dict(waits)}'}, probes {refused}, alarms {alarms}, B's p99 {before * 1000:.0f} -> {after * 1000:.0f} ms, "
        f"lost {audit.lost}, accepted {audit.states['accepted']} of {audit.deliveries}"
    )
    # One probe each 0.3 s, and what was under way at once when the key was refused.
    probes = rounds * (1000 + 5) + 2 * lasted / 0.3
    counts = (
        parked >= 240 * rounds
        and alarms == rounds
        and refused <= probes
        and audit.lost == audit.false == 0
        and audit.states["accepted"] == audit.deliveries
    )
    in_time = after <= max(2 * before, before + 0.1)
    return Finding(found, counts, f"revoked {rounds} times for {lasted:.1f} s", time=in_time)


def _p(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@measured(
    25,
    "OAuth token endpoint down, slow, or lying about expiry",
    "the cached token is used to its end; one fetch at a time; 0 lost",
)
async def oauth(form: Form) -> Finding:
    """FCM: its token endpoint fails, hangs, and gives tokens that are refused before their time."""
    count = form.pick(3, 40)
    from fanout_fcm.simulator import FcmSimulator

    details, good = [], True
    async with world(
        form, {"fcm": {}}, policy={"probe": 0.3, "backoff_base": 0.05}, settings={"request_timeout": 2.0, "ramp": 0.0}
    ) as here:
        gateway = here.gateway
        for n in range(50):
            await here.engine.endpoints.register(user=f"u{n % 10}", binding="fcm", address=FcmSimulator.address(n))

        async def fetches() -> int:
            return int((await gateway.tell(tokens="counters"))["requests"])

        # Down from the start: everything is parked, and the endpoint is not stormed.
        await gateway.tell(tokens="fail")
        began = time.monotonic()
        worker = here.work()
        ids = await here.submit(count)
        await asyncio.sleep(form.pick(1.0, 5.0))
        tried = await fetches()
        lasted = time.monotonic() - began
        good &= tried <= 3 + lasted / 0.25 and gateway.arrived == 0
        details.append(f"down: {tried} fetches in {lasted:.1f} s")
        await gateway.tell(tokens="")
        for id in ids:
            await here.engine.wait(id, 90)
        got = await fetches() - tried
        details.append(f"up: {got} more")
        good &= got <= 3
        # Down again: the token in hand serves on.
        await gateway.tell(tokens="cut")
        before = await fetches()
        for id in await here.submit(count):
            await here.engine.wait(id, 60)
        details.append(f"down with a token in hand: {await fetches() - before} fetches, all sent")
        good &= await fetches() - before <= 2
        # It lied: the gateway refuses the token long before its end; the endpoint hangs, and answers in the end.
        await gateway.tell(tokens="revoke")
        await gateway.tell(tokens="stall")
        before = await fetches()
        began = time.monotonic()
        ids = await here.submit(count)
        await asyncio.sleep(form.pick(1.0, 4.0))
        hung = await fetches() - before
        lasted = time.monotonic() - began
        await gateway.tell(tokens="")
        for id in ids:
            await here.engine.wait(id, 120)
        details.append(f"refused early and the endpoint hung: {hung} fetches meanwhile")
        good &= hung <= 1 + lasted
        worker.signal(signal.SIGTERM)
        await worker.wait()
        promised = here.promised()
        lost = 0
        for id in promised:
            status = await here.engine.status(id)
            lost += status.counts["pending"] + (status.counts["accepted"] != status.total)
        arrived = sum(1 for _ in read_ledger(gateway.ledger))
    good &= lost == 0
    return Finding("; ".join(details) + f"; lost {lost}", good, f"{arrived:,} deliveries")


ROWS = [goodbyes, resets, silence, nonsense, expired_token, revoked, oauth]
