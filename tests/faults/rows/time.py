"""Rows 17, 26, 27, 28, 29: jitter, Retry-After, expiry, clocks that jump, and processes that stand still."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import fanout
from fanout.bootstrap import SystemClock
from fanout.core.outcome import Scope, Unavailable
from fanout.core.policy import Policy, backoff
from fanout.core.settlement import Attempted, Retry, decide
from fanout.engine import Engine, EngineOptions
from fanout.plugin import ACCEPTED, Delivery, Outcome, StorageContext, clock_of
from fanout.registry import Registry
from fanout.testing.scripted import ScriptedMessage, ScriptedTransport
from fanout.testing.simulator.ledger import read_ledger
from fanout_apns.simulator import ApnsSimulator
from fanout_fcm.simulator import FcmSimulator
from fanout_kit.postgres import PostgresServer, find_programs
from fanout_webpush.simulator import WebPushSimulator
from fanout_wns.simulator import WnsSimulator
from tests.faults.endings import told_to_end
from tests.faults.rows.kills import CHECKPOINT, IN_FLIGHT, words
from tests.faults.table import Finding, measured
from tests.faults.world import Form, until, world

__all__ = ["ROWS"]


@measured(17, "jitter shape", "Kolmogorov-Smirnov against uniform at 1 %, no 100 ms bin above 3 times the mean")
async def jitter(form: Form) -> Finding:
    """Due times of failures at the same instant, as `decide` gives them."""
    count = form.pick(20_000, 100_000)
    rng, policy = form.rng, Policy()
    failed = Unavailable("unknown", Scope.ENDPOINT, "503")
    worst_ks, worst_bin = 0.0, 0.0
    for attempt in (4, 6):
        ceiling = policy.backoff_base * 2 ** (attempt - 1)
        tried = Attempted(attempt=attempt, free=0, expires_at=1e9, registered_at=0.0)
        waits = []
        for _ in range(count):
            decision = decide(failed, tried, policy, 0.0, rng)
            assert isinstance(decision, Retry)
            waits.append(decision.due_at)
        waits.sort()
        ks = max(abs(wait / ceiling - (i + 0.5) / count) for i, wait in enumerate(waits))
        worst_ks = max(worst_ks, ks * count**0.5)
        bins = Counter(int(wait * 10) for wait in waits)
        worst_bin = max(worst_bin, max(bins.values()) / (count / (ceiling * 10)))
    spread = max(backoff(9, base=1, cap=60, rng=rng) for _ in range(1000))
    found = f"KS {worst_ks:.2f} (critical 1.63), fullest bin {worst_bin:.2f} times the mean"
    return Finding(
        found, worst_ks < 1.63 and worst_bin <= 3 and spread <= 60, f"{count:,} failures, attempts 4 and 6; pure"
    )


_EARLY = 0.05
"""Seconds by which the gateway's note of when it told may come after it told."""


@measured(26, "Retry-After matrix", "nothing raised; clamped to the policy's cap; never earlier than told")
async def retry_after(form: Form) -> Finding:
    """Each value is told once to a device of its own, with 429 and with 503; then the device is served."""
    cap = form.pick(1.0, 2.0)
    now = time.time()
    # (what is told, seconds that may not be undercut)
    matrix = [
        ("1", 1.0), ("0", 0.0), ("-5", 0.0), ("1000000000000", cap), ("9" * 300, 0.0), ("soon", 0.0), ("-", 0.0), ("1.5", 0.0),
        ("NaN", 0.0), ("inf", 0.0), ("1e12", 0.0), ("\u0663".encode().decode("latin-1"), 0.0), (formatdate(now - 3600, usegmt=True), 0.0),
        (formatdate(now + 3600, usegmt=True), cap), (formatdate(now + 10 * 366 * 86_400, usegmt=True), cap),
        ("Thu, 99 Foo 2026 99:99:99 GMT", 0.0), (" 1 ", 1.0), ("1, 2", 0.0),
    ]  # fmt: skip
    # A tenth and one base on top is the policy's own jitter; the rest is the gate of 16 failures in a row and the
    # machine.
    limit = 1.1 * cap + 0.1 + 1.5
    worst, early, wrong = 0.0, 0.0, ""
    odd: list[str] = []
    errors = form.pick(("TooManyRequests",), ("TooManyRequests", "ServiceUnavailable"))
    policy = {"retry_after_cap": cap, "backoff_base": 0.1, "backoff_cap": cap, "backoff_throttled": 0.1}
    async with world(form, policy=policy) as here:
        await here.register(len(matrix), users=len(matrix))
        for error in errors:
            told = {ApnsSimulator.address(n): value for n, (value, _) in enumerate(matrix)}
            await here.gateway.strain(tell_once=told, told=[], error=error)
            for n in range(len(matrix)):
                await here.submit(1, f"user:u{n}")
            worker = await here.drain()
            if "Traceback" in worker.said or "escaped" in worker.said:
                wrong = f"; raised with {error}"
            when = dict((await here.gateway.tell(get=["told"]))["told"])
            digests = {
                here.engine.transports["default", "apns"].parse_address(ApnsSimulator.address(n)).digest: n
                for n in range(len(matrix))
            }
            served = {digests[entry.address]: entry.at for entry in read_ledger(here.gateway.ledger)}
            for n, (value, least) in enumerate(matrix):
                waited = served[n] - when[ApnsSimulator.address(n)]
                if waited < least - _EARLY or waited > limit:
                    odd.append(
                        f"{error} {value!r}: sent again after {waited:.2f} s, and not before {least:g} s was asked for"
                    )
                early = max(early, least - waited)
                worst = max(worst, waited)
        audit = await here.audit()
    found = f"lost {audit.lost}, longest wait {worst:.2f} s (cap {cap:g} s), earlier than told by {max(0.0, early):.3f} s{wrong}"
    # That none is sent before it is due is order: a slow machine sends later, never earlier.
    counts = audit.lost == 0 and audit.false == 0 and early <= _EARLY and not wrong
    return Finding(
        found, counts, f"{len(matrix)} values, with {' and with '.join(errors)}", tuple(odd), time=worst <= limit
    )


@measured(27, "TTL edges", "never sent after expiry by the gateway's clock; the gateway is told what remains")
async def expiry(form: Form) -> Finding:
    """TTL 0, one that runs out in the queue, in back-off, behind a gate, and in flight; and what gateways are told that
    take seconds."""
    apns, others = await asyncio.gather(_expiries(form), _remainders(form))
    return replace(
        apns,
        measured=f"{apns.measured}; {others.measured}",
        counts=apns.counts and others.counts,
        details=apns.details + others.details,
    )


async def _remainders(form: Form) -> Finding:
    """A message waits in the queue before a worker starts, and is then refused once: FCM, Web Push and WNS are told
    what remains of its time, which is less each time, by the clocks of the worker and of the gateway."""
    ttl, pause = 100.0, 2.0
    bindings = {
        "fcm": ("UNAVAILABLE", FcmSimulator.address(1), "messages:send"),
        "webpush": ("503", WebPushSimulator.address(1), "/"),
        "wns": ("Down", WnsSimulator.address(1), "token="),
    }
    wrong: list[str] = []
    told: dict[str, list[int]] = {}
    async with world(form, {name: {} for name in bindings}, name="seconds") as here:
        for name, (error, address, path) in bindings.items():
            await here.engine.endpoints.register(user="u", binding=name, address=address)
            await here.gateways[name].strain(remember=True, error=error, tell_once={path: f"{pause:g}"})
        (id,) = await here.submit(1, "user:u", ttl=ttl)
        expires_at = (await here.engine.status(id)).expires_at
        await until(lambda: time.time() > expires_at - ttl + 1.2, what="the start of the worker")
        # No request was made before this moment, nor the second one before the time that the gateway named with the
        # first.
        latest = time.time()
        worker = here.work()
        status = await here.engine.wait(id, 60)
        worker.kill()
        await worker.wait()
        for name, gateway in here.gateways.items():
            # Requests that name nothing are for tokens; a push without its TTL is missed below.
            requests = [(named, when) for named, when in (await gateway.tell(get=["remaining"]))["remaining"] if named]
            told[name] = [seconds for named, _ in requests for seconds in named]
            at = latest
            for named, when in requests:
                # Whole seconds, rounded down, and once more by what waited for a token.
                if not all(expires_at - when - 2 <= seconds <= expires_at - at for seconds in named):
                    wrong.append(f"{name} told {named}, with {expires_at - at:.2f} to {expires_at - when:.2f} s left")
                at = when + pause
            if len(requests) < 2:
                wrong.append(f"{name} was asked {len(requests)} times, and is to be twice")
    found = ", ".join(f"{name} told {' and '.join(map(str, seconds))} s" for name, seconds in told.items())
    return Finding(f"of {ttl:g} s {found}", not wrong and status.counts["accepted"] == 3, details=tuple(wrong))


async def _expiries(form: Form) -> Finding:
    async with world(form, devices=10, policy={"backoff_cap": 0.3}) as here:
        gateway, engine = here.gateway, here.engine
        await gateway.strain(remember=True)
        ends: dict[str, tuple[str, float]] = {}
        accepted: dict[str, float] = {}

        async def submit(case: str, ttl: float) -> None:
            (id,) = await here.submit(1, ttl=ttl)
            status = await engine.status(id)
            ends[id] = (case, status.expires_at)
            accepted[id] = status.accepted_at

        await submit("in the queue", 0.3)
        await until(lambda: time.time() > max(end for _, end in ends.values()), what="the end of a TTL")
        worker = here.work()
        await submit("0", 0)
        await submit("an hour", 3600)
        await until(lambda: gateway.arrived >= 20, what="20 pushes")
        await gateway.faults(delay=1.0, delay_seconds=3.5)
        await submit("in flight", 3)
        in_flight = next(reversed(ends))
        await until(lambda: _over(gateway.arrived >= 30, engine, in_flight), what="30 pushes")
        await gateway.faults()
        for _ in range(form.pick(1, 5)):
            await gateway.strain(share=1.0)
            await submit("in back-off", 1)
            await submit("in back-off", 2)
            for id, (case, _) in ends.items():
                if case == "in back-off":
                    await engine.wait(id, 60)
            await gateway.strain(share=0.0)
        for id in ends:
            await engine.wait(id, 60)
        finished = len((await gateway.tell(get=["expirations"]))["expirations"])
        # What has ended stays ended: another push would come before this one.
        await submit("afterwards", 3600)
        await engine.wait(next(reversed(ends)), 60)
        worker.kill()
        owners = {delivery: id for id in ends for delivery in [_delivery(id, endpoint) for endpoint in range(1, 11)]}
        # The worker's own examination of its binding is a request too, for no delivery.
        told = (await gateway.tell(get=["late", "expirations"]))["expirations"]
        finished = sum(each[0] in owners for each in told[:finished])
        seen = [each for each in told if each[0] in owners]
        again = sum(ends[owners[delivery]][0] != "afterwards" for delivery, _, _ in seen[finished:])
        asked = Counter(ends[owners[delivery]][0] for delivery in {delivery for delivery, _, _ in seen})
        after = [when - ends[owners[delivery]][1] for delivery, told, when in seen if ends[owners[delivery]][0] != "0"]
        overrun = max(after, default=0.0)
        odd = sum(
            told != ("0" if ends[owners[delivery]][0] == "0" else str(int(ends[owners[delivery]][1])))
            for delivery, told, _ in seen
        )
        states: dict[str, Counter[str]] = {}
        for id, (case, _) in ends.items():
            states.setdefault(case, Counter()).update(
                {name: count for name, count in (await engine.status(id)).counts.items() if count}
            )
        audit = await here.audit()
    # Whatever the machine's pace: what had expired in the queue was never asked for, and whatever was asked for in time
    # and then answered is accepted, although its time ran out in flight.
    right = (
        set(states["in the queue"]) == {"expired"}
        and asked["in the queue"] == again == 0
        and set(states["0"]) == set(states["an hour"]) == {"accepted"}
        and states["in flight"]["accepted"] == asked["in flight"]
        and states["in flight"].total() == 10
        and set(states["in back-off"]) == {"expired"}
    )
    in_time = overrun <= 0.02 and states["in flight"]["accepted"] == 10
    found = (
        f"latest send {overrun * 1000:+.0f} ms from its expiry, {odd} told another time than the rest, "
        f"in back-off: {dict(states['in back-off'])}, sent after they had ended {again}, lost {audit.lost}, false {audit.false}"
    )
    counts = odd == 0 and right and audit.lost == 0 and audit.false == 0
    details = tuple(f"{case}: {dict(counts)}, asked for {asked[case]}" for case, counts in states.items())
    return Finding(found, counts, f"{len(seen)} requests of {len(ends)} notifications", details, time=in_time)


async def _over(seen: bool, engine: Engine, id: str) -> bool:
    """Whether it has been seen, or cannot be any more, for the notification has ended."""
    return seen or (await engine.status(id)).finished_at is not None


def _delivery(id: str, endpoint: int) -> str:
    from fanout.core.ids import delivery_id

    return delivery_id(id, endpoint)


class Jumping:
    """A clock whose wall time a time server moves: by `offset`, and by `pace` of each second since."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.pace = 0.0
        self._since = time.monotonic()

    def now(self) -> float:
        return time.time() + self.offset + (time.monotonic() - self._since) * self.pace

    def monotonic(self) -> float:
        return time.monotonic()


@measured(
    28,
    "clock jump +1 h, -1 h, +10 years, smear; schedules",
    "no early or late mass send, leases fair, no busy loop; a schedule is begun within 100 ms of its time, idle and beside a broadcast",
)
async def jumps(form: Form) -> Finding:
    """Two engines on one database, and one clock that jumps under both while a broadcast is half sent."""
    size = form.pick(60, 1000)
    details, good = [], True
    cases = {
        "+1 h": (3600.0, 0.0),
        "-1 h": (-3600.0, 0.0),
        "+10 years": (10 * 366 * 86_400.0, 0.0),
        "smear": (0.0, 0.2),
    }
    for name, (offset, pace) in cases.items():
        clock = Jumping()
        held = asyncio.Event()
        rng = random.Random(form.seed)

        async def answer(message: object, delivery: object, held: asyncio.Event = held) -> Any:
            await held.wait()
            return ACCEPTED

        form.folder.mkdir(exist_ok=True)
        path = form.folder / f"{len(details)}.db"
        policy = Policy(backoff_base=0.02, probe=0.02, request_timeout=2.0, lease=2.0)
        transports = [ScriptedTransport(answer, capacity=20) for _ in range(2)]
        engines = [
            Engine(
                Registry().make_storage(f"sqlite:{path}", StorageContext(clock=clock)),
                {("default", "push"): transport},
                EngineOptions(clock=clock, rng=rng, policy=policy),
            )
            for transport in transports
        ]
        async with engines[0] as one, engines[1]:
            for n in range(size):
                await one.endpoints.register(user=f"u{n}", binding="push", address=f"d{n}")
            later = await one.send(fanout.Notification(title="later"), "user:u1", at=clock.now() + 1800)
            receipt = await one.send(fanout.Notification(title="now"), "all")
            await until(lambda pair=transports: sum(len(each.sends) for each in pair) >= 20, what="20 sends under way")
            clock.offset, clock.pace = offset, pace
            held.set()
            status = await receipt.wait(60)
            if offset > 0:
                await later.wait(60)  # due by the new time; workers are patient for a second after a clock was set
            # Time for anything wrong to happen, and the processor's time meanwhile.
            burnt, began = time.process_time(), time.monotonic()
            await asyncio.sleep(form.pick(0.4, 2.0))
            busy = (time.process_time() - burnt) / (time.monotonic() - began)
            ahead = await one.status(later.id)
        sent = Counter(each.delivery for transport in transports for each in transport.sends)
        twice = sum(count - 1 for count in sent.values())
        # A jump past the TTL ends what waits; what was under way is accepted.
        expected = {"accepted": size}
        counts = {state: count for state, count in status.counts.items() if count}
        if offset > 86_400:
            right = counts.get("accepted", 0) >= 20 and sum(counts.values()) == size and ahead.state == "done"
        else:
            right = counts == expected and (ahead.counts["accepted"] == 1) == (offset > 0)
        good &= right and twice == 0 and busy < 0.5
        details.append(f"{name}: {counts}, sent twice {twice}, scheduled one {ahead.state}, CPU while idle {busy:.0%}")
    said, late, lost = await _late(form)
    found = "; ".join([*details, *said])
    return Finding(found, good and not lost, f"{size} deliveries, two workers, injected clock", time=late <= 0.1)


@measured(29, "all stopped for longer than a lease (SIGSTOP)", "leases taken again, nothing lost, no storm")
async def suspended(form: Form) -> Finding:
    """Two workers and the gateway stand still together, as on a suspended machine."""
    pause, count = form.pick(1.5, 20.0), form.pick(20, 200)
    async with world(form, devices=100) as here:
        await here.gateway.faults(delay=1.0, delay_seconds=0.1)
        await here.submit(count)
        workers = [here.work(), here.work()]
        await until(lambda: here.gateway.arrived > 200, what="200 pushes")
        stopped = [*workers, here.gateway.process]
        for child in stopped:
            child.signal(signal.SIGSTOP)
        await asyncio.sleep(pause)
        for child in reversed(stopped):
            child.signal(signal.SIGCONT)
        woke = time.time()
        await until(lambda: _settled(here.engine), 120, what="the end of everything")
        endings = await told_to_end(workers)
        audit = await here.audit()
        offered = await here.gateway.timeline("offered")
        served = await here.gateway.timeline("served")
    # A storm would be more than the gateway is otherwise given in a tenth of a second.
    before = max((count for slot, count in served.items() if slot / 10 < woke - pause), default=0)
    peak = max((count for slot, count in offered.items() if slot / 10 >= woke), default=0)
    found = f"{words(audit)}, busiest 0.1 s after waking {peak:,} (before: {before:,})"
    good = audit.lost == audit.false == 0 and audit.duplicates <= 2 * (IN_FLIGHT + 1e5 * CHECKPOINT)
    return Finding(
        found,
        good and peak <= max(3 * before, 4 * IN_FLIGHT) and all(ending.clean for ending in endings),
        f"{pause:g} s with leases of 1 s, {audit.deliveries:,} deliveries",
    )


async def _settled(engine: Engine) -> bool:
    return not await engine.storage.outstanding()


async def _late(form: Form) -> tuple[list[str], float, int]:
    """Urgent schedules for one user: to an engine that has slept since they were made, and to one whose connections are
    full.

    What was found on each storage, the worst lateness in seconds, and how many were not sent.
    """
    count, size = form.pick(3, 20), form.pick(300, 20_000)
    with contextlib.ExitStack() as stack:
        places = {"memory": "memory:", "SQLite": f"sqlite:{form.folder}/due.db"}
        if form.long and find_programs() is not None:
            server = stack.enter_context(await asyncio.to_thread(PostgresServer.start))
            places["PostgreSQL"] = server.url(await asyncio.to_thread(server.fresh))
        said, late, lost = [], 0.0, 0
        for name, location in places.items():
            idle, busy, missing = await _schedules(location, count, size, form.seed)
            said.append(f"{count} schedules, {name}: idle {idle * 1000:.0f} ms, busy {busy * 1000:.0f} ms late")
            late, lost = max(late, idle, busy), lost + missing
    return said, late, lost


async def _schedules(location: str, count: int, size: int, seed: int) -> tuple[float, float, int]:
    """How late the worst first push was while idle, and the worst beginning while busy (seconds); and how many were not
    sent."""
    pushed: dict[str, float] = {}

    async def answer(message: ScriptedMessage, delivery: Delivery) -> Outcome:
        pushed.setdefault(message.notification.id, clock.now())
        await asyncio.sleep(0.005)
        return ACCEPTED

    storage = Registry().make_storage(location, StorageContext(clock=SystemClock()))
    clock = clock_of(storage, SystemClock())
    transport = ScriptedTransport(answer, capacity=20)
    engine = Engine(storage, {("default", "push"): transport}, EngineOptions(clock=clock, rng=random.Random(seed)))
    code = fanout.Notification(title="code", lane="urgent", ttl=20.0)

    async def sent(at: float) -> tuple[str, float]:
        receipt = await engine.send(code, "user:u0", at=at)
        await receipt.wait(60)
        return receipt.id, at

    async with engine:
        for n in range(size):
            await engine.endpoints.register(user=f"u{n}", binding="push", address=f"d{n}")
        idle = [await sent(clock.now() + 0.3) for _ in range(count)]
        broadcast = await engine.send(fanout.Notification(title="sale", lane="bulk"), "all")
        busy = await asyncio.gather(*[sent(clock.now() + 0.1 + 0.2 * n) for n in range(count)])
        await broadcast.cancel()
    late = [[pushed[id] - at for id, at in which if id in pushed] for which in (idle, busy)]
    return max(late[0], default=0.0), max(late[1], default=0.0), 2 * count - sum(map(len, late))


ROWS = [jitter, retry_after, expiry, jumps, suspended]
