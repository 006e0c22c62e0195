"""Which hosts are reached through which proxy."""

from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.proxy import Proxy, direct, egress_of, named_in_environment, parse_proxy, place_of_url, way_to
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError

PROXY = "http://proxy.example:8080"


@pytest.mark.parametrize(
    ("text", "host", "port", "credentials"),
    [
        ("http://proxy:3128", "proxy", 3128, ""),
        ("proxy:8080", "proxy", 8080, ""),
        ("http://proxy", "proxy", 3128, ""),
        ("http://proxy/", "proxy", 3128, ""),
        ("http://[::1]:3128", "::1", 3128, ""),
        ("http://10.0.0.1:80", "10.0.0.1", 80, ""),
        ("http://user@proxy:3128", "proxy", 3128, "user:"),
        ("http://us%40er:p%3Aw%2F@proxy:3128", "proxy", 3128, "us@er:p:w/"),
        (" http://user:pass@Proxy.Example:3128\n", "proxy.example", 3128, "user:pass"),
    ],
)
def test_a_proxys_url(text: str, host: str, port: int, credentials: str) -> None:
    proxy = parse_proxy(text)
    assert (proxy.host, proxy.port) == (host, port)
    shown = b64decode(proxy.credentials.removeprefix("Basic ")).decode()
    assert shown == credentials


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://proxy:3128",
        "socks5://proxy:1080",
        "http://",
        "http://proxy:port",
        "http://proxy:99999",
        "http://proxy/path",
        "http://proxy?x=1",
        "http://pro xy:1",
        "http://us%3Aer:hunter2@proxy:1",
        "http://user:hunter2%0d%0a@proxy:1",
    ],
)
def test_what_is_no_proxy_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_proxy(text or "http://")
    assert "hunter2" not in str(caught.value)


def test_credentials_are_never_shown() -> None:
    proxy = parse_proxy("http://user:hunter2@proxy:3128")
    shown = f"{proxy!r} {proxy} {proxy.authority} {way_to(proxy)}"
    assert "hunter2" not in shown
    assert proxy.credentials not in shown


@pytest.mark.parametrize(
    ("excepted", "host", "port", "through"),
    [
        ("", "api.push.apple.com", 443, True),
        ("*", "api.push.apple.com", 443, False),
        ("apple.com", "api.push.apple.com", 443, False),
        (".apple.com", "api.push.apple.com", 443, False),
        ("*.apple.com", "api.push.apple.com", 443, False),
        ("apple.com", "pineapple.com", 443, True),
        ("a.b, apple.com", "apple.com", 443, False),
        ("a.b apple.com", "apple.com", 443, False),
        ("apple.com:2197", "apple.com", 443, True),
        ("apple.com:2197", "apple.com", 2197, False),
        ("APPLE.com", "Apple.COM.", 443, False),
        ("10.0.0.0/8", "10.1.2.3", 443, False),
        ("10.0.0.0/8", "11.1.2.3", 443, True),
        ("::1", "::1", 443, False),
        ("[::1]:443", "::1", 443, False),
        ("[::1]:443", "::1", 444, True),
        ("fe80::/10", "fe80::1", 443, False),
        ("localhost", "localhost", 443, False),
    ],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_what_the_environment_excepts(name: str, excepted: str, host: str, port: int, through: bool) -> None:
    environ = {"HTTPS_PROXY": PROXY, name: excepted}
    assert (named_in_environment(host, port, environ) is not None) == through


def test_small_letters_count_first_and_other_proxies_do_not() -> None:
    environ = {"HTTPS_PROXY": PROXY, "https_proxy": "http://other:1", "HTTP_PROXY": "http://no:1", "ALL_PROXY": "x"}
    found = named_in_environment("a.b", 443, environ)
    assert found is not None
    assert found.host == "other"
    assert named_in_environment("a.b", 443, {"HTTP_PROXY": PROXY}) is None


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_exception_list_is_read(excepted: str, host: str) -> None:
    named_in_environment(host, 443, {"HTTPS_PROXY": PROXY, "NO_PROXY": excepted})


def test_a_setting_is_a_proxy_the_environment_or_none() -> None:
    environ = {"HTTPS_PROXY": "http://env:1"}

    def chosen(text: str | None, **more: bool) -> Proxy | None:
        setting = None if text is None else Secret(text)
        return egress_of(setting, environ, default=lambda host, port: Proxy("usual", 1), **more)("a.b", 443)

    assert chosen(PROXY) == Proxy("proxy.example", 8080)
    assert chosen("environment") == Proxy("env", 1)
    assert chosen("direct") is None
    assert chosen(None) == Proxy("usual", 1)
    assert chosen(None, named=True) == Proxy("usual", 1, named=True)
    assert chosen(PROXY, named=True) == Proxy("proxy.example", 8080, named=True)
    assert egress_of(None, environ) is direct  # the environment is never read unasked
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY"):
        egress_of(Secret("environment"), {"HTTPS_PROXY": "https://x:1"})


def test_ways_are_told() -> None:
    assert way_to(None) == "directly"
    assert way_to(Proxy("p", 1)) == "through the proxy p:1"
    assert way_to(Proxy("p", 1, named=True), judged=True) == "through the proxy p:1, which judges its address"
    assert place_of_url("https://a.b/c") == ("a.b", 443)
    assert place_of_url("https://[::1]:8443") == ("::1", 8443)
