"""Connecting: attempts that overlap under one deadline, and what is said when none succeeds."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.http import H2Pool, PoolSettings
from fanout.http.race import STAGGER, first_of, interleaved
from tests.http.gateway import HEAD, Certificates, failure, gateway

pytestmark = pytest.mark.anyio


@given(st.lists(st.sampled_from(["127.0.0.1", "127.0.0.2", "::1", "::2", "::3"]), unique=True))
def test_families_take_turns_and_nothing_is_lost(found: list[str]) -> None:
    turns = interleaved(found)
    assert sorted(turns) == sorted(found)
    assert turns[:1] == found[:1]
    kinds = [":" in address for address in turns]
    shorter = 2 * min(kinds.count(True), kinds.count(False))
    assert all(one != two for one, two in pairwise(kinds[:shorter]))


class Times:
    """Attempts that take so long each, on a clock of their own."""

    def __init__(self, *plan: float | Exception) -> None:
        self.begun: list[int] = []
        self.discarded: list[int] = []
        self.cancelled: list[int] = []
        self.attempts: list[Callable[[], Awaitable[int]]] = [self._attempt(n, each) for n, each in enumerate(plan)]

    def _attempt(self, number: int, each: float | Exception) -> Callable[[], Awaitable[int]]:
        async def run() -> int:
            self.begun.append(number)
            if isinstance(each, Exception):
                raise each
            try:
                await asyncio.sleep(each)
            except asyncio.CancelledError:
                self.cancelled.append(number)
                raise
            return number

        return run

    async def run(self) -> int:
        return await first_of(self.attempts, self.discarded.append, stagger=0.01)


async def test_a_slow_attempt_goes_on_beside_the_next() -> None:
    plan = Times(3600.0, 3600.0, 3600.0)
    answered = asyncio.Event()

    async def slow() -> int:
        plan.begun.append(0)
        await answered.wait()
        return 0

    plan.attempts[0] = slow
    racing = asyncio.ensure_future(plan.run())
    while len(plan.begun) < 3:
        await asyncio.sleep(0.001)
    answered.set()
    assert await racing == 0
    assert sorted(plan.cancelled) == [1, 2]


async def test_a_failure_begins_the_next_at_once() -> None:
    plan = Times(OSError("a"), OSError("b"), 0.0)
    assert await first_of(plan.attempts, plan.discarded.append, stagger=3600.0) == 2


async def test_all_failures_are_told_in_their_order() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await Times(OSError("a"), OSError("b")).run()
    assert [str(error) for error in caught.value.exceptions] == ["a", "b"]


async def test_of_two_that_succeed_at_once_one_is_given_back() -> None:
    plan = Times(0.0, 0.0)
    assert await first_of(plan.attempts, plan.discarded.append, stagger=0.0) == 0
    assert [*plan.discarded, *plan.cancelled] in ([1], [])


async def test_cancelling_the_race_cancels_every_attempt() -> None:
    plan = Times(3600.0, 3600.0)
    task = asyncio.ensure_future(plan.run())
    while len(plan.begun) < 2:
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task})
    assert sorted(plan.cancelled) == [0, 1]


@asynccontextmanager
async def deaf(count: int, port: int) -> AsyncIterator[list[str]]:
    """Addresses where TCP is taken and nothing is ever said."""
    socks = []
    try:
        for n in range(count):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((f"127.0.1.{n + 1}", port))
            sock.listen(16)
            socks.append(sock)
        yield [f"127.0.1.{n + 1}" for n in range(count)]
    finally:
        for sock in socks:
            sock.close()


async def test_seven_deaf_addresses_of_eight_cost_their_staggers_and_no_deadline(
    certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    loop = asyncio.get_running_loop()
    async with gateway(certificates.server()) as server, deaf(7, server.port) as addresses:

        async def resolver(host: str, port: int) -> Sequence[str]:
            return [*addresses, "127.0.0.1"]

        url = f"https://gateway.test:{server.port}"
        settings = PoolSettings(connect_timeout=60.0, request_timeout=60.0)
        async with H2Pool(url, ssl_context=trusting, resolver=resolver, settings=settings) as pool:
            began = loop.time()
            future = pool.request(HEAD, b"/", b"", b"")
            peer = await server.accept()
            await peer.hello()
            took = loop.time() - began
            peer.answer((await peer.request()).stream)
            assert (await future).status == 200
            assert took >= 7 * STAGGER * 0.9
            assert took < 30.0  # not a share of the deadline for each
            assert pool.stats.opened == 1


async def test_the_deadline_is_one_for_all_addresses(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    async with gateway(certificates.server()) as server, deaf(2, server.port) as addresses:

        async def resolver(host: str, port: int) -> Sequence[str]:
            return addresses

        url = f"https://gateway.test:{server.port}"
        settings = PoolSettings(connect_timeout=0.6, request_timeout=60.0)
        async with H2Pool(url, ssl_context=trusting, resolver=resolver, settings=settings) as pool:
            assert await failure(pool.request(HEAD, b"/", b"", b"")) == ("no", "tls")
            assert "did not answer within 0.6 s" in pool.stats.last_trouble


async def test_the_gateways_word_about_a_certificate_is_not_hidden_by_a_dead_address(
    certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    async with gateway(certificates.server()) as server:

        async def resolver(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.1", "127.0.1.9"]

        url = f"https://elsewhere.test:{server.port}"
        async with H2Pool(url, ssl_context=trusting, resolver=resolver) as pool:
            assert await failure(pool.request(HEAD, b"/", b"", b"")) == ("no", "tls")
            assert "TLS with elsewhere.test" in pool.stats.last_trouble
