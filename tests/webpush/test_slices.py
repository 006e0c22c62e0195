"""Slices: nobody waits for ever, and the loop is never held for long."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fanout_webpush.slices import Slices

pytestmark = pytest.mark.anyio


class Worker:
    """Pretends to encrypt, at a cost, by a clock that moves only when work is done."""

    def __init__(self, cost: float) -> None:
        self.cost = cost
        self.now = 0.0
        self.done: list[bytes] = []

    def clock(self) -> float:
        return self.now

    def encrypt(self, record: bytes, p256dh: bytes, auth: bytes) -> bytes:
        self.now += self.cost
        if p256dh == b"bad":
            raise ValueError("no point")
        self.done.append(record)
        return record + auth


def slices(worker: Worker) -> Slices:
    return Slices(worker.encrypt, clock=worker.clock, slice=0.002)


async def test_everybody_gets_their_own_in_the_order_of_asking() -> None:
    worker = Worker(0.0001)
    each = slices(worker)
    bodies = await asyncio.gather(*(each.encrypt(b"%d" % n, b"", b"!") for n in range(500)))
    assert bodies == [b"%d!" % n for n in range(500)]
    assert worker.done == [b"%d" % n for n in range(500)]


@pytest.mark.parametrize("cost", [0.00001, 0.0001, 0.0009, 0.01])
async def test_the_loop_runs_between_slices(cost: float) -> None:
    worker = Worker(cost)
    each = slices(worker)
    held: list[float] = []
    last = 0.0
    stop = False

    def beat() -> None:
        nonlocal last
        held.append(worker.now - last)
        last = worker.now
        if not stop:
            asyncio.get_running_loop().call_soon(beat)

    beat()
    await asyncio.gather(*(each.encrypt(b"x", b"", b"") for _ in range(300)))
    stop = True
    await asyncio.sleep(0)
    assert len(worker.done) == 300
    assert max(held) < 0.002 + cost


async def test_what_is_asked_for_in_the_meantime_is_done_too() -> None:
    worker = Worker(0.001)
    each = slices(worker)

    async def chain(length: int) -> int:
        for _ in range(length):
            await each.encrypt(b"x", b"", b"")
        return length

    assert await asyncio.gather(*(chain(n) for n in range(20))) == list(range(20))
    assert len(worker.done) == sum(range(20))


async def test_a_cancelled_sender_costs_nothing_and_keeps_nobody_waiting() -> None:
    worker = Worker(0.0001)
    each = slices(worker)
    futures = [each.encrypt(b"%d" % n, b"", b"") for n in range(300)]
    for future in futures[::2]:
        future.cancel()
    await asyncio.gather(*futures, return_exceptions=True)
    assert worker.done == [b"%d" % n for n in range(1, 300, 2)]


async def test_a_bad_key_is_its_senders_affair() -> None:
    worker = Worker(0.0001)
    each = slices(worker)
    bad, good = each.encrypt(b"x", b"bad", b""), each.encrypt(b"x", b"", b"")
    with pytest.raises(ValueError, match="no point"):
        await bad
    assert await good == b"x"


async def test_without_demand_nothing_is_scheduled() -> None:
    worker = Worker(0.0001)
    each = slices(worker)
    await each.encrypt(b"x", b"", b"")
    await asyncio.sleep(0)
    assert not each._scheduled


async def test_a_clock_that_stands_still_still_yields() -> None:
    worker = Worker(0.0)
    each = slices(worker)
    futures = [each.encrypt(b"x", b"", b"") for _ in range(200)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < sum(future.done() for future in futures) < 200
    await asyncio.gather(*futures)


class Pool:
    """Answers a request through the future that it is given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def request(self, head: object, path: bytes, fields: bytes, body: bytes, timeout: None, future: Any) -> Any:
        if path == b"/refused":
            raise RuntimeError("not open")
        self.bodies.append(body)
        future.set_result(path)
        return future


async def test_a_request_goes_out_with_the_slice_that_encrypts_it() -> None:
    worker, pool = Worker(0.0001), Pool()
    each = slices(worker)

    def request(path: bytes, p256dh: bytes = b"") -> Any:
        return each.request(pool, None, path, b"", b"text", p256dh, b"!")  # type: ignore[arg-type]

    answers = await asyncio.gather(*(request(b"/%d" % n) for n in range(50)))
    assert answers == [b"/%d" % n for n in range(50)]
    assert pool.bodies == [b"text!"] * 50


async def test_what_fails_is_told_to_its_sender_alone() -> None:
    worker, pool = Worker(0.0001), Pool()
    each = slices(worker)

    def request(path: bytes, p256dh: bytes = b"") -> Any:
        return each.request(pool, None, path, b"", b"text", p256dh, b"!")  # type: ignore[arg-type]

    found = await asyncio.gather(
        request(b"/1"), request(b"/refused"), request(b"/2", b"bad"), request(b"/3"), return_exceptions=True
    )
    assert [type(each) for each in found] == [bytes, RuntimeError, ValueError, bytes]


async def test_a_cancelled_request_is_not_made() -> None:
    worker, pool = Worker(0.0001), Pool()
    each = slices(worker)
    future = each.request(pool, None, b"/", b"", b"text", b"", b"")  # type: ignore[arg-type]
    future.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert pool.bodies == worker.done == []
