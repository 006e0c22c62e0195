"""Where a request comes from: the lies that strangers write, before and after a proxy that is trusted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from edgerig import BEARER, POST, Rig, request, running
from hypothesis import given
from hypothesis import strategies as st
from proxies import PROXIES

from fanout.config import ServiceSettings
from fanout.core.peer import forwarded, network, origin_of, peer_of
from fanout.errors import UsageError
from fanout.service.edge import Edge, read_request
from fanout.service.errors import Refused
from fanout.service.request import Request

pytestmark = pytest.mark.anyio

PROXY = "10.0.0.7"
SETTINGS = ServiceSettings(trusted_proxies=("10.0.0.0/8", "::1", "fd00::/8"))
EDGE = Edge.of(SETTINGS)


def read(
    *headers: tuple[str, str], client: str | None = PROXY, edge: Edge = EDGE, host: str = "inner:80", **scope: Any
) -> Request:
    pairs = [(b"host", host.encode()), *((name.encode(), value.encode("latin-1")) for name, value in headers)]
    found = {"method": "GET", "path": "/x", "headers": pairs, "scheme": "http", "http_version": "1.1"}
    return read_request({**found, "client": None if client is None else (client, 1), **scope}, edge)


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", ""),
        ("_hidden", ""),
        ("", ""),
        ("192.0.2.1.example.com", ""),
        ("0300.1.1.1", ""),
        ("192.0.2", ""),
    ],
)
def test_a_peer_is_an_ipv4_address_or_a_64(text: str, peer: str) -> None:
    assert peer_of(text) == peer
    assert read(client=text, edge=Edge.of(ServiceSettings())).peer == peer


ADDRESS = st.ip_addresses().map(str)
WORD = st.one_of(ADDRESS, st.sampled_from(["unknown", "_x", "", "10.0.0.1", "::1", '"', "10.9.9.9"]))


@given(lies=st.lists(WORD, max_size=6), client=ADDRESS, hops=st.lists(st.sampled_from(["10.0.0.1", "::ffff:10.2.2.2", "fd00::5"]), max_size=3))  # fmt: skip
def test_what_stands_before_the_first_stranger_counts_for_nothing(
    lies: list[str], client: str, hops: list[str]
) -> None:
    networks = [network(each) for each in SETTINGS.trusted_proxies]
    if origin_of(client, ["x"], networks)[1] == -1:  # the client is no proxy
        found = origin_of(PROXY, [*lies, client, *hops], networks)
        assert found == (client, len(lies))


@given(lies=st.lists(WORD, max_size=6), client=ADDRESS)
def test_a_stranger_is_where_the_connection_says(lies: list[str], client: str) -> None:
    networks = [network("10.0.0.0/8")]
    if not peer_of(client).startswith("10."):
        assert origin_of(client, lies, networks) == (client, -1)


FAMILIES = [
    (("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "push.example.com")),
    (("forwarded", "for=203.0.113.9;proto=https;host=push.example.com"),),
    (("forwarded", 'For="203.0.113.9:1234"; Proto=HTTPS;Host="push.example.com";by=10.0.0.7'),),
    (("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.1.1.1"), ("x-forwarded-proto", "http, https, http"), ("x-forwarded-host", "evil, push.example.com, inner")),
    (("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "203.0.113.9:4711"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "push.example.com")),
    (("forwarded", "for=6.6.6.6;host=evil;proto=http"), ("forwarded", "for=203.0.113.9;host=push.example.com;proto=https, for=10.1.1.1;host=inner")),
    (("forwarded", "for=203.0.113.9;proto=https;host=push.example.com"), ("x-forwarded-for", "203.0.113.9")),
    (("x-forwarded-for", "::ffff:203.0.113.9"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "push.example.com")),
]  # fmt: skip


@pytest.mark.parametrize("headers", FAMILIES, ids=map(str, range(len(FAMILIES))))
def test_a_trusted_proxy_is_believed_and_a_stranger_is_not(headers: tuple[tuple[str, str], ...]) -> None:
    for proxy in (PROXY, "::ffff:10.0.0.7", "::1", "fd00:1::1"):
        found = read(*headers, client=proxy)
        assert (found.peer, found.base, found.trusted) == ("203.0.113.9", "https://push.example.com", True)
        assert found.direct == proxy
    for stranger in ("203.0.113.5", "::ffff:203.0.113.5", "2001:db8::1", "11.0.0.1", None):
        found = read(*headers, client=stranger)
        assert (found.peer, found.base, found.trusted) == (peer_of(stranger or ""), "http://inner:80", False)


REFUSED = [
    (("forwarded", 'for="'),),
    (("forwarded", 'for="6.6.6.6, for=203.0.113.9'),),
    (("forwarded", "for=1.1.1.1;for=2.2.2.2"),),
    (("forwarded", "for=1.1.1.1,"),),
    (("forwarded", "for 1.1.1.1"),),
    (("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "203.0.113.9")),
    (("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "javascript")),
    (("x-forwarded-for", "203.0.113.9"), ("x-forwarded-host", "evil/path")),
    (("forwarded", 'for=203.0.113.9;host="a b"'),),
]


@pytest.mark.parametrize("headers", REFUSED, ids=map(str, range(len(REFUSED))))
def test_what_a_proxy_says_in_two_ways_is_refused(headers: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Refused) as caught:
        read(*headers)
    assert caught.value.status_code == 400
    assert read(*headers, client="203.0.113.5").peer == "203.0.113.5", "from a stranger it is no more than noise"


def test_a_word_that_is_no_address_ends_the_search() -> None:
    for word in ("unknown", "_obfuscated", "localhost", ""):
        assert read(("x-forwarded-for", f"6.6.6.6, {word}")).peer == PROXY
        assert read(("x-forwarded-for", f"6.6.6.6, {word}, 10.2.2.2")).peer == "10.2.2.2"
    assert read(("forwarded", "for=unknown;proto=https")).base == "https://inner:80"
    assert read(("forwarded", "proto=https;host=push.example.com")).base == "https://push.example.com"


@given(st.text(alphabet='for=,;"\\ 1.:[]ab', max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert forwarded(text)


@pytest.mark.parametrize(
    ("url", "root", "base"),
    [
        ("https://push.example.com", "", "https://push.example.com"),
        ("https://push.example.com/", "/push", "https://push.example.com/push"),
        ("https://example.com:8443/notify/", "", "https://example.com:8443/notify"),
        ("https://example.com/notify", "/push", "https://example.com/notify"),
        ("http://[2001:db8::1]:8080", "", "http://[2001:db8::1]:8080"),
    ],
)
def test_the_public_url_is_what_links_begin_with(url: str, root: str, base: str) -> None:
    edge = Edge.of(ServiceSettings(public_url=url, trusted_proxies=("10.0.0.0/8",)))
    lies = (("x-forwarded-for", "1.1.1.1"), ("x-forwarded-host", "evil.example"), ("x-forwarded-proto", "http"))
    found = read(*lies, edge=edge, root_path=root, path=f"{root}/x")
    assert (found.base, found.path) == (base, "/x")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("trusted_proxies", (each,)) for each in ("10.0.0.1/8", "proxy", "*", "", "10.0.0.0/33", "10.0.0")),
        *(("public_url", each) for each in ("push.example.com", "ftp://x", "https://u@x", "https://x?y", "https://x#y", "https://", "https://x:99999", "https://x y")),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=key):
        ServiceSettings(**{key: value})


def test_a_request_is_frozen_and_gives_the_pairs_of_headers() -> None:
    found = read(("X-A", "1"), ("accept", "a"), ("accept", "b"))
    assert dict(found) == {b"host": b"inner:80", b"x-a": b"1", b"accept": b"a, b"}
    with pytest.raises(TypeError):
        found.headers[b"x"] = b"y"  # type: ignore[index]


@asynccontextmanager
async def behind(name: str, folder: Path, **service: Any) -> AsyncIterator[tuple[Rig, tuple[str, int]]]:
    """A service that trusts loopback, and a proxy before it that names the peer."""
    async with running(trusted_proxies=("127.0.0.1",), **service) as rig:
        if name == "haproxy":
            proxy = PROXIES[name](
                folder, rig.address, " option forwardfor\n http-request set-header X-Forwarded-Proto https"
            )
        else:
            server = (
                "location / {{ proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; "
                "proxy_set_header X-Forwarded-Proto https; proxy_pass http://{host}:{port}; }}"
            )
            proxy = PROXIES[name](folder, rig.address, server)
        async with proxy as address:
            yield rig, address


@pytest.mark.external
@pytest.mark.parametrize("name", PROXIES)
async def test_links_and_peers_through_a_proxy(name: str, tmp_path: Path) -> None:
    seen: list[Request] = []
    async with behind(name, tmp_path) as (rig, address):
        authenticate = rig.app.state.service.authenticator.authenticate

        async def noting(asked: Request) -> Any:
            seen.append(asked)
            return await authenticate(asked)

        rig.app.state.service.authenticator.authenticate = noting
        lines = (f"Authorization: {BEARER}", "Content-Type: application/json", "X-Forwarded-For: 6.6.6.6")
        said = request("POST", "/v1/notifications", *lines, body=POST, host="push.example.com")
        found = await rig.one(said, address=address)
        assert found.status == 202
        assert found.headers["location"].startswith("https://push.example.com/v1/notifications/")
        direct = await rig.one(said.replace(b"6.6.6.6", b"7.7.7.7"))
    assert direct.status == 202
    # The proxy's own peer is this machine, which is trusted: the search goes on to what the client wrote, as behind two
    # proxies.
    assert [each.peer for each in seen] == ["6.6.6.6", "7.7.7.7"]
