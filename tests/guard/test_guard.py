"""What the guard admits, how it writes it, and how it is configured."""

from __future__ import annotations

import logging
import random
import string
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from fanout.http.guard_addresses import why_not_public
from fanout.plugin import AddressInvalid, ConfigurationError, GuardedResolver, HostGuard, HostRefused, NotPublic
from fanout_kit.examples import examples

WNS = HostGuard(["notify.windows.com"])
ANY = HostGuard(public_hosts=True)

quick = settings(derandomize=True, deadline=None, max_examples=examples(400))


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        (
            "https://wns2-by3p.notify.windows.com/?token=AwYAAAB%2bx%2F",
            "https://wns2-by3p.notify.windows.com/?token=AwYAAAB%2bx%2F",
        ),
        ("HTTPS://WNS2-BY3P.Notify.Windows.COM/w/?Token=A", "https://wns2-by3p.notify.windows.com/w/?Token=A"),
        ("https://notify.windows.com:443/a", "https://notify.windows.com/a"),
        ("https://notify.windows.com", "https://notify.windows.com/"),
        ("https://notify.windows.com?token=a@b:c/d", "https://notify.windows.com/?token=a@b:c/d"),
        ("https://a.b.c.notify.windows.com//x/../y;z=1?a=b&c", "https://a.b.c.notify.windows.com//x/../y;z=1?a=b&c"),
    ],
)
def test_a_good_address_is_kept_as_it_is_but_for_its_host(url: str, canonical: str) -> None:
    found = WNS.check(url)
    assert found.url == canonical
    assert WNS.check(found.url) == found
    assert found.origin + found.target == canonical


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://notify.windows.com/é", "form"),
        ("http://notify.windows.com/", "scheme"),
        ("https://a@notify.windows.com/", "userinfo"),
        ("https://notify.windows.com:444/", "port"),
        ("https://127.1/", "literal"),
        ("https://[::1]/", "literal"),
        ("https://notify.windows.com./", "host"),
        ("https://evilnotify.windows.com/", "list"),
        ("https://notify.windows.com/#x", "fragment"),
        (None, "form"),
        (b"https://notify.windows.com/", "form"),
    ],
)
def test_a_refusal_says_why_in_one_word(url: str, reason: str) -> None:
    with pytest.raises(HostRefused) as caught:
        WNS.check(url)
    assert caught.value.reason == reason
    assert isinstance(caught.value, AddressInvalid)


@pytest.mark.parametrize(
    "entry", ["notify.windows.com", ".notify.windows.com", "*.notify.windows.com", " Notify.Windows.com "]
)
def test_an_entry_admits_the_host_and_what_is_below_it(entry: str) -> None:
    guard = HostGuard([entry])
    for host in ("notify.windows.com", "a.notify.windows.com", "a.b.notify.windows.com"):
        assert guard.check(f"https://{host}/x").host == host
    for host in ("xnotify.windows.com", "windows.com", "notify.windows.com.net"):
        with pytest.raises(HostRefused):
            guard.check(f"https://{host}/x")


@pytest.mark.parametrize(
    "entry", ["", "*", "com", "https://notify.windows.com", "notify.windows.com:443", "127.0.0.1", "a_b.net"]
)
def test_an_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts"):
        HostGuard([entry])


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="allowed_hosts is empty"):
        HostGuard([])


def test_public_hosts_admit_every_proper_name() -> None:
    for host in ("push.example.com", "xn--bcher-kva.de", "a.b.c.d.net", "1.example.com"):
        assert ANY.check(f"https://{host}/x").host == host


def test_private_hosts_are_for_tests_and_said_loudly(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fanout.http"):
        guard = HostGuard(["127.0.0.1", "localhost", "[::1]"], allow_private=True)
    assert "allow_private" in caplog.text
    assert guard.check("https://127.0.0.1:8443/x").authority == "127.0.0.1:8443"
    assert guard.check("https://localhost:9/x").port == 9
    assert guard.check("https://[::1]:9/x").host == "[::1]"
    for url in (
        "https://127.0.0.2:1/",
        "https://127.1:1/",
        "https://0x7f.1:1/",
        "http://127.0.0.1:1/",
        "https://u@127.0.0.1/",
    ):
        with pytest.raises(HostRefused):
            guard.check(url)
    assert guard.addresses(["127.0.0.1"]) == ["127.0.0.1"]


def test_nothing_private_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    found = WNS.check("https://a.notify.windows.com/?token=SECRET")
    assert "SECRET" not in repr(found)
    assert "allow_private=False" in repr(WNS)


def test_public_addresses_pass(corpus: SimpleNamespace) -> None:
    for address in corpus.PUBLIC:
        assert why_not_public(address) == "", address
    assert ANY.addresses(corpus.PUBLIC) == corpus.PUBLIC


@pytest.mark.anyio
async def test_the_resolver_judges_the_name_too() -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["8.8.8.8"]

    resolver = GuardedResolver(WNS, resolve)
    assert await resolver("A.notify.windows.com", 443) == ["8.8.8.8"]
    for host in ("evil.com", "127.0.0.1", "::1", "localhost", "notify.windows.com."):
        with pytest.raises(NotPublic) as caught:
            await resolver(host, 443)
        assert isinstance(caught.value, OSError)
    assert asked == ["A.notify.windows.com"]


@quick
@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_what_we_call_public_is_global_to_python_too(address: IPv4Address) -> None:
    if why_not_public(str(address)) == "":
        assert address.is_global


@quick
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0xFFFF << 32, 0xFFFF << 48, 0x0064FF9B << 96, 0, 0x20010000 << 96 | 0x08080808 << 64]),
)
def test_an_address_in_ipv6_is_judged_as_the_ipv4_address_in_it(inner: int, prefix: int) -> None:
    carried = inner ^ 0xFFFFFFFF if prefix >> 96 == 0x20010000 else inner
    outer = IPv6Address(prefix | carried)
    if why_not_public(str(IPv4Address(inner))):
        assert why_not_public(str(outer))
        assert why_not_public(outer.exploded)


@quick
@given(st.integers(0, 2**128 - 1).map(IPv6Address))
@example(IPv6Address("2001:db8::1"))
def test_only_global_unicast_is_public(address: IPv6Address) -> None:
    if why_not_public(str(address)) == "":
        carrying = address in IPv6Network("64:ff9b::/96") or address.ipv4_mapped is not None
        assert address in IPv6Network("2000::/3") or carrying


_PIECES = st.sampled_from(
    ["https://", "http://", "notify", ".", "windows", "com", "@", ":", "443", "/", "\\", "?", "#", "%40", "%", "[", "]", "127.0.0.1",
     "0x7f", "1", "a", "-", "_", " ", "\t", "\n", "\x00", "xn--", "é", "。", ";", "localhost"]
)  # fmt: skip


@quick
@given(st.lists(_PIECES, max_size=14).map("".join) | st.text(max_size=60).map("https://a.notify.windows.com/".__add__))
@example("https://notify.windows.com?@127.0.0.1")
@example("https://notify.windows.com/\\@127.0.0.1")
def test_whatever_passes_is_read_alike_by_every_parser(url: str) -> None:
    for guard in (WNS, ANY):
        try:
            found = guard.check(url)
        except HostRefused:
            continue
        assert guard._check(url) == found  # the short way agrees with the long one
        for text in (url, found.url):
            assert (urlsplit(text).hostname, urlsplit(text).port or 443) == (found.host, 443)
            assert (URL(text, encoded=True).raw_host or "").lower() == found.host
            assert URL(text, encoded=True).port == 443
            assert urlsplit(text).username is None
        assert guard.check(found.url) == found
        assert found.host.isascii()
        with pytest.raises(ValueError, match="does not appear"):
            ip_address(found.host)


def test_random_hosts_under_the_suffix_are_the_only_ones() -> None:
    chance = random.Random(5)
    letters = string.ascii_lowercase + string.digits + ".-"
    for _ in range(3000):
        host = "".join(chance.choice(letters) for _ in range(chance.randrange(12))) + "notify.windows.com"
        try:
            found = WNS.check(f"https://{host}/")
        except HostRefused:
            continue
        assert found.host == "notify.windows.com" or found.host.endswith(".notify.windows.com")
