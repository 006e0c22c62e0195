"""Servers that mean harm, or keep no connection: what they cost is their own."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fanout.plugin import Http1Client, Http1Settings, RequestFailed, client_tls

pytestmark = pytest.mark.anyio


async def failure(client: Http1Client, url: str, **options: Any) -> tuple[str, str]:
    with pytest.raises(RequestFailed) as caught:
        await client.request("POST", url, {}, b"body", **options)
    return caught.value.sent, caught.value.reason


async def warm(client: Http1Client, server: Any) -> None:
    assert (await client.request("POST", f"{server.url}/", {}, timeout=30)).status == 200


FLOODS = {
    "interim": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "blank lines": (b"", b"\r\n"),
    "header fields": (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "one field": (b"HTTP/1.1 200 OK\r\nA: ", b"b" * 64),
}
FLOODS_OF_BODY = {
    "chunk extensions": (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"e" * 64),
    "tiny chunks": (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nz\r\n"),
    "trailers": (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"T: x\r\n"),
    "a body without end": (b"HTTP/1.1 201 Created\r\n\r\n", b"x" * 64),
}


def flooding(server: Any, start: bytes, piece: bytes) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        block = piece * (262_144 // len(piece))
        while not writer.is_closing():
            writer.write(block)
            await writer.drain()

    server.say = say


async def longest_stall(during: asyncio.Future[Any]) -> float:
    """CPU seconds of this process that one turn of the loop took at most, until `during` is done."""
    longest = 0.0
    while not during.done():
        began = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - began)
    return longest


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_without_an_answer_ends_by_itself_and_stalls_nobody(server: Any, kind: str) -> None:
    async with server.client() as client:
        await warm(client, server)
        flooding(server, *FLOODS[kind])
        future = asyncio.ensure_future(failure(client, f"{server.url}/", timeout=60))
        stall = await longest_stall(future)
        assert future.result()[0] == "unknown"
        assert future.result()[1] in ("protocol", "malformed")
        assert stall < 1.0  # of CPU, the server's own writing included; without limits it is seconds
        server.say = server.ok
        await warm(client, server)


@pytest.mark.parametrize("kind", FLOODS_OF_BODY)
async def test_a_flood_behind_the_status_leaves_the_status(server: Any, kind: str) -> None:
    async with server.client() as client:
        await warm(client, server)
        flooding(server, *FLOODS_OF_BODY[kind])
        response = await client.request("POST", f"{server.url}/", {}, timeout=60)
        assert response.status == 201
        server.say = server.ok
        await warm(client, server)
        assert server.connections == 2


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 204 No Content\r\n\r\nbody",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody",
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nabcdef",
        b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\ngarbage",
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 201 Created\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    ],
)
async def test_a_push_answered_2xx_is_taken_whatever_follows(server: Any, said: bytes) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    async with server.client() as client:
        server.say = say
        assert (await client.request("POST", f"{server.url}/", {}, timeout=30)).status in (201, 204)
        server.say = server.ok
        assert (await client.request("POST", f"{server.url}/next", {}, timeout=30)).status == 200
    assert server.connections == 2
    assert len(server.heads) == 2


async def test_a_server_that_resets_what_is_used_again_costs_a_fresh_request_nothing(server: Any) -> None:
    """Each connection answers once, and is reset by the second request on it."""
    answered: set[asyncio.StreamWriter] = set()

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        if writer in answered:
            writer.transport.abort()
            return
        answered.add(writer)
        await server.ok(head, writer)

    server.say = say
    async with server.client(connections=4, connect_timeout=60) as client:
        tasks = [client.request("POST", f"{server.url}/{n}", {}, fresh=True, timeout=60) for n in range(40)]
        assert [response.status for response in await asyncio.gather(*tasks)] == [200] * 40
    assert len(server.heads) == 40


async def test_where_connections_are_kept_a_fresh_request_uses_one_that_has_just_answered(server: Any) -> None:
    now = 1000.0
    context = client_tls(ca_file=str(server.authority.ca_file), alpn=("http/1.1",))
    async with Http1Client(ssl_context=context, clock=lambda: now) as client:
        for _ in range(2):  # the second answer on one connection shows that the host keeps them
            await warm(client, server)
        assert server.connections == 1
        assert (await client.request("POST", f"{server.url}/", {}, fresh=True)).status == 200
        assert server.connections == 1
        now += 1.5
        assert (await client.request("POST", f"{server.url}/", {}, fresh=True)).status == 200
        assert server.connections == 2


async def test_what_was_connected_before_a_suspend_is_not_used(server: Any) -> None:
    now = 1000.0
    context = client_tls(ca_file=str(server.authority.ca_file), alpn=("http/1.1",))
    async with Http1Client(ssl_context=context, clock=lambda: now) as client:
        await warm(client, server)
        await warm(client, server)
        assert server.connections == 1
        now += 20.0  # less than the time for which connections are kept, but the loop's clock stood still
        await warm(client, server)
        assert server.connections == 2


async def test_with_a_request_that_timed_out_go_the_idle_connections_that_are_older(server: Any) -> None:
    hold = asyncio.Event()

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"POST /both" in head:
            await hold.wait()
        if b"POST /lost" in head:
            await asyncio.Event().wait()
        await server.ok(head, writer)

    server.say = say
    context = client_tls(ca_file=str(server.authority.ca_file), alpn=("http/1.1",))
    async with Http1Client(ssl_context=context, settings=Http1Settings(connections=3)) as client:
        both = [asyncio.ensure_future(client.request("POST", f"{server.url}/both", {})) for _ in range(3)]
        while len(server.heads) < 3:
            await asyncio.sleep(0.001)
        hold.set()
        await asyncio.gather(*both)
        assert server.connections == 3
        assert await failure(client, f"{server.url}/lost", timeout=0.3) == ("unknown", "timeout")
        younger = server.connections
        again = [client.request("POST", f"{server.url}/", {}) for _ in range(3)]
        assert [response.status for response in await asyncio.gather(*again)] == [200] * 3
        assert server.connections > younger
