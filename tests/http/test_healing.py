"""Connections that end, are sent away, or must be replaced: what becomes of the requests, and of the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from fanout.http import H2Pool, PoolSettings, Response, client_tls
from fanout.http.connection import Connection
from fanout.http.frames import LAST_STREAM, ErrorCode, FrameType
from tests.http.gateway import HEAD, Certificates, Gateway, Peer, failure, gateway, scene, settle, until

pytestmark = pytest.mark.anyio


async def test_goaway_excludes_some_awaits_the_rest_and_the_pool_goes_on(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        warm, *_ = it.ask()
        old = await it.met()
        old.answer((await old.request()).stream)
        await warm
        futures = it.ask(4)
        first, second, *_ = await old.requests(4)
        old.goaway(second.stream, 0, b'{"reason":"Shutdown"}')
        for excluded in futures[2:]:
            assert await failure(excluded) == ("no", "goaway")
        (after,) = it.ask()
        new = await it.met()
        got = await new.request()
        assert got.stream == 1
        old.answer(second.stream)
        old.answer(first.stream, b"\x8c", b"{}")
        assert (await futures[1]).status == 200
        assert (await futures[0]).status == 400
        new.answer(got.stream)
        assert (await after).status == 200
        assert it.pool.stats.goaways == 1
        assert it.pool.stats.opened == 2
        assert it.whole()
        await until(lambda: not it.pool._draining)


async def test_an_answer_of_the_wrong_server_is_of_its_connection_and_not_of_the_request(
    certificates: Certificates,
) -> None:
    """421 (RFC 9110, section 15.5.20): the request was not processed, and another connection may lead to the right
    server."""
    async with scene(certificates) as it:
        (warm,) = it.ask()
        old = await it.met()
        old.answer((await old.request()).stream)
        await warm
        first, second = it.ask(2)
        got = await old.requests(2)
        old.answer(got[0].stream, b"\x08\x03421", b"misdirected")
        assert await failure(first) == ("no", "misdirected")
        (again,) = it.ask()
        new = await it.met()
        new.answer((await new.request()).stream)
        assert (await again).status == 200
        old.answer(got[1].stream)  # what was under way there is still awaited
        assert (await second).status == 200
        assert "421" in it.pool.stats.last_trouble
        assert it.pool.stats.opened == 2


async def test_a_goodbye_in_two_steps_leaves_nobody_hanging(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        futures = it.ask(3)
        old = await it.met()
        got = await old.requests(3)
        old.goaway(LAST_STREAM)
        await until(lambda: it.pool.stats.goaways == 1)
        assert not any(future.done() for future in futures)
        old.goaway(got[1].stream)
        assert await failure(futures[2]) == ("no", "goaway")
        old.answer(got[0].stream)
        old.answer(got[1].stream)
        assert [(await future).status for future in futures[:2]] == [200, 200]
        assert it.whole()


async def test_a_goodbye_that_is_followed_by_the_end_leaves_the_rest_unknown(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        futures = it.ask(3)
        old = await it.met()
        got = await old.requests(3)
        old.goaway(got[0].stream, ErrorCode.INTERNAL_ERROR, b"trouble")
        old.close()
        assert await failure(futures[0]) == ("unknown", "closed")
        for excluded in futures[1:]:
            assert await failure(excluded) == ("no", "goaway")
        assert "trouble" in it.pool.stats.last_trouble
        assert it.whole()


async def storm(server: Gateway, *, every: int, lie: bool) -> dict[str, int]:
    """Serve forever, sending each connection away after `every` requests; what was processed, by path."""
    processed: dict[str, int] = {}

    async def serve(peer: Peer) -> None:
        try:
            await peer.hello()
            last = 0
            for _ in range(every):
                got = await peer.request()
                last = got.stream
                processed[got.headers[":path"]] = processed.get(got.headers[":path"], 0) + 1
                peer.answer(last)
            if lie:
                # A last stream below what was answered: those requests are done, whatever it says.
                last = max(1, last - 4)
            peer.goaway(last)
            while True:
                await peer.frame()
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    tasks = set()
    try:
        while True:
            task = asyncio.ensure_future(serve(await server.accept()))
            tasks.add(task)
    finally:
        for task in tasks:
            task.cancel()
    return processed


@pytest.mark.parametrize("lie", [False, True])
async def test_in_a_storm_of_goodbyes_everything_arrives_once(certificates: Certificates, lie: bool) -> None:
    async with scene(certificates, connections=2, streams=20) as it:
        serving = asyncio.ensure_future(storm(it.server, every=7, lie=lie))
        answers: dict[int, int] = {}

        async def send(number: int) -> None:
            while True:
                try:
                    response = await it.pool.request(HEAD, b"/%d" % number, b"", b"x")
                except Exception as failed:
                    assert getattr(failed, "sent", None) == "no"
                    it.clock.now += 1.0
                else:
                    answers[number] = response.status
                    return

        await asyncio.gather(*(send(number) for number in range(200)))
        assert answers == dict.fromkeys(range(200), 200)
        assert it.pool.stats.goaways >= 10
        assert it.whole()
        serving.cancel()


async def test_a_gateway_that_sends_everyone_away_is_not_called_without_a_pause(certificates: Certificates) -> None:
    async with scene(certificates, backoff_base=8.0) as it:
        for _ in range(5):
            (future,) = it.ask()
            if it.server.connects == 0:
                peer = await it.met()
                peer.goaway(0, ErrorCode.NO_ERROR)
            assert await failure(future) == ("no", "goaway")
            await settle()
        assert it.server.connects == 1
        it.clock.now += 8.0
        (future,) = it.ask()
        (await it.met()).goaway(0, ErrorCode.NO_ERROR)
        assert await failure(future) == ("no", "goaway")
        assert it.server.connects == 2


async def test_a_lost_connection_is_replaced_and_its_requests_are_in_doubt(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        warm, *_ = it.ask()
        old = await it.met()
        old.answer((await old.request()).stream)
        await warm
        futures = it.ask(3)
        await old.requests(3)
        await it.tick()  # notes that the pool is in use, which is why it replaces the connection unasked
        old.abort()
        for future in futures:
            assert await failure(future) == ("unknown", "closed")
        new = await it.met()
        (after,) = it.ask()
        new.answer((await new.request()).stream)
        assert (await after).status == 200
        assert it.pool.stats.lost == 1
        assert it.whole()


async def test_half_closing_is_the_end(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        one, two = it.ask(2)
        peer = await it.met()
        first, _ = await peer.requests(2)
        peer.answer(first.stream)
        peer.close()
        assert (await one).status == 200
        assert await failure(two) == ("unknown", "closed")
        assert it.whole()


async def test_an_idle_pool_does_not_replace_what_the_gateway_closes(certificates: Certificates) -> None:
    async with scene(certificates, warm=60.0) as it:
        warm, *_ = it.ask()
        peer = await it.met()
        peer.answer((await peer.request()).stream)
        await warm
        await it.tick()
        await it.pass_time(61.0)
        peer.close()
        await until(lambda: not it.pool._ready)
        await it.tick()
        assert it.server.connects == 1
        (after,) = it.ask()
        new = await it.met()
        new.answer((await new.request()).stream)
        assert (await after).status == 200


async def test_an_unused_connection_is_closed_where_that_is_wished(certificates: Certificates) -> None:
    async with scene(certificates, idle_close=30.0, warm=0.0, request_timeout=100.0, stall_ping=100.0) as it:
        future, *_ = it.ask()
        peer = await it.met()
        got = await peer.request()
        await it.pass_time(31.0)  # silent, but it owes an answer
        peer.answer(got.stream)
        assert (await future).status == 200
        await it.tick()
        await it.pass_time(29.0)
        assert it.pool._ready
        await it.pass_time(1.0)
        assert not it.pool._ready
        await peer.expect(FrameType.GOAWAY)


async def test_at_its_age_a_connection_is_replaced_before_it_leaves(certificates: Certificates) -> None:
    async with scene(certificates, max_age=1000.0) as it:
        slow, *_ = it.ask(timeout=5000.0)
        old = await it.met()
        owed = await old.request()
        await it.pass_time(899.0)
        assert it.server.connects == 1
        await it.pass_time(202.0)
        peer = await it.server.accept()
        (during,) = it.ask()
        got = await old.request()  # the new one is not ready: the old one still serves
        old.answer(got.stream)
        assert (await during).status == 200
        await peer.hello()
        await until(lambda: it.pool.stats.retired == 1)
        (after,) = it.ask()
        got = await peer.request()
        peer.answer(got.stream)
        assert (await after).status == 200
        old.answer(owed.stream)
        assert (await slow).status == 200
        await old.expect(FrameType.GOAWAY)
        assert it.whole()


async def test_a_new_credential_takes_new_connections_at_once(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        owed, *_ = it.ask()
        old = await it.met()
        got = await old.request()
        it.pool.retire(client_tls(ca_file=certificates.ca))
        (after,) = it.ask()
        new = await it.met()
        fresh = await new.request()
        old.answer(got.stream)
        assert (await owed).status == 200
        await old.expect(FrameType.GOAWAY)
        new.answer(fresh.stream)
        assert (await after).status == 200
        assert it.whole()


async def test_a_new_credential_while_connecting_starts_over(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        (future,) = it.ask()
        await it.server.accept()  # TLS is done, SETTINGS are not
        it.pool.retire(client_tls(ca_file=certificates.ca))
        new = await it.met()
        new.answer((await new.request()).stream)
        assert (await future).status == 200
        assert it.whole()


async def test_stream_ids_that_run_out_lead_to_a_new_connection(certificates: Certificates) -> None:
    class Short(H2Pool):
        def _make(self) -> Connection:
            first = LAST_STREAM - 8 if not self.stats.opened else 1
            return Connection(self, self._settings, self.stats, self._rng, self._clock, first_stream=first)

    async with gateway(certificates.server()) as server:
        pool = Short(
            server.url,
            ssl_context=client_tls(ca_file=certificates.ca),
            settings=PoolSettings(connections=1, tick=3600.0),
        )
        async with pool:
            futures = [pool.request(HEAD, b"/%d" % n, b"", b"x") for n in range(12)]
            old = await server.accept()
            await old.hello()
            first = await old.requests(5)
            assert first[-1].stream == LAST_STREAM
            new = await server.accept()
            await new.hello()
            rest = await new.requests(7)
            for got in first:
                old.answer(got.stream)
            for got in rest:
                new.answer(got.stream)
            assert {(await future).status for future in futures} == {200}
            assert pool.in_flight == 0
            await old.expect(FrameType.GOAWAY)


class Names:
    """A resolver whose answers the test chooses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        if not self.addresses:
            raise OSError("no such host")
        return self.addresses


async def answered(peer: Peer, future: asyncio.Future[Response]) -> None:
    peer.answer((await peer.request()).stream)
    assert (await future).status == 200


async def test_the_name_is_looked_up_for_each_connect_and_other_addresses_are_tried(certificates: Certificates) -> None:
    names = Names("127.0.0.2", "127.0.0.1")  # nobody listens at the first
    async with scene(certificates, resolver=names) as it:
        (future,) = it.ask()
        await answered(await it.met(), future)
        assert names.asked == 1
        it.pool.retire()
        (future,) = it.ask()
        await answered(await it.met(), future)
        assert names.asked == 2


async def test_a_connection_whose_address_is_gone_from_the_name_is_replaced(certificates: Certificates) -> None:
    names = Names("127.0.0.1")
    async with scene(certificates, resolver=names, dns_interval=60.0, idle_ping=1e6) as it:
        (future,) = it.ask()
        old = await it.met()
        await answered(old, future)
        names.addresses = ["127.0.0.2"]
        for _ in range(2):
            await it.pass_time(60.0)
        assert it.server.connects == 1
        names.addresses = []  # a name service in trouble says nothing
        await it.pass_time(60.0)
        names.addresses = ["127.0.0.2"]
        await it.pass_time(60.0)
        names.addresses = ["127.0.0.1"]
        await it.tick()
        await it.met()
        await until(lambda: it.pool.stats.retired == 1)
        await old.expect(FrameType.GOAWAY)
        await it.pass_time(60.0)
        assert it.server.connects == 2


async def test_many_cancellations_and_losses_leak_no_permit(certificates: Certificates) -> None:
    async with scene(certificates, connections=2, streams=8, max_waiting=500) as it:
        rounds = 30

        async def serve(peer: Peer, number: int) -> None:
            try:
                await peer.hello()
                for turn in range(10):
                    got = await peer.request()
                    if turn % 3:
                        peer.answer(got.stream)
                peer.abort() if number % 2 else peer.goaway(1)
            except (asyncio.IncompleteReadError, ConnectionError):
                return

        async def accept() -> None:
            number = 0
            while True:
                serving.add(asyncio.ensure_future(serve(await it.server.accept(), number)))
                number += 1

        serving: set[asyncio.Future[None]] = set()
        accepting = asyncio.ensure_future(accept())
        futures: list[asyncio.Future[Response]] = []
        for number in range(rounds):
            futures += it.ask(12)
            futures[number * 7 % len(futures)].cancel()
            await it.pass_time(1.0)
        while not all(future.done() for future in futures):
            await it.pass_time(5.0)
            await asyncio.sleep(0.001)
        for future in futures:
            if not future.cancelled() and future.exception() is not None:
                assert getattr(future.exception(), "reason", "") in ("closed", "goaway", "timeout", "ping")
        await it.tick()
        assert it.pool.in_flight == 0
        assert it.whole()
        accepting.cancel()
        for task in serving:
            task.cancel()
