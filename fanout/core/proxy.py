"""Egress proxies: how they are named, and which hosts are reached through which. Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

from fanout.core.secret import Secret
from fanout.errors import ConfigurationError

__all__ = ["Egress", "Proxy", "direct", "egress_of", "named_in_environment", "parse_proxy", "place_of_url", "way_to"]

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_FORM = "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"


@dataclass(frozen=True, slots=True)
class Proxy:
    """One HTTP proxy. `credentials` is the value of `Proxy-Authorization`, a secret; empty for none.

    `named`: destinations that a client supplied are handed over by name too, so that it is the proxy that judges their
    addresses.
    """

    host: str
    port: int
    credentials: str = field(default="", repr=False)
    named: bool = False

    @property
    def authority(self) -> str:
        """Host and port, as they may be shown."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Egress: TypeAlias = "Callable[[str, int], Proxy | None]"
"""Through which proxy a host and port are reached; None for none."""


def direct(host: str, port: int) -> None:
    """No proxy, even where the environment names one: an `Egress`.

    Args:
        host: The host to reach.
        port: The TCP port to reach.
    """


def parse_proxy(text: str, *, named: bool = False, key: str = "proxy") -> Proxy:
    """The proxy of a URL `http://[USER[:PASSWORD]@]HOST[:PORT]`. Raises `ConfigurationError`, without the URL in its
    text."""
    try:
        parts = urlsplit(text.strip() if "://" in text else f"http://{text.strip()}")
        host, port = parts.hostname or "", parts.port or 3128
        user = unquote_to_bytes(parts.username or "")
        password = unquote_to_bytes(parts.password or "")
    except ValueError:
        raise ConfigurationError(f"{key} is no URL of a proxy: {_FORM}.") from None
    if parts.scheme == "https":
        raise ConfigurationError(
            f"{key} is an https proxy, which is not supported: {_FORM}; the tunnel itself carries TLS."
        )
    if (
        parts.scheme != "http"
        or not _HOST.fullmatch(host)
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise ConfigurationError(f"{key} is no URL of a proxy: {_FORM}.")
    if b":" in user or any(byte < 32 for byte in user + password):
        raise ConfigurationError(f"{key} has a user or password with characters that no proxy takes: {_FORM}.")
    credentials = ""
    if parts.username is not None:
        credentials = f"Basic {b64encode(user + b':' + password).decode()}"  # RFC 7617
    return Proxy(host, port, credentials, named)


def named_in_environment(host: str, port: int, environ: Mapping[str, str], *, named: bool = False) -> Proxy | None:
    """The proxy that `HTTPS_PROXY` names for this host, unless `NO_PROXY` excepts it. Lower-case names count first, as
    with curl."""
    text = environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not text.strip() or _excepts(excepted, host.lower().rstrip("."), port):
        return None
    return parse_proxy(text, named=named, key="HTTPS_PROXY")


def _excepts(listed: str, host: str, port: int) -> bool:
    """Whether a `NO_PROXY` names the host: `*`, a name (it and all below it), an address, a network, each perhaps with
    a port."""
    bare = host.strip("[]")
    for entry in re.split(r"[\s,]+", listed.lower()):
        if entry == "*":
            return True
        name, colon, wanted = entry.rpartition(":")
        if colon and wanted.isdigit() and (":" not in name or name.endswith("]")):
            if int(wanted) != port:
                continue
            entry = name
        entry = entry.strip("[]").removeprefix("*").strip(".")
        if entry and (bare == entry or bare.endswith(f".{entry}") or _within(bare, entry)):
            return True
    return False


def _within(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False


def egress_of(
    setting: Secret | None, environ: Mapping[str, str], *, default: Egress = direct, named: bool = False
) -> Egress:
    """The meaning of a setting `proxy`: the URL of a proxy, "environment", or "direct".

    "environment" is read anew for each connection, and once now.

    Args:
        setting: The value of the setting; None where it is absent.
        environ: The environment variables.
        default: The egress of a setting that is absent.
        named: Whether hosts that a client supplied are handed to the proxy by name.

    Returns:
        The proxy of each host and port.

    Raises:
        ConfigurationError: The setting, or the environment's, is no URL of a proxy. The text does not have the setting.
    """
    if setting is None:
        return _naming(default) if named else default
    text = setting.reveal().strip()
    if text == "direct":
        return direct
    if text == "environment":
        named_in_environment("host.invalid", 443, environ, named=named)
        return lambda host, port: named_in_environment(host, port, environ, named=named)
    proxy = parse_proxy(text, named=named)
    return lambda host, port: proxy


def _naming(egress: Egress) -> Egress:
    def named(host: str, port: int) -> Proxy | None:
        proxy = egress(host, port)
        return None if proxy is None else replace(proxy, named=True)

    return named


def place_of_url(url: str) -> tuple[str, int]:
    """Host and port of an https URL of the configuration.

    Args:
        url: The URL.

    Returns:
        The host in lower case, and the TCP port: 443 where the URL has none.
    """
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 443


def way_to(proxy: Proxy | None, *, judged: bool = False) -> str:
    """The way by which a host is reached, in words.

    Args:
        proxy: The proxy; None for none.
        judged: Whether a client supplied the host, so that its addresses are looked at here.

    Returns:
        The end of a sentence, such as "directly" or "through the proxy proxy.example:3128".
    """
    if proxy is None:
        return "directly"
    if judged and proxy.named:
        return f"through the proxy {proxy.authority}, which judges its address"
    return f"through the proxy {proxy.authority}"
