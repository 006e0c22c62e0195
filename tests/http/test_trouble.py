"""Gateways that cannot be reached, hang, lie or attack: every request still ends, and in bounded time and memory."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from fanout.http import H2Pool, PoolSettings, client_tls
from fanout.http.frames import ErrorCode, FrameType, Setting, frame, ping, settings, window_update
from fanout_kit.ports import free_port
from tests.http.gateway import HEAD, Certificates, Clock, Peer, failure, gateway, scene, settle, until

pytestmark = pytest.mark.anyio


def pool_to(url: str, context: ssl.SSLContext, clock: Clock | None = None, **values: float) -> H2Pool:
    made = {"tick": 3600.0, "connections": 1, "dns_interval": None, **values}
    return H2Pool(
        url,
        ssl_context=context,
        settings=PoolSettings(**made),  # type: ignore[arg-type]
        clock=clock or Clock(),
        rng=random.Random(3),
    )


async def test_while_nothing_listens_a_connect_a_second_answers_all_who_wait_for_it(trusting: ssl.SSLContext) -> None:
    clock = Clock()
    async with pool_to(f"https://127.0.0.1:{free_port()}", trusting, clock, backoff_base=1.0) as pool:
        both = [pool.request(HEAD, b"/", b"", b"x") for _ in range(2)]
        for future in both:
            assert await failure(future) == ("no", "connect")
        assert pool.stats.connect_failures == 1
        for passed in range(1, 21):
            many = [pool.request(HEAD, b"/", b"", b"x") for _ in range(50)]
            pool._tick()
            await settle()
            assert not any(future.done() for future in many), "that no connect was tried yet is no failure"
            clock.now += 1.0  # never longer, however often it failed
            pool._tick()
            assert [await failure(future) for future in many] == [("no", "connect")] * 50
            assert pool.stats.connect_failures == 1 + passed
        assert "cannot be reached" in pool.stats.last_trouble
        assert pool.in_flight == 0
        assert pool.capacity() == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_process_that_may_open_no_more_files_says_so(trusting: ssl.SSLContext, host: str) -> None:
    """The gateway is well: its name in a log would send an operator to the wrong place."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with pool_to(f"https://{host}:{free_port()}", trusting) as pool:
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            failed = await failure(pool.request(HEAD, b"/", b"", b"x"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failed == ("no", "descriptors")


async def test_the_pool_recovers_when_the_gateway_does(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    port, clock = free_port(), Clock()
    async with pool_to(f"https://127.0.0.1:{port}", trusting, clock) as pool:
        assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", "connect")
        async with gateway(certificates.server(), port=port) as server:
            clock.now += 60.0
            future = pool.request(HEAD, b"/", b"", b"x")
            peer = await server.accept()
            await peer.hello()
            peer.answer((await peer.request()).stream)
            assert (await future).status == 200


async def test_a_certificate_that_nobody_vouches_for_is_refused(certificates: Certificates) -> None:
    async with gateway(certificates.server()) as server, pool_to(server.url, client_tls()) as pool:
        assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", "tls")
        assert "verify" in pool.stats.last_trouble.lower()


async def test_a_certificate_for_another_name_is_refused(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    async with gateway(certificates.server()) as server, pool_to(f"https://localhost:{server.port}", trusting) as pool:
        pool._resolver = loopback
        assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", "tls")


async def loopback(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
async def test_a_server_without_http2_is_told_apart(
    certificates: Certificates, trusting: ssl.SSLContext, alpn: tuple[str, ...]
) -> None:
    async with gateway(certificates.server(alpn=alpn)) as server, pool_to(server.url, trusting) as pool:
        assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", "alpn")


async def test_a_server_without_http2_is_not_sent_a_preface(
    certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    async with gateway(certificates.server(alpn=())) as server, pool_to(server.url, trusting) as pool:
        future = pool.request(HEAD, b"/", b"", b"x")
        peer = await server.accept()
        assert await failure(future) == ("no", "alpn")
        await peer.gone()
        assert not peer.reader._buffer  # type: ignore[attr-defined]  # HTTP/1.1 would take it for a request


@asynccontextmanager
async def listener() -> AsyncIterator[tuple[str, list[asyncio.StreamWriter]]]:
    """A server that takes TCP connections and says nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(arrived, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", writers
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()
        await settle()


async def test_a_handshake_that_hangs_is_given_up(trusting: ssl.SSLContext) -> None:
    async with listener() as (url, _), pool_to(url, trusting, connect_timeout=0.3) as pool:
        assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", "tls")


async def test_settings_that_never_come_are_given_up(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    async with gateway(certificates.server()) as server, pool_to(server.url, trusting, connect_timeout=1.5) as pool:
        future = pool.request(HEAD, b"/", b"", b"x")
        peer = await server.accept()
        assert await failure(future) == ("no", "settings")
        await peer.gone()


async def test_closing_in_the_middle_of_a_handshake_leaves_nothing(trusting: ssl.SSLContext) -> None:
    tasks = asyncio.all_tasks()
    async with listener() as (url, writers):
        async with pool_to(url, trusting) as pool:
            future = pool.request(HEAD, b"/", b"", b"x")
            await until(lambda: bool(writers))
        assert await failure(future) == ("no", "closed")
        assert pool.in_flight == 0
    assert asyncio.all_tasks() == tasks


async def test_a_hang_up_before_settings_is_a_failed_connect(
    certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    async with gateway(certificates.server()) as server, pool_to(server.url, trusting) as pool:
        future = pool.request(HEAD, b"/", b"", b"x")
        (await server.accept()).abort()
        assert await failure(future) == ("no", "settings")


async def test_a_name_that_cannot_be_found(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    async def broken(host: str, port: int) -> Sequence[str]:
        raise RuntimeError("a bug")

    async def nothing(host: str, port: int) -> Sequence[str]:
        return []

    async def hangs(host: str, port: int) -> Sequence[str]:
        await asyncio.get_running_loop().create_future()
        return []

    for resolver, reason in ((nowhere, "dns"), (broken, "connect"), (nothing, "dns"), (hangs, "dns")):
        async with pool_to("https://gateway.test", trusting, connect_timeout=0.05) as pool:
            pool._resolver = resolver
            assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", reason)


async def test_a_silent_gateway_is_found_out_by_a_ping_within_fifteen_seconds(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        futures = it.ask(3, timeout=60.0)
        peer = await it.met()
        await peer.requests(3)
        for _ in range(14):
            await it.pass_time(1.0)
        for future in futures:
            assert await failure(future) == ("unknown", "ping")
        assert it.pool.stats.pings == 1
        assert it.whole()


async def test_a_silent_gateway_is_found_out_though_every_request_times_out_early(certificates: Certificates) -> None:
    async with scene(certificates, request_timeout=1.0, warm=0.0) as it:
        (first,) = it.ask()
        peer = await it.met()
        peer.answer((await peer.request()).stream)
        await first
        dead = it.pool._ready[0]
        for _ in range(14):
            (future,) = it.ask()
            await it.tick()
            await it.pass_time(1.0)
            assert await failure(future) in (("unknown", "timeout"), ("unknown", "ping"))
            if dead.codec.closed:
                break
        else:
            raise AssertionError("a dead connection is used for ever")
        assert it.whole()


async def test_a_slow_gateway_that_answers_pings_is_left_alone(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        (future,) = it.ask(timeout=60.0)
        peer = await it.met()
        got = await peer.request()
        for _ in range(40):
            await it.pass_time(1.0)
            while peer.reader._buffer:  # type: ignore[attr-defined]
                asked = await peer.frame()
                if asked.kind == FrameType.PING:
                    peer.send(ping(asked.payload, ack=True))
            connection = it.pool._ready[0]
            await until(lambda at=connection: at.codec.pinged is None)  # type: ignore[misc]
        peer.answer(got.stream)
        assert (await future).status == 200
        assert 3 < it.pool.stats.pings < 12
        assert it.whole()


async def test_an_idle_connection_is_asked_whether_it_lives(certificates: Certificates) -> None:
    async with scene(certificates, idle_ping=100.0, warm=0.0) as it:
        (future,) = it.ask()
        peer = await it.met()
        peer.answer((await peer.request()).stream)
        await future
        await it.tick()
        await it.pass_time(101.0)
        asked = await peer.expect(FrameType.PING)
        peer.send(ping(asked.payload, ack=True))
        connection = it.pool._ready[0]
        await until(lambda: connection.codec.pinged is None)
        await it.tick()
        await it.pass_time(101.0)
        await peer.expect(FrameType.PING)
        await it.pass_time(9.0)
        assert not it.pool._ready
        assert connection.codec.closed


BREACHES = {
    "garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10,
    "push": frame(FrameType.PUSH_PROMISE, 0x4, 1, b"\0\0\0\2\x88"),
    "a stream of its own": frame(FrameType.HEADERS, 0x5, 2, b"\x88"),
    "a stream not yet opened": frame(FrameType.HEADERS, 0x5, 999, b"\x88"),
    "an undecodable head": frame(FrameType.HEADERS, 0x5, 1, b"\xff\xff\xff\xff\xff\xff"),
    "an overlong frame": frame(FrameType.DATA, 0, 1, b"\0" * 20_000),
    "windows beyond reason": window_update(0, 2**31 - 1),
    "a ping flood": ping(b"12345678") * 5000,
    "a settings flood": settings([(Setting.MAX_CONCURRENT_STREAMS, 100)]) * 5000,
    "a reset flood": frame(FrameType.HEADERS, 0x5, 1, b"\x88") + frame(FrameType.RST_STREAM, 0, 1, b"\0\0\0\1") * 5000,
    "a head without end": frame(FrameType.HEADERS, 0, 1, b"\x88") + frame(FrameType.CONTINUATION, 0, 1, b"") * 100,
}


@pytest.mark.parametrize("breach", BREACHES)
async def test_a_gateway_that_breaks_the_protocol_is_told_and_left(certificates: Certificates, breach: str) -> None:
    async with scene(certificates) as it:
        warm, *_ = it.ask()
        peer = await it.met()
        peer.answer((await peer.request()).stream)
        await warm
        futures = it.ask(2)
        await peer.requests(2)
        if breach in ("a reset flood", "an undecodable head", "a head without end", "push", "an overlong frame"):
            peer.send(
                BREACHES[breach].replace(b"\0\0\0\1\x88", b"\0\0\0\3\x88").replace(b"\0\0\0\1\xff", b"\0\0\0\3\xff")
            )
        else:
            peer.send(BREACHES[breach])
        told = await peer.expect(FrameType.GOAWAY)
        assert int.from_bytes(told.payload[4:8], "big") != ErrorCode.NO_ERROR
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert ("unknown", "protocol") in [(getattr(r, "sent", ""), getattr(r, "reason", "")) for r in results]
        assert "broke HTTP/2" in it.pool.stats.last_trouble
        (after,) = it.ask()
        new = await it.met()
        new.answer((await new.request()).stream)
        assert (await after).status == 200
        assert it.whole()


async def test_answers_that_drip_byte_by_byte_are_put_together(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        (future,) = it.ask()
        peer = await it.met()
        got = await peer.request()
        answer = frame(FrameType.HEADERS, 0x4, got.stream, b"\x8c") + frame(
            FrameType.DATA, 0x1, got.stream, b"drip" * 20
        )
        for byte in answer:
            peer.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await future).body == b"drip" * 20


async def test_a_thousand_mutated_answers_crash_nothing(certificates: Certificates) -> None:
    rng = random.Random(11)
    async with scene(certificates, max_waiting=100, backoff_base=0.001, backoff_cap=0.002) as it:
        answered = failed = 0

        async def misbehave(peer: Peer) -> None:
            try:
                await peer.hello()
                while True:
                    got = await peer.request()
                    answer = bytearray(
                        frame(FrameType.HEADERS, 0x4, got.stream, b"\x8c\x00\x07apns-id\x03one")
                        + frame(FrameType.DATA, 0x1, got.stream, b'{"reason":"x"}')
                    )
                    for _ in range(rng.randrange(3)):
                        answer[rng.randrange(len(answer))] = rng.randrange(256)
                    peer.send(bytes(answer))
            except (asyncio.IncompleteReadError, ConnectionError, KeyError):
                return

        async def accept() -> None:
            while True:
                serving.add(asyncio.ensure_future(misbehave(await it.server.accept())))

        serving: set[asyncio.Future[None]] = set()
        accepting = asyncio.ensure_future(accept())
        for _ in range(250):
            futures = it.ask(4)
            for _ in range(200):
                if all(future.done() for future in futures):
                    break
                await settle()
                await asyncio.sleep(0)
            await it.pass_time(20.0)
            await it.pass_time(20.0)
            for result in await asyncio.gather(*futures, return_exceptions=True):
                if isinstance(result, Exception):
                    assert getattr(result, "reason", "") in (
                        *(
                            "protocol",
                            "malformed",
                            "timeout",
                            "reset",
                            "goaway",
                            "closed",
                            "ping",
                            "settings",
                            "connect",
                        ),
                        *("refused",),
                    )
                    failed += 1
                else:
                    answered += 1
        assert answered > 100
        assert failed > 100
        await it.tick()
        assert it.pool.in_flight == 0
        accepting.cancel()
        for task in serving:
            task.cancel()
