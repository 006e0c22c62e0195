"""Through an egress proxy: the tunnel stands before TLS, for HTTP/2 and HTTP/1.1; what a proxy does wrong costs nothing
but time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fanout.core.proxy import Egress, Proxy, parse_proxy
from fanout.http import (
    GuardedResolver,
    H2Pool,
    HostGuard,
    Http1Client,
    PoolSettings,
    RequestFailed,
    client_tls,
    fetch_token,
)
from fanout.http.tokens import TokenError
from tests.http.gateway import HEAD, Certificates, failure, gateway, until
from tests.http.proxies import squid, tinyproxy, tunnels

pytestmark = pytest.mark.anyio


def always(proxy: Proxy) -> Egress:
    return lambda host, port: proxy


def pool_of(url: str, certificates: Certificates, proxy: Proxy, **more: Any) -> H2Pool:
    context = client_tls(ca_file=certificates.ca)
    return H2Pool(url, ssl_context=context, egress=always(proxy), rng=random.Random(1), **more)


async def test_http2_goes_through_the_tunnel_to_the_name(certificates: Certificates) -> None:
    async with gateway(certificates.server()) as server, tunnels() as proxy:
        proxy.to = ("127.0.0.1", server.port)
        secret = parse_proxy(f"http://user:hunter2@127.0.0.1:{proxy.port}")
        async with pool_of(f"https://gateway.test:{server.port}", certificates, secret) as pool:
            future = pool.request(HEAD, b"/", b"", b"x")
            peer = await server.accept()
            await peer.hello()
            peer.answer((await peer.request()).stream)
            assert (await future).status == 200
    place = f"gateway.test:{server.port}"  # a name that nothing but the proxy could know
    assert proxy.heads == [
        f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nProxy-Authorization: Basic dXNlcjpodW50ZXIy\r\n\r\n".encode()
    ]


async def test_a_host_of_a_clients_is_reached_at_the_address_that_was_judged(certificates: Certificates) -> None:
    async with gateway(certificates.server()) as server, tunnels() as proxy:

        async def resolver(host: str, port: int) -> Sequence[str]:
            return ["127.0.0.1"]

        url = f"https://gateway.test:{server.port}"
        async with pool_of(url, certificates, proxy.proxy, resolver=resolver) as pool:
            future = pool.request(HEAD, b"/", b"", b"x")
            peer = await server.accept()
            await peer.hello()
            peer.answer((await peer.request()).stream)
            assert (await future).status == 200  # over TLS for the name
        assert proxy.heads[0].startswith(f"CONNECT 127.0.0.1:{server.port} ".encode())
        proxy.to = ("127.0.0.1", server.port)
        named = Proxy("127.0.0.1", proxy.port, named=True)
        async with pool_of(url, certificates, named, resolver=resolver) as pool:
            future = pool.request(HEAD, b"/", b"", b"x")
            peer = await server.accept()
            await peer.hello()
            peer.answer((await peer.request()).stream)
            assert (await future).status == 200
        assert proxy.heads[1].startswith(f"CONNECT gateway.test:{server.port} ".encode())


async def test_a_private_address_of_a_clients_host_is_not_given_to_the_proxy(certificates: Certificates) -> None:
    async with tunnels() as proxy:

        async def private(host: str, port: int) -> Sequence[str]:
            return ["10.0.0.1"]

        resolver = GuardedResolver(HostGuard(public_hosts=True), private)
        async with pool_of("https://push.evil.org", certificates, proxy.proxy, resolver=resolver) as pool:
            assert await failure(pool.request(HEAD, b"/", b"", b"")) == ("no", "dns")
        assert proxy.heads == []


ANSWERS: dict[str, tuple[bytes, str]] = {
    "refuses": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!",
        "answered CONNECT with 403; it refuses this",
    ),
    "asks": (
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        "answered CONNECT with 407; it asks for credentials",
    ),
    "fails": (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "answered CONNECT with 502"),
    "is none": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "does not speak HTTP/1.1"),
    "hangs up": (b"HTTP/1.1 200 OK\r\n", "hung up on CONNECT"),
    "never ends": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5_000, "answered CONNECT without end"),
    "says more": (b"HTTP/1.1 200 OK\r\n\r\nsurprise", "said more than an answer"),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n", "answered CONNECT with 100"),
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_a_proxy_that_makes_no_tunnel_is_named(certificates: Certificates, what: str) -> None:
    said, told = ANSWERS[what]

    async def say(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        if what == "hangs up":
            writer.close()
        await asyncio.Event().wait()

    async with tunnels() as proxy:
        proxy.say = say
        secret = parse_proxy(f"http://user:hunter2@127.0.0.1:{proxy.port}")
        async with pool_of("https://gateway.test", certificates, secret) as pool:
            assert await failure(pool.request(HEAD, b"/", b"", b"")) == ("no", "proxy")
            assert told in pool.stats.last_trouble
            assert f"the proxy 127.0.0.1:{proxy.port}" in pool.stats.last_trouble
            assert "hunter2" not in pool.stats.last_trouble
        tls = client_tls(ca_file=certificates.ca, alpn=("http/1.1",))
        async with Http1Client(ssl_context=tls, egress=always(secret)) as client:
            with pytest.raises(RequestFailed) as caught:
                await client.request("POST", "https://gateway.test/", {})
            assert (caught.value.sent, caught.value.reason) == ("no", "proxy")
            with pytest.raises(TokenError, match=r"answered|speak|hung|said") as wrong:
                await fetch_token(client, "https://gateway.test/token", {}, now=0.0)
            assert "hunter2" not in str(wrong.value)


@pytest.mark.parametrize("after", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_a_proxy_that_hangs_is_given_up_at_the_deadline(certificates: Certificates, after: bytes) -> None:
    """A busy machine may reach the deadline before TLS has begun: it then has a longer one."""
    begun: list[bytes] = []

    async def say(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(after)
        begun.append(await reader.read(1) if after else b"")
        await asyncio.Event().wait()

    async with tunnels() as proxy:
        proxy.say = say
        for deadline in (0.3, 3.0, 30.0):
            quick = PoolSettings(connect_timeout=deadline, request_timeout=60.0)
            async with pool_of("https://gateway.test", certificates, proxy.proxy, settings=quick) as pool:
                reason = await failure(pool.request(HEAD, b"/", b"", b""))
                assert f"did not answer within {deadline:g} s" in pool.stats.last_trouble
                assert "through the proxy" in pool.stats.last_trouble
            if any(begun) or not after:
                break
        assert reason == ("no", "tls" if after else "proxy")


async def test_nothing_listens_where_the_proxy_should_be(certificates: Certificates) -> None:
    async with tunnels() as proxy:
        gone = proxy.proxy
    async with pool_of("https://gateway.test", certificates, gone) as pool:
        assert await failure(pool.request(HEAD, b"/", b"", b"")) == ("no", "connect")
        assert "through the proxy" in pool.stats.last_trouble


async def test_tunnels_that_the_proxy_cuts_are_made_again(certificates: Certificates) -> None:
    async with (
        gateway(certificates.server()) as server,
        tunnels() as proxy,
        pool_of(server.url, certificates, proxy.proxy, settings=PoolSettings(connections=1)) as pool,
    ):
        for turn in range(3):
            future = pool.request(HEAD, b"/", b"", b"x")
            peer = await server.accept()
            await peer.hello()
            peer.answer((await peer.request()).stream)
            assert (await future).status == 200
            proxy.cut()
            await until(lambda: not pool._ready)
            assert pool.stats.lost == turn + 1


async def http1(client: Http1Client, url: str) -> int:
    return (await client.request("POST", url, {}, b"x", timeout=60)).status


class Answering:
    """An HTTP/1.1 server over TLS that answers 200 to everything."""

    def __init__(self) -> None:
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\nx")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            writer.transport.abort()


@pytest.fixture
async def answering(certificates: Certificates) -> Any:
    made = Answering()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=certificates.server(alpn=("http/1.1",)))
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    await server.wait_closed()


async def test_http1_goes_through_the_tunnel_and_keeps_it(certificates: Certificates, answering: Answering) -> None:
    async with tunnels() as proxy:
        proxy.to = ("127.0.0.1", answering.port)
        tls = client_tls(ca_file=certificates.ca, alpn=("http/1.1",))
        async with Http1Client(ssl_context=tls, egress=always(proxy.proxy)) as client:
            for _ in range(3):
                assert await http1(client, f"https://gateway.test:{answering.port}/") == 200
            proxy.cut()
            session: Any = client._session
            await until(lambda: not any(host.wires for host in session._hosts.values()))
            assert await http1(client, f"https://gateway.test:{answering.port}/") == 200
    assert len(proxy.heads) == 2
    assert proxy.heads[0].startswith(f"CONNECT gateway.test:{answering.port} ".encode())


async def test_no_proxy_of_the_environment_is_used_unasked(
    certificates: Certificates, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tunnels() as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        tls = client_tls(ca_file=certificates.ca, alpn=("http/1.1",))
        async with Http1Client(ssl_context=tls) as client:
            assert await http1(client, f"https://127.0.0.1:{answering.port}/") == 200
        assert proxy.heads == []


# -- real ones

REAL = {"tinyproxy": tinyproxy, "squid": squid}


@pytest.mark.external
@pytest.mark.parametrize("name", REAL)
async def test_a_real_proxy_carries_both_protocols(
    certificates: Certificates, answering: Answering, tmp_path: Path, name: str
) -> None:
    async with gateway(certificates.server()) as server, REAL[name](tmp_path) as port:
        proxy = Proxy("127.0.0.1", port)
        async with pool_of(server.url, certificates, proxy, settings=PoolSettings(connections=1)) as pool:
            futures = [pool.request(HEAD, b"/%d" % n, b"", b"x" * 100) for n in range(50)]
            peer = await server.accept()
            await peer.hello()
            serving = asyncio.ensure_future(peer.serve())
            assert {(await future).status for future in futures} == {200}
        await serving
        tls = client_tls(ca_file=certificates.ca, alpn=("http/1.1",))
        async with Http1Client(ssl_context=tls, egress=always(proxy)) as client:
            assert await http1(client, f"https://127.0.0.1:{answering.port}/") == 200


@pytest.mark.external
async def test_tinyproxy_that_asks_for_credentials(
    certificates: Certificates, answering: Answering, tmp_path: Path
) -> None:
    async with tinyproxy(tmp_path, "BasicAuth user hunter2") as port:
        tls = client_tls(ca_file=certificates.ca, alpn=("http/1.1",))
        url = f"https://127.0.0.1:{answering.port}/"
        async with Http1Client(ssl_context=tls, egress=always(Proxy("127.0.0.1", port))) as client:
            with pytest.raises(RequestFailed) as caught:
                await http1(client, url)
            assert b"it asks for credentials: write" in caught.value.debug
        wrong = parse_proxy(f"http://user:hunter3@127.0.0.1:{port}")
        async with Http1Client(ssl_context=tls, egress=always(wrong)) as client:
            with pytest.raises(RequestFailed) as caught:
                await http1(client, url)
            assert b"does not take those that it is given" in caught.value.debug
            assert b"hunter" not in caught.value.debug
        known = parse_proxy(f"http://user:hunter2@127.0.0.1:{port}")
        async with Http1Client(ssl_context=tls, egress=always(known)) as client:
            assert await http1(client, url) == 200


@pytest.mark.external
async def test_squid_that_refuses_the_port(certificates: Certificates, answering: Answering, tmp_path: Path) -> None:
    rules = ("acl SSL_ports port 443", "http_access deny CONNECT !SSL_ports")
    async with (
        squid(tmp_path, *rules) as port,
        pool_of(f"https://127.0.0.1:{answering.port}", certificates, Proxy("127.0.0.1", port)) as pool,
    ):
        assert await failure(pool.request(HEAD, b"/", b"", b"")) == ("no", "proxy")
        assert "403; it refuses this destination" in pool.stats.last_trouble


@pytest.mark.external
async def test_squid_that_cannot_reach_the_gateway(certificates: Certificates, tmp_path: Path) -> None:
    async with squid(tmp_path) as port:
        async with tunnels() as unused:
            gone = unused.port
        async with pool_of(f"https://127.0.0.1:{gone}", certificates, Proxy("127.0.0.1", port)) as pool:
            assert await failure(pool.request(HEAD, b"/", b"", b"")) == ("no", "proxy")
            assert "answered CONNECT with 503" in pool.stats.last_trouble
