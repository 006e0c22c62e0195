"""The pool over TLS on loopback: requests, answers, limits, cancellation, closing."""

from __future__ import annotations

import asyncio
import gc
import ssl

import pytest

from fanout.http import H2Pool, Head, PoolSettings, RequestFailed, literal
from fanout.http.frames import ErrorCode, FrameType, Setting, frame, rst_stream, settings, settings_ack
from tests.http.gateway import HEAD, Certificates, failure, gateway, scene, settle, until

pytestmark = pytest.mark.anyio


async def test_a_request_is_answered(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    async with gateway(certificates.server()) as server, H2Pool(server.url, ssl_context=trusting) as pool:
        head = Head("POST", "https", pool.authority, [("apns-topic", "com.example.app"), ("apns-priority", "10")])
        future = pool.request(head, b"/3/device/abc", literal("apns-id", "one"), b'{"aps":{}}')
        peer = await server.accept()
        theirs = await peer.hello()
        assert theirs[1] == 0
        assert theirs[2] == 0
        got = await peer.request()
        assert got.body == b'{"aps":{}}'
        assert got.headers == {
            ":method": "POST",
            ":scheme": "https",
            ":authority": pool.authority,
            ":path": "/3/device/abc",
            "apns-topic": "com.example.app",
            "apns-priority": "10",
            "apns-id": "one",
        }
        peer.answer(got.stream, b"\x88\x00\x07apns-id\x03one")
        response = await future
        assert response.status == 200
        assert response.body == b""
        assert response.header("apns-id") == "one"
        assert response.header("nothing") is None
        assert pool.in_flight == 0
        assert pool.capacity() == 500


async def test_closing_resolves_what_is_pending_and_leaves_nothing(
    certificates: Certificates, trusting: ssl.SSLContext
) -> None:
    tasks = asyncio.all_tasks()
    async with gateway(certificates.server()) as server:
        async with H2Pool(server.url, ssl_context=trusting, settings=PoolSettings(streams=1, connections=1)) as pool:
            sent, waiting = (pool.request(HEAD, b"/", b"", b"x") for _ in range(2))
            peer = await server.accept()
            await peer.hello()
            await peer.request()
            assert pool.in_flight == 2
        assert await failure(sent) == ("unknown", "closed")
        assert await failure(waiting) == ("no", "closed")
        assert all(future.exception().own for future in (sent, waiting)), "what we close says nothing of the gateway"  # type: ignore[union-attr]
        assert (await peer.expect(FrameType.GOAWAY)).payload[4:] == bytes(4)
        assert await peer.reader.read() == b""
        await asyncio.gather(pool.aclose(), pool.aclose())
        assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", "closed")
    assert asyncio.all_tasks() == tasks
    gc.collect()  # a socket left open would warn, and a warning is an error


async def test_nothing_is_sent_before_the_servers_settings(certificates: Certificates) -> None:
    async with scene(certificates) as (server, pool, _):
        future = pool.request(HEAD, b"/", b"", b"x")
        peer = await server.accept()
        assert (await peer.reader.readexactly(24))[:3] == b"PRI"
        await peer.expect(FrameType.SETTINGS)
        await peer.expect(FrameType.WINDOW_UPDATE)
        await settle()
        assert not peer.reader._buffer  # type: ignore[attr-defined]
        assert pool.in_flight == 1
        peer.send(settings([]), settings_ack())
        peer.answer((await peer.request()).stream)
        assert (await future).status == 200


async def test_what_a_request_carries_reaches_its_own_future(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        futures = it.ask(50)
        peer = await it.met()
        for got in reversed(await peer.requests(50)):
            number = got.headers[":path"][1:]
            peer.answer(got.stream, b"\x8c" + literal("echo", number), number.encode())
        for number, future in enumerate(futures):
            response = await future
            assert (response.status, response.header("echo"), response.body) == (400, str(number), str(number).encode())
        assert it.whole()


async def test_the_servers_limit_is_kept_as_it_moves(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        futures = it.ask(10)
        peer = await it.met((Setting.MAX_CONCURRENT_STREAMS, 4))
        first = await peer.requests(4)
        assert it.pool.capacity() == 4
        peer.send(settings([(Setting.MAX_CONCURRENT_STREAMS, 1)]))
        await peer.expect(FrameType.SETTINGS)
        assert it.pool.capacity() == 1
        for got in first[:3]:
            peer.answer(got.stream)
        await asyncio.gather(*futures[:3])
        await settle()
        assert not peer.reader._buffer  # type: ignore[attr-defined]
        peer.answer(first[3].stream)
        one = await peer.request()
        peer.send(settings([(Setting.MAX_CONCURRENT_STREAMS, 0)]))
        peer.answer(one.stream)
        await futures[4]
        assert it.pool.capacity() == 0
        assert it.pool.in_flight == 5
        peer.send(settings([(Setting.MAX_CONCURRENT_STREAMS, 1000)]))
        for got in await peer.requests(5):
            peer.answer(got.stream)
        assert {(await future).status for future in futures} == {200}
        assert it.pool.capacity() == 500
        assert it.whole()


async def test_a_second_connection_opens_when_the_first_is_more_than_half_used(certificates: Certificates) -> None:
    async with scene(certificates, connections=2, streams=4) as it:
        futures = it.ask(2)
        one = await it.met()
        first = await one.requests(2)
        await settle()
        assert it.server.connects == 1
        futures += it.ask(1)
        two = await it.met()
        await until(lambda: it.pool.capacity() == 8)
        first.append(await one.request())
        futures += it.ask(4)  # the least used first: three to the second, then one more to either
        second = await two.requests(3)
        assert it.server.connects == 2
        for got in first:
            one.answer(got.stream)
        for got in second:
            two.answer(got.stream)
        serving = asyncio.gather(one.serve(), two.serve())
        assert {(await future).status for future in futures} == {200}
        assert it.whole()
        serving.cancel()


async def test_a_new_connection_carries_one_request_until_it_is_believed(certificates: Certificates) -> None:
    async with scene(certificates, first_alone=True, connections=2) as it:
        futures = it.ask(5)
        peer = await it.met()
        for status in (b"\x08\x03403", b"\x08\x03401"):
            got = await peer.request()
            await settle()
            assert not peer.reader._buffer  # type: ignore[attr-defined]
            assert it.pool.capacity() == 1
            peer.answer(got.stream, status)
        got = await peer.request()
        peer.answer(got.stream, b"\x8c", b"{}")
        for got in await peer.requests(2):
            peer.answer(got.stream)
        assert [(await future).status for future in futures] == [403, 401, 400, 200, 200]
        assert it.pool.capacity() == 500
        assert it.server.connects == 1
        assert it.whole()


async def test_a_cancelled_caller_resets_its_stream_and_no_other(certificates: Certificates) -> None:
    async with scene(certificates, streams=2) as it:
        kept, dropped, waiting, after = it.ask(4)
        peer = await it.met()
        first, second = await peer.requests(2)
        dropped.cancel()
        waiting.cancel()
        await it.tick()
        reset = await peer.expect(FrameType.RST_STREAM)
        assert (reset.stream, reset.payload) == (second.stream, ErrorCode.CANCEL.to_bytes(4, "big"))
        third = await peer.request()
        assert third.headers[":path"] == "/3"
        peer.answer(second.stream)
        peer.answer(first.stream)
        peer.answer(third.stream)
        assert (await kept).status == (await after).status == 200
        assert it.pool.stats.cancelled == 1
        assert it.whole()


async def test_an_answer_that_crosses_a_cancellation_is_dropped(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        dropped, kept = it.ask(2)
        peer = await it.met()
        first, second = await peer.requests(2)
        dropped.cancel()
        peer.answer(first.stream)
        peer.answer(second.stream)
        assert (await kept).status == 200
        await it.tick()
        assert it.whole()


async def test_a_caller_who_leaves_while_waiting_is_passed_over(certificates: Certificates) -> None:
    async with scene(certificates, streams=1) as it:
        first, left, last = it.ask(3)
        peer = await it.met()
        got = await peer.request()
        left.cancel()
        peer.answer(got.stream)
        assert (await first).status == 200
        got = await peer.request()
        assert got.headers[":path"] == "/2"
        peer.answer(got.stream)
        assert (await last).status == 200
        assert it.whole()


async def test_refusals_are_known_not_to_be_sent_and_other_resets_are_not(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        refused, reset, done = it.ask(3)
        peer = await it.met()
        first, second, third = await peer.requests(3)
        peer.send(
            rst_stream(first.stream, ErrorCode.REFUSED_STREAM),
            rst_stream(second.stream, ErrorCode.INTERNAL_ERROR),
            frame(FrameType.HEADERS, 0x4, third.stream, b"\x8c"),
            frame(FrameType.DATA, 0x1, third.stream, b"why"),
            rst_stream(third.stream, ErrorCode.NO_ERROR),
        )
        assert await failure(refused) == ("no", "refused")
        assert await failure(reset) == ("unknown", "reset")
        assert (await done).body == b"why"
        await it.tick()
        assert it.whole()


async def test_a_connection_that_refuses_is_spared_until_the_next_tick(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        refused, *_ = it.ask()
        peer = await it.met()
        peer.send(rst_stream((await peer.request()).stream, ErrorCode.REFUSED_STREAM))
        assert await failure(refused) == ("no", "refused")
        again, *_ = it.ask()
        await settle()
        assert not peer.reader._buffer  # type: ignore[attr-defined]
        await it.tick()
        peer.answer((await peer.request()).stream)
        assert (await again).status == 200
        assert it.whole()


async def test_more_than_may_wait_is_refused_at_once(certificates: Certificates) -> None:
    async with scene(certificates, max_waiting=3, streams=1) as it:
        futures = it.ask(3)
        (over,) = it.ask()
        assert await failure(over) == ("no", "overload")
        assert over.exception().own
        peer = await it.met()
        serving = asyncio.ensure_future(peer.serve())
        assert {(await future).status for future in futures} == {200}
        assert it.whole()
        serving.cancel()


async def test_a_server_that_does_not_read_stops_us_and_memory_stays_bounded(certificates: Certificates) -> None:
    async with scene(certificates, max_waiting=50) as it:
        warm, *_ = it.ask()
        peer = await it.met((Setting.INITIAL_WINDOW_SIZE, 2**31 - 1), (Setting.MAX_CONCURRENT_STREAMS, 10_000))
        peer.send(frame(FrameType.WINDOW_UPDATE, 0, 0, (2**30).to_bytes(4, "big")))
        peer.answer((await peer.request()).stream)
        await warm
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        futures = []
        for _ in range(5000):
            futures += it.ask(body=b"x" * 16_000)
            await asyncio.sleep(0)
            if futures[-1].done():
                break
        assert await failure(futures[-1]) == ("no", "overload")
        (connection,) = it.pool._ready
        assert connection.limit == 0
        assert it.pool.capacity() == 500
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() < 4_000_000
        peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
        serving = asyncio.ensure_future(peer.serve())
        assert {(await future).status for future in futures[:-1]} == {200}
        assert it.whole()
        serving.cancel()


async def test_an_interrupted_exchange_of_many_sizes_goes_through_small_windows(certificates: Certificates) -> None:
    async with scene(certificates) as it:
        bodies = [b"b" * size for size in (0, 1, 100, 4096, 70_000, 16_384, 16_385)]
        futures = [it.pool.request(HEAD, b"/", b"", body) for body in bodies]
        peer = await it.met((Setting.INITIAL_WINDOW_SIZE, 1000))
        received: dict[int, int] = {}
        ended: list[int] = []
        while len(ended) < len(bodies):
            got = await peer.frame()
            if got.kind in (FrameType.HEADERS, FrameType.DATA):
                size = len(got.payload) if got.kind == FrameType.DATA else 0
                received[got.stream] = received.get(got.stream, 0) + size
                if size:
                    update = size.to_bytes(4, "big")
                    peer.send(
                        frame(FrameType.WINDOW_UPDATE, 0, 0, update),
                        frame(FrameType.WINDOW_UPDATE, 0, got.stream, update),
                    )
                if got.flags & 1:
                    ended.append(got.stream)
                    peer.answer(got.stream)
        assert [received[stream] for stream in sorted(received)] == [len(body) for body in bodies]
        assert {(await future).status for future in futures} == {200}
        assert it.whole()


@pytest.mark.parametrize("url", ["ftp://a.test", "https://", "https://a.test/path", "https://user@a.test", "a.test"])
def test_a_url_that_is_no_origin_is_refused(url: str, trusting: ssl.SSLContext) -> None:
    with pytest.raises(ValueError, match=r"https://host"):
        H2Pool(url, ssl_context=trusting)


def test_tls_and_the_scheme_must_agree(trusting: ssl.SSLContext) -> None:
    for url, context in (("https://a.test", None), ("http://a.test", trusting)):
        with pytest.raises(ValueError, match="ssl_context"):
            H2Pool(url, ssl_context=context)


def test_the_authority_names_the_port_only_where_it_is_not_the_usual(trusting: ssl.SSLContext) -> None:
    for url, authority in (
        ("https://a.test", "a.test"),
        ("https://a.test:443/", "a.test"),
        ("https://a.test:2197", "a.test:2197"),
        ("https://[::1]:8443", "[::1]:8443"),
    ):
        assert H2Pool(url, ssl_context=trusting).authority == authority


@pytest.mark.parametrize("name", ["connections", "streams", "request_timeout", "tick"])
def test_a_setting_that_cannot_work_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        PoolSettings(**{name: 0})  # type: ignore[arg-type]


def test_a_failure_is_an_exception_with_its_facts() -> None:
    failed = RequestFailed("no", "refused", b"debug", 7)
    assert (failed.sent, failed.reason, failed.debug, failed.code) == ("no", "refused", b"debug", 7)
