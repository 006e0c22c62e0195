"""The HTTP/1.1 client: requests, answers, connections, deadlines and closing."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from fanout.plugin import Deferred, Http1Client, Http1Settings, RequestFailed, client_tls, unanswered
from tests.http1.failing import failure, until, warm

pytestmark = pytest.mark.anyio


async def test_a_request_is_sent_as_it_is(server: Any) -> None:
    async with server.client() as client:
        response = await client.request("POST", f"{server.url}/?token=a%2bb//../c&d", {"X-A": "b"}, b"body")
    assert (response.status, response.body) == (200, b"")
    assert server.heads == [
        f"POST /?token=a%2bb//../c&d HTTP/1.1\r\nHost: localhost:{server.port}\r\nX-A: b\r\nContent-Length: 4\r\n\r\n".encode()
    ]
    assert server.bodies == [b"body"]


async def test_an_empty_body_and_another_host_header(server: Any) -> None:
    async with server.client() as client:
        await client.request("POST", f"{server.url}/", {"Host": "a.notify.windows.com"})
    assert server.heads[0].count(b"Host:") == 1
    assert b"Host: a.notify.windows.com\r\n" in server.heads[0]
    assert b"Content-Length: 0\r\n" in server.heads[0]


async def test_headers_and_body_of_the_answer(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 418 Teapot\r\nX-WNS-Status: dropped\r\nX-Two: 1\r\nx-two: 2\r\nContent-Length: 5\r\n\r\nhe"
        )
        await writer.drain()
        writer.write(b"llo")

    server.say = say
    async with server.client() as client:
        response = await client.request("POST", f"{server.url}/", {})
    assert (response.status, response.body) == (418, b"hello")
    assert response.header("x-wns-status") == "dropped"
    assert response.header("absent") is None
    assert response.headers()[:3] == [("x-wns-status", "dropped"), ("x-two", "1"), ("x-two", "2")]


async def test_connections_are_kept_and_bounded(server: Any) -> None:
    async with server.client(connections=3) as client:
        for _ in range(4):
            await asyncio.gather(*[client.request("POST", f"{server.url}/", {}) for _ in range(12)])
    assert len(server.heads) == 48
    assert 1 <= server.connections <= 3


async def test_retired_connections_carry_no_further_request(server: Any) -> None:
    """What is idle is closed; what is under way is awaited, and its connection is not used again."""
    held = asyncio.Event()

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"POST /held" in head:
            await held.wait()
        await server.ok(head, writer)

    async with server.client(connections=4) as client:
        client.retire()  # before the first request, too
        await warm(client, server)
        server.say = say
        server.arrived.clear()
        under_way = asyncio.ensure_future(client.request("POST", f"{server.url}/held", {}))
        await server.arrived.wait()
        assert server.connections == 1
        client.retire()
        held.set()
        assert (await under_way).status == 200
        for _ in range(3):
            await warm(client, server)
        assert server.connections == 2, "one new one, and it is kept"


async def test_one_host_does_not_use_up_anothers_connections(server: Any) -> None:
    held = asyncio.Event()

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"POST /held" in head:
            await held.wait()
        await server.ok(head, writer)

    server.say = say
    async with server.client(connections=2) as client:
        hung = [asyncio.ensure_future(client.request("POST", f"{server.url}/held", {})) for _ in range(8)]
        await server.arrived.wait()
        other = server.url.replace("localhost", "127.0.0.1")
        assert (await client.request("POST", f"{other}/free", {})).status == 200
        held.set()
        assert {response.status for response in await asyncio.gather(*hung)} == {200}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_an_answer(server: Any, status: int) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(
            f"HTTP/1.1 {status} Moved\r\nLocation: {server.url}/elsewhere\r\nContent-Length: 0\r\n\r\n".encode()
        )

    server.say = say
    async with server.client() as client:
        assert (await client.request("POST", f"{server.url}/", {})).status == status
    assert len(server.heads) == 1


async def test_cookies_are_not_kept(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n")

    server.say = say
    async with server.client() as client:
        for _ in range(2):
            await client.request("POST", f"{server.url}/", {})
    assert b"ookie" not in server.heads[1]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10000000\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"]
)
async def test_an_endless_answer_is_cut(server: Any, framing: bytes) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
        piece = b"x" * 4096
        while True:
            writer.write(b"1000\r\n" + piece + b"\r\n" if framing.startswith(b"Transfer") else piece)
            await writer.drain()

    server.say = say
    async with server.client(max_body=10_000) as client:
        response = await client.request("POST", f"{server.url}/", {})
    assert (response.status, response.body) == (200, b"x" * 10_000)


async def test_a_compressed_answer_stays_compressed(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbomb")

    server.say = say
    async with server.client() as client:
        assert (await client.request("POST", f"{server.url}/", {})).body == b"bomb"


async def test_the_status_stands_though_the_body_breaks_off(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    server.say = say
    async with server.client() as client:
        response = await client.request("POST", f"{server.url}/", {})
    assert (response.status, response.body) == (200, b"half")


async def test_the_status_stands_though_the_body_never_ends(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.Event().wait()

    async with server.client() as client:
        await warm(client, server)
        server.say = say
        response = await client.request("POST", f"{server.url}/", {}, timeout=0.2)
    assert (response.status, response.body) == (200, b"half")


async def test_a_cancellation_at_the_moment_of_the_deadline_is_not_swallowed(server: Any) -> None:
    """The deadline ends the request, and before its task notices, its caller cancels it."""
    started = asyncio.Event()

    async def resolver(host: str, port: int) -> list[str]:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    context = client_tls(ca_file=str(server.authority.ca_file), alpn=("http/1.1",))
    async with Http1Client(ssl_context=context, resolver=resolver) as client:
        task = asyncio.ensure_future(client.request("POST", f"{server.url}/", {}, timeout=0.001))
        await started.wait()
        session: Any = client._session
        await asyncio.sleep(0.002)
        session._tick()
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()


async def test_many_deadlines_are_each_kept(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server.say = say
    loop = asyncio.get_running_loop()
    async with server.client() as client:

        async def one(timeout: float) -> float:
            begun = loop.time()
            assert (await failure(client, f"{server.url}/", timeout=timeout))[1] == "timeout"
            return loop.time() - begun - timeout

        late = await asyncio.gather(*[one(0.3 + n / 20) for n in range(20)])
    assert min(late) >= 0


async def test_the_wait_for_a_connection_of_our_own_is_no_failure_of_the_server(server: Any) -> None:
    """The server takes longer than `connect_timeout` for an answer: what waits for its connection goes on waiting, then
    is served."""
    release = asyncio.Event()

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await server.ok(head, writer)

    async with server.client(connections=1, connect_timeout=0.2, request_timeout=120.0) as client:
        await warm(client, server)
        server.say = say
        answered = asyncio.ensure_future(client.request("POST", f"{server.url}/1", {}))
        await until(lambda: len(server.heads) == 2)
        waiting = asyncio.ensure_future(client.request("POST", f"{server.url}/2", {}))
        with pytest.raises(RequestFailed) as caught:
            await client.request("POST", f"{server.url}/3", {}, patience=0.6)
        failed = caught.value
        assert unanswered(failed.sent, failed.reason, **failed.evidence) == Deferred("timeout")
        assert not waiting.done()
        release.set()
        assert (await answered).status == (await waiting).status == 200
    assert server.connections == 1


async def test_the_server_has_its_whole_time_after_the_wait_for_a_connection(server: Any) -> None:
    """Half of the deadline may go by in our own queue; the answer may take the whole of it after that."""
    release = asyncio.Event()

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        if not release.is_set():
            await release.wait()
            await server.ok(head, writer)

    async with server.client(connections=1) as client:
        await warm(client, server)
        server.say = say
        answered = asyncio.ensure_future(client.request("POST", f"{server.url}/1", {}, timeout=30))
        await until(lambda: len(server.heads) == 2)
        begun = asyncio.get_running_loop().time()
        waiting = asyncio.ensure_future(failure(client, f"{server.url}/2", timeout=0.4, patience=60))
        await asyncio.wait((waiting,), timeout=0.8)
        assert not waiting.done()
        release.set()
        assert (await answered).status == 200
        sent = asyncio.get_running_loop().time()
        assert await waiting == ("unknown", "timeout")
        assert asyncio.get_running_loop().time() - sent >= 0.3 < sent - begun


async def test_after_a_blocked_loop_answers_go_before_deadlines(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await release.wait()
        await server.ok(head, writer)

    arrived, release = asyncio.Event(), asyncio.Event()
    async with server.client() as client:
        await warm(client, server)
        server.say = say
        request = asyncio.ensure_future(client.request("POST", f"{server.url}/", {}, timeout=1000))
        await arrived.wait()
        session: Any = client._session
        (attempt,) = session._under_way
        # As if the loop had stood still: the look at the deadlines is late, and the deadline is over.
        attempt.deadline = session._loop.time() - 1
        session._timer.cancel()
        session._timer = Mock(asyncio.TimerHandle, when=lambda: session._loop.time() - 5)
        session._tick()
        release.set()
        session._timer.cancel()
        assert (await request).status == 200
        session._timer = None


async def test_an_answer_that_nobody_asked_for_is_nobodys(server: Any) -> None:
    """It comes on an idle connection; taken for the next request's, it would shift every answer after it by one."""
    answered = asyncio.Event()

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        number = head.split(b" ")[1].strip(b"/")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Number: " + number + b"\r\nContent-Length: 0\r\n\r\n")
        if number == b"0":
            await answered.wait()
            writer.write(b"HTTP/1.1 500 Unasked\r\nContent-Length: 0\r\n\r\n")

    server.say = say
    async with server.client(connections=1) as client:
        for number in range(4):
            response = await client.request("POST", f"{server.url}/{number}", {})
            assert (response.status, response.header("x-number")) == (200, str(number))
            if number == 0:
                answered.set()
                session: Any = client._session
                await until(lambda session=session: not any(host.wires for host in session._hosts.values()))  # type: ignore[misc]
    assert server.connections == 2


async def test_a_cancelled_request_harms_no_other(server: Any) -> None:
    release = asyncio.Event()

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await server.ok(head, writer)

    server.say = say
    async with server.client(connections=2) as client:
        tasks = [asyncio.ensure_future(client.request("POST", f"{server.url}/{n}", {})) for n in range(6)]
        await server.arrived.wait()
        for task in tasks[::2]:
            task.cancel()
        await asyncio.wait(tasks[::2])
        assert all(task.cancelled() for task in tasks[::2])
        release.set()
        assert [response.status for response in await asyncio.gather(*tasks[1::2])] == [200, 200, 200]


async def test_closing_ends_what_is_under_way_and_what_waits(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server.say = say
    client = server.client(connections=1)
    tasks = [asyncio.ensure_future(failure(client, f"{server.url}/")) for _ in range(3)]
    await server.arrived.wait()
    await client.aclose()
    results = await asyncio.gather(*tasks)
    assert sorted(results) == [("no", "closed"), ("no", "closed"), ("unknown", "closed")]
    assert await failure(client, f"{server.url}/") == ("no", "closed")
    await client.aclose()


async def test_closing_while_connecting_ends_the_request(server: Any) -> None:
    started = asyncio.Event()

    async def resolver(host: str, port: int) -> list[str]:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    context = client_tls(ca_file=str(server.authority.ca_file), alpn=("http/1.1",))
    client = Http1Client(ssl_context=context, resolver=resolver)
    task = asyncio.ensure_future(failure(client, f"{server.url}/"))
    await started.wait()
    await client.aclose()
    assert await task == ("no", "closed")


def test_numbers_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="connections"):
        Http1Settings(connections=0)
