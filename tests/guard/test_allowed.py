"""Hosts that are named one by one: what they admit, and that everything else stays as strict."""

from __future__ import annotations

import pytest

from fanout.http import GuardedResolver, HostGuard, HostRefused, NotPublic
from fanout.plugin import AllowedHost

LAN = AllowedHost("push.lan:5443", private=True)
OTHER = AllowedHost("up.example.org:8443")
GUARD = HostGuard(["push.apple.com", LAN, OTHER, AllowedHost("[fd00::5]", private=True)])


@pytest.mark.parametrize(
    ("url", "admitted"),
    [
        ("https://push.lan:5443/x", True),
        ("https://eu.push.lan:5443/x", True),
        ("https://push.lan/x", False),
        ("https://push.lan:443/x", False),
        ("https://push.lan:5444/x", False),
        ("https://evilpush.lan:5443/x", False),
        ("http://push.lan:5443/x", False),
        ("https://user@push.lan:5443/x", False),
        ("https://push.lan:5443@evil.example/x", False),
        ("https://push.lan:05443/x", False),
        ("https://up.example.org:8443/x", True),
        ("https://up.example.org/x", False),
        ("https://push.apple.com/x", True),
        ("https://push.apple.com:5443/x", False),
        ("https://[fd00::5]/x", True),
        ("https://[fd00::6]/x", False),
        ("https://10.0.0.1:5443/x", False),
        ("https://localhost:5443/x", False),
    ],
)
def test_an_entry_admits_its_host_and_port(url: str, admitted: bool) -> None:
    if admitted:
        assert GUARD.check(url).url == url
    else:
        with pytest.raises(HostRefused):
            GUARD.check(url)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("host", "port", "address", "admitted"),
    [
        ("push.lan", 5443, "192.168.1.5", True),
        ("push.lan", 5443, "127.0.0.1", True),
        ("push.lan", 5443, "fd00::1", True),
        ("push.lan", 5443, "93.184.216.34", True),
        ("push.lan", 5443, "169.254.169.254", False),
        ("push.lan", 5443, "fe80::1", False),
        ("push.lan", 5443, "0.0.0.0", False),
        ("push.lan", 5443, "224.0.0.1", False),
        ("push.lan", 443, "192.168.1.5", False),
        ("up.example.org", 8443, "192.168.1.5", False),
        ("up.example.org", 8443, "93.184.216.34", True),
        ("push.apple.com", 443, "192.168.1.5", False),
        ("fd00::5", 443, "fd00::5", True),
    ],
)
async def test_only_a_private_entry_may_lead_into_a_network(host: str, port: int, address: str, admitted: bool) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return [address]

    resolver = GuardedResolver(GUARD, resolve)
    if admitted:
        assert await resolver(host, port) == [address]
    else:
        with pytest.raises(NotPublic):
            await resolver(host, port)
