"""The connections of the HTTP/1.1 client: requests that are started together, turns, idle times, cancellations."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fanout.plugin import Http1Client, Http1Settings, client_tls
from tests.http1.failing import Results, until, warm

pytestmark = pytest.mark.anyio


async def test_requests_that_are_started_together(server: Any) -> None:
    """As many as there are idle connections, each with its own field; answers of one turn come in one call, and none
    before `start` has returned."""
    async with server.client(connections=4) as client:
        results = Results()
        every = [f"/{n}" for n in range(6)]

        def start(**options: Any) -> list[int]:
            values = [f"v{n}" for n in range(6)]
            return list(
                client.start(results, "POST", server.url, every, {"X-A": "b"}, ("X-N", values), b"xyz", **options)
            )

        assert start() == [0, 1, 2, 3, 4, 5], "nothing is connected"
        await asyncio.gather(*[client.request("POST", f"{server.url}/", {}) for _ in range(4)])
        assert start() == [4, 5]
        assert not results.by_index
        await until(lambda: len(results.by_index) == 4)
        assert results.by_index == dict.fromkeys(range(4), 200)
        assert sorted(server.heads[4:]) == [
            f"POST /{n} HTTP/1.1\r\nHost: localhost:{server.port}\r\nX-A: b\r\nContent-Length: 3\r\nX-N: v{n}\r\n\r\n".encode()
            for n in range(4)
        ]
        assert server.bodies[4:] == [b"xyz"] * 4
        results = Results()
        assert start(fresh=True) == [4, 5], "all have just answered their second"
        await until(lambda: len(results.by_index) == 4)
    assert start() == [0, 1, 2, 3, 4, 5]


async def test_what_was_started_and_is_awaited_no_more_frees_its_connection(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with server.client(connections=2) as client:
        await asyncio.gather(*[client.request("POST", f"{server.url}/", {}) for _ in range(2)])
        server.say = say
        results = Results()
        client.start(results, "POST", server.url, ["/0", "/1"], {}, ("X-N", ["0", "1"]))
        await until(lambda: len(server.heads) == 4)
        results.dropped = {0}
        server.say = server.ok
        assert (await client.request("POST", f"{server.url}/", {}, patience=60)).status == 200
        assert not results.by_index
    await until(lambda: len(results.by_index) == 1)
    assert results.by_index == {1: ("unknown", "closed")}


async def test_a_receiver_that_raises_costs_no_other_its_answer(server: Any) -> None:
    class Raising(Results):
        def answered(self, results: list[Any]) -> None:
            raise RuntimeError("its own fault")

    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: said.append(context))
    async with server.client(connections=2) as client:
        await asyncio.gather(*[client.request("POST", f"{server.url}/", {}) for _ in range(2)])
        results = Results()
        for receiver in (Raising(), results):
            assert not client.start(receiver, "POST", server.url, ["/secret"], {}, ("X-N", ["0"]))
        await until(lambda: bool(results.by_index) and bool(said))
        assert results.by_index == {0: 200}
        assert "secret" not in str(said)
    asyncio.get_running_loop().set_exception_handler(None)


async def test_a_fresh_request_waits_its_turn_and_opens_no_connection_too_many(server: Any) -> None:
    release, most = asyncio.Event(), 0

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        await release.wait()
        await server.ok(head, writer)

    server.say = say
    async with server.client(connections=2, request_timeout=120) as client:
        requests = [client.request("POST", f"{server.url}/{n}", {}, fresh=n % 2 == 1) for n in range(12)]
        tasks = [asyncio.ensure_future(each) for each in requests]
        await until(lambda: len(server.heads) == 2)
        session: Any = client._session
        (host,) = session._hosts.values()
        release.set()
        while not all(task.done() for task in tasks):
            most = max(most, host.open)
            await asyncio.sleep(0)
        assert {task.result().status for task in tasks} == {200}
        assert most == 2
    assert len(server.heads) == 12


async def test_connections_are_closed_when_they_were_idle_for_too_long(server: Any) -> None:
    async with server.client(keep_alive=0.05) as client:
        await warm(client, server)
        session: Any = client._session
        (host,) = session._hosts.values()
        await until(lambda: not host.open)


async def test_cancelled_requests_leave_the_queue_and_the_dialling(server: Any) -> None:
    looked_up = asyncio.Event()

    async def resolver(host: str, port: int) -> list[str]:
        looked_up.set()
        await asyncio.Event().wait()
        raise AssertionError

    context = client_tls(ca_file=str(server.authority.ca_file), alpn=("http/1.1",))
    async with Http1Client(ssl_context=context, resolver=resolver, settings=Http1Settings(connections=1)) as client:
        tasks = [asyncio.ensure_future(client.request("POST", f"{server.url}/", {})) for _ in range(2)]
        await looked_up.wait()
        looked_up.clear()
        tasks[0].cancel()
        await asyncio.wait((tasks[0],))
        await looked_up.wait()  # the one that waited connects in its place
        tasks[1].cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        session: Any = client._session
        (host,) = session._hosts.values()
        await until(lambda: not host.open)
        assert not host.waiting
        assert not session._under_way


async def test_the_end_of_a_connection_that_came_with_the_answer_is_read_before_the_next_request(server: Any) -> None:
    """No field says it: the server answers and ends the connection, and the requests that wait have another one."""

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        await server.ok(head, writer)
        writer.close()

    server.say = say
    async with server.client(connections=1, request_timeout=60) as client:
        requests = [client.request("POST", f"{server.url}/{n}", {}, patience=60) for n in range(5)]
        assert [answer.status for answer in await asyncio.gather(*requests)] == [200] * 5
    assert server.connections == 5
