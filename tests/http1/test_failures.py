"""The HTTP/1.1 client: a request that fails says whether it may have been sent."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from fanout.plugin import Http1Client, Http1Settings, RequestFailed, client_tls
from tests.http1.failing import Results, failure, warm

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "said", [b"garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 50_000]
)
async def test_what_is_no_answer_is_unknown(server: Any, said: bytes) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        await asyncio.Event().wait()

    server.say = say
    async with server.client() as client:
        assert await failure(client, f"{server.url}/?token=secret") == ("unknown", "malformed")


async def test_a_connection_that_dies_after_the_request_is_unknown(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server.say = say
    async with server.client() as client:
        assert await failure(client, f"{server.url}/?token=secret") == ("unknown", "closed")
        server.say = server.ok
        assert (await client.request("POST", f"{server.url}/", {})).status == 200
    assert len(server.heads) == 2  # a POST is never repeated behind the caller's back


async def test_an_answer_of_the_wrong_server_is_of_its_connection_and_not_of_the_request(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 421 Misdirected Request\r\nContent-Length: 2\r\n\r\nno")

    async with server.client() as client:
        server.say = say
        assert await failure(client, f"{server.url}/") == ("no", "misdirected")
        server.say = server.ok
        assert (await client.request("POST", f"{server.url}/", {})).status == 200
    assert server.connections == 2


_REFUSALS = {
    "a body cut short": (b"Content-Length: 100\r\n\r\nDomain Bl", True),
    "a body that stops": (b"Content-Length: 100\r\n\r\nDomain Bl", False),
    "a chunk cut short": (b"Transfer-Encoding: chunked\r\n\r\n64\r\nDomain", True),
    "a chunk of nonsense": (b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", False),
    "lengths that differ": (b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", False),
}


@pytest.mark.parametrize("status", [302, 400, 410, 503])
@pytest.mark.parametrize("broken", _REFUSALS)
async def test_a_refusal_without_the_whole_of_its_body_is_none(server: Any, status: int, broken: str) -> None:
    """As over HTTP/2: the part that is missing may have said why, and of whom it speaks (WNS: "Domain Blocked")."""
    said, cut = _REFUSALS[broken]

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 %d No\r\n%b" % (status, said))
        await writer.drain()
        if cut:
            writer.close()

    async with server.client() as client:
        await warm(client, server)
        server.say = say
        assert (await failure(client, f"{server.url}/", timeout=0.2))[0] == "unknown"


@pytest.mark.parametrize(
    "said", [b"Connection: close\r\n\r\nall of it", b"\r\nall of it", b"Content-Length: 9\r\n\r\nall of it"]
)
async def test_a_refusal_may_end_with_its_connection(server: Any, said: bytes) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 410 Gone\r\n" + said)
        await writer.drain()
        writer.close()

    server.say = say
    async with server.client() as client:
        response = await client.request("POST", f"{server.url}/", {})
    assert (response.status, response.body) == (410, b"all of it")


async def test_silence_after_the_request_is_unknown(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with server.client(request_timeout=1.0) as client:
        await warm(client, server)
        server.say = say
        assert await failure(client, f"{server.url}/") == ("unknown", "timeout")
        server.say = server.ok
        await warm(client, server)
        server.say = say
        assert await failure(client, f"{server.url}/", timeout=0.1) == ("unknown", "timeout")
        assert await failure(client, f"{server.url}/", timeout=0.0) == ("no", "timeout")


async def test_the_callers_own_deadline_is_the_callers(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    server.say = say
    task = asyncio.current_task()
    assert task is not None
    async with server.client() as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.request("POST", f"{server.url}/", {}, timeout=10)
        async with asyncio.timeout(10):
            assert (await failure(client, f"{server.url}/", timeout=0.2))[1] == "timeout"
        assert task.cancelling() == 0
        assert (await failure(client, f"{server.url}/", timeout=0.2))[1] == "timeout"


async def test_endless_interim_answers_are_bounded(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)

    async with server.client() as client:
        await warm(client, server)
        server.say = say
        assert await failure(client, f"{server.url}/", timeout=0.3) == ("unknown", "timeout")


async def test_a_refused_connection_is_not_sent(server: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with server.client() as client:
        assert await failure(client, f"https://127.0.0.1:{port}/") == ("no", "connect")


async def test_a_url_that_is_none_is_not_sent(server: Any) -> None:
    async with server.client() as client:
        for url in ("https:///nowhere", "nowhere", "ftp://localhost/", f"https://u:p@localhost:{server.port}/"):
            assert await failure(client, url) == ("no", "malformed")
        for target in ("/a b", "/a\r\nX: y", "/\u00e9"):
            assert await failure(client, server.url + target) == ("no", "malformed")
    assert server.connections == 0


@pytest.mark.parametrize("text", ["a\r\nX-Other: b", "a\nX-Other: b", "a\rb", "a\0b"])
async def test_a_field_that_would_be_two_is_not_sent(server: Any, text: str) -> None:
    async with server.client() as client:
        for headers in ({"X-A": text}, {text: "a"}, {"Host": text}):
            with pytest.raises(RequestFailed) as caught:
                await client.request("POST", f"{server.url}/", headers)
            assert (caught.value.sent, caught.value.reason) == ("no", "malformed")
        await warm(client, server)
        with pytest.raises(ValueError, match="line end"):
            client.start(Results(), "POST", server.url, ["/"], {}, ("X-A", [text]))
    assert len(server.heads) == 1


@pytest.mark.parametrize(("method", "sent"), [("GET", 2), ("POST", 1)])
async def test_only_a_get_is_repeated_and_only_where_a_kept_connection_was_closed(
    server: Any, method: str, sent: int
) -> None:
    """It is closed as the request comes, before a byte of an answer; on a new connection it is no accident."""
    tried = 0

    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        writer.transport.abort()

    async with server.client() as client:
        await warm(client, server)
        server.say = say
        with pytest.raises(RequestFailed) as caught:
            await client.request(method, f"{server.url}/", {})
        assert (caught.value.sent, caught.value.reason) == ("unknown", "closed")
        assert tried == sent
        with pytest.raises(RequestFailed):
            await client.request(method, f"{server.url}/", {})
        assert tried == sent + 1


async def test_waiting_for_a_connection_until_the_deadline_is_not_sent(server: Any) -> None:
    async def say(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with server.client(connections=1) as client:
        await warm(client, server)
        server.say = say
        server.arrived.clear()
        first = asyncio.ensure_future(failure(client, f"{server.url}/", timeout=30))
        await server.arrived.wait()
        assert await failure(client, f"{server.url}/", timeout=0.2) == ("no", "timeout")
        await client.aclose()
        assert await first == ("unknown", "closed")


async def test_an_unknown_host_is_not_sent(server: Any) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    context = client_tls(ca_file=str(server.authority.ca_file), alpn=("http/1.1",))
    async with Http1Client(ssl_context=context, resolver=resolver) as client:
        assert await failure(client, f"{server.url}/") == ("no", "dns")


async def test_a_lookup_that_hangs_is_bounded(server: Any) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    context = client_tls(ca_file=str(server.authority.ca_file), alpn=("http/1.1",))
    async with Http1Client(
        ssl_context=context, resolver=resolver, settings=Http1Settings(connect_timeout=0.2)
    ) as client:
        assert await failure(client, f"{server.url}/") == ("no", "connect")


async def test_a_certificate_of_another_authority_is_not_sent(server: Any) -> None:
    async with Http1Client(ssl_context=client_tls(alpn=("http/1.1",))) as client:
        assert await failure(client, f"{server.url}/") == ("no", "tls")
    assert server.heads == []


async def test_a_certificate_of_another_host_is_not_sent(server: Any) -> None:
    """The connection is pinned to an address, and the certificate must still be for the name."""

    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    context = client_tls(ca_file=str(server.authority.ca_file), alpn=("http/1.1",))
    async with Http1Client(ssl_context=context, resolver=resolver) as client:
        assert await failure(client, f"https://push.example.com:{server.port}/") == ("no", "tls")
        assert (await client.request("POST", f"{server.url}/", {})).status == 200
    assert len(server.heads) == 1


async def test_a_handshake_that_hangs_is_not_sent() -> None:
    def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    listening = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    settings = Http1Settings(connect_timeout=0.2, request_timeout=5.0)
    async with Http1Client(ssl_context=client_tls(alpn=("http/1.1",)), settings=settings) as client:
        assert await failure(client, f"https://127.0.0.1:{port}/") == ("no", "connect")
        assert await failure(client, f"https://127.0.0.1:{port}/", timeout=0.1) in [
            ("no", "connect"),
            ("no", "timeout"),
        ]
    for writer in writers:
        writer.close()
    listening.close()
    await listening.wait_closed()
