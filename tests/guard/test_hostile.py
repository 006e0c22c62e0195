"""The whole corpus against the guard and both clients: nothing is connected to."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fanout.plugin import (
    GuardedResolver,
    H2Pool,
    Head,
    HostGuard,
    HostRefused,
    Http1Client,
    Http1Settings,
    PoolSettings,
    RequestFailed,
    client_tls,
)
from fanout.testing.simulator import Http1Simulator, Reply, Request

pytestmark = pytest.mark.anyio

TLS1, TLS2 = client_tls(alpn=("http/1.1",)), client_tls()
VENDORS = ("notify.windows.com", "push.services.mozilla.com", "fcm.googleapis.com", "push.apple.com")


class Names:
    """A name server: each lookup of whatever name gets the next of `answers`, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.lookups = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.lookups += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def client(resolver: Any, **settings: Any) -> Http1Client:
    return Http1Client(ssl_context=TLS1, settings=Http1Settings(request_timeout=5.0, **settings), resolver=resolver)


async def push(http1: Http1Client, guard: HostGuard, url: str) -> str:
    """Register `url`, then send to it; why that failed."""
    try:
        address = guard.check(url)
    except HostRefused as refused:
        return f"refused: {refused.reason}"
    try:
        await http1.request("POST", address.url, {"X": "y"}, b"body")
    except RequestFailed as failed:
        return f"{failed.sent} {failed.reason}"
    return "answered"


def test_the_corpus_is_large(corpus: SimpleNamespace) -> None:
    urls = {*corpus.REGISTERED, *corpus.FOREIGN}
    assert len(urls) >= 150
    assert len(urls) == len(corpus.REGISTERED) + len(corpus.FOREIGN)
    assert len(set(corpus.ADDRESSES)) == len(corpus.ADDRESSES) >= 60


async def test_no_hostile_address_is_connected_to_with_an_allow_list(corpus: SimpleNamespace, canary: Any) -> None:
    guard = HostGuard(VENDORS, port=canary.port)
    names = Names(["127.0.0.1", "::1"])
    async with client(GuardedResolver(guard, names)) as http1:
        for template in (*corpus.REGISTERED, *corpus.FOREIGN):
            url = template.replace("{p}", str(canary.port))
            assert (await push(http1, guard, url)).startswith("refused"), url
    assert names.lookups == 0
    assert canary.silent


async def test_no_hostile_address_is_connected_to_with_public_hosts(corpus: SimpleNamespace, canary: Any) -> None:
    guard = HostGuard((), public_hosts=True, port=canary.port)
    names = Names(["127.0.0.1", "::1"])
    async with client(GuardedResolver(guard, names)) as http1:
        for template in corpus.REGISTERED:
            url = template.replace("{p}", str(canary.port))
            assert (await push(http1, guard, url)).startswith("refused"), url
        assert names.lookups == 0
        for template in corpus.FOREIGN:
            url = template.replace("{p}", str(canary.port))
            assert await push(http1, guard, url) in ("no dns", "refused: host"), url
    assert canary.silent


async def test_no_refusal_repeats_the_address(corpus: SimpleNamespace) -> None:
    guard = HostGuard(VENDORS)
    for template in (*corpus.REGISTERED, *corpus.FOREIGN):
        url = template.replace("{p}", "443")
        with pytest.raises(HostRefused) as caught:
            guard.check(url)
        host = url.partition("//")[2].partition("/")[0]
        if len(host) > 5 and host not in VENDORS:
            assert host not in f"{caught.value!r} {caught.value}"
        assert "token" not in str(caught.value)


@pytest.mark.parametrize("http", ["1.1", "2"])
async def test_no_address_that_is_not_public_is_connected_to(corpus: SimpleNamespace, canary: Any, http: str) -> None:
    guard = HostGuard((), public_hosts=True, port=canary.port)
    for address in corpus.ADDRESSES:
        for answer in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
            names = Names(answer)
            resolver = GuardedResolver(guard, names)
            if http == "1.1":
                async with client(resolver) as http1:
                    assert await push(http1, guard, f"https://push.attacker.net:{canary.port}/x") == "no dns", address
            else:
                assert await push_h2(resolver, f"https://push.attacker.net:{canary.port}") == "no dns", address
            assert names.lookups == 1
    assert canary.silent


async def push_h2(resolver: Any, origin: str) -> str:
    async with H2Pool(
        origin,
        ssl_context=TLS2,
        settings=PoolSettings(request_timeout=5.0, connect_timeout=5.0),
        clock=time.monotonic,
        rng=random.Random(1),
        resolver=resolver,
    ) as pool:
        head = Head("POST", "https", origin.removeprefix("https://"))
        try:
            await pool.request(head, b"/x", b"", b"body")
        except RequestFailed as failed:
            return f"{failed.sent} {failed.reason}"
        return "answered"


@pytest.mark.parametrize("http", ["1.1", "2"])
async def test_a_rebinding_name_gains_nothing(canary: Any, http: str) -> None:
    """The name is public when it is asked first and loopback the second time, and so on: only the judged answer is
    used."""
    guard = HostGuard((), public_hosts=True, port=canary.port)
    public, private = ["93.184.216.34"], ["127.0.0.1"]
    names = Names(*([public, private] * 10))
    resolver = GuardedResolver(guard, names)
    results = []
    for _ in range(20):
        if http == "1.1":
            async with client(resolver) as http1:
                results.append(await push(http1, guard, f"https://push.attacker.net:{canary.port}/x"))
        else:
            results.append(await push_h2(resolver, f"https://push.attacker.net:{canary.port}"))
    # A public answer is connected to (and this machine's network is not reached in a test), a private one never.
    assert results == ["no connect", "no dns"] * 10
    assert names.lookups == 20
    assert set(canary.attempts) == {"93.184.216.34"}
    assert canary.connections == 0


async def test_a_name_that_rebinds_between_connections_of_one_client(canary: Any) -> None:
    guard = HostGuard((), public_hosts=True, port=canary.port)
    names = Names(["93.184.216.34"], ["127.0.0.1"])
    async with client(GuardedResolver(guard, names)) as http1:
        for _ in range(50):
            await push(http1, guard, f"https://push.attacker.net:{canary.port}/x")
    assert set(canary.attempts) == {"93.184.216.34"}
    assert canary.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(canary: Any, status: int) -> None:
    class Redirecting(Http1Simulator):
        def handle(self, request: Request) -> Reply:
            return Reply(status, {"Location": f"https://127.0.0.1:{canary.port}/", "Refresh": "0;url=/"})

    async with Redirecting() as server:
        guard = HostGuard(["127.0.0.1"], allow_private=True)
        tls = client_tls(ca_file=server.ca_file, alpn=("http/1.1",))
        async with Http1Client(ssl_context=tls, resolver=GuardedResolver(guard)) as http1:
            response = await http1.request("POST", guard.check(f"{server.url}/x").url, {}, b"body")
        assert response.status == status
        assert server.counters.requests == 1
    assert canary.connections == 0


async def test_no_proxy_of_the_environment_is_used(canary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    guard = HostGuard(["notify.windows.com"], port=canary.port)
    async with client(GuardedResolver(guard, Names(["13.107.42.14"]))) as http1:
        assert await push(http1, guard, f"https://a.notify.windows.com:{canary.port}/x") == "no connect"
    assert canary.attempts == ["13.107.42.14"]
    assert canary.connections == 0


async def test_the_listener_would_hear(canary: Any) -> None:
    """The corpus proves something: with the guard's eyes shut, both clients reach the listener."""
    guard = HostGuard(["push.attacker.net"], allow_private=True)
    resolver = GuardedResolver(guard, Names(["127.0.0.1"]))
    async with client(resolver) as http1:
        assert (await push(http1, guard, f"https://push.attacker.net:{canary.port}/x")).startswith("no")
    await until(lambda: canary.connections == 1)
    assert (await push_h2(resolver, f"https://push.attacker.net:{canary.port}")).startswith("no")
    await until(lambda: canary.connections == 2)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.001)
