"""The egress proxy: how it is named, and the tunnel through it (HTTP CONNECT, RFC 9110, section 9.3.6)."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

from fanout.errors import ConfigurationError

__all__ = ["Egress", "Proxy", "ProxyFailed", "direct", "named_in_environment", "parse_proxy", "tunnel"]

_MOST_HEAD = 16_384
"""Bytes of the proxy's answer that are read."""
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_FORM = "write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
_WORDS = {
    403: "it refuses this destination: allow it in the proxy's rules",
    407: "it asks for credentials: write http://USER:PASSWORD@HOST:PORT",
}


class ProxyFailed(Exception):
    """The proxy made no tunnel. The text is a sentence for people, without credentials."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One HTTP proxy. `credentials` is the value of `Proxy-Authorization`, a secret; empty for none.

    `named`: destinations that a client supplied are handed over by name too, so that it is the proxy that judges their addresses.
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
    """Without a proxy, whatever the environment says."""


def parse_proxy(text: str, *, named: bool = False, key: str = "proxy") -> Proxy:
    """The proxy of a URL `http://[USER[:PASSWORD]@]HOST[:PORT]`. Raises `ConfigurationError`, without the URL in its text."""
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


def named_in_environment(
    host: str, port: int = 443, environ: Mapping[str, str] = os.environ, *, named: bool = False
) -> Proxy | None:
    """The proxy that `HTTPS_PROXY` names for this host, unless `NO_PROXY` excepts it. Lower-case names count first, as with curl."""
    text = environ.get("https_proxy") or environ.get("HTTPS_PROXY") or ""
    excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not text.strip() or _excepts(excepted, host.lower().rstrip("."), port):
        return None
    return parse_proxy(text, named=named, key="HTTPS_PROXY")


def _excepts(listed: str, host: str, port: int) -> bool:
    """Whether a `NO_PROXY` names the host: `*`, a name (it and all below it), an address, a network, each perhaps with a port."""
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


async def tunnel(sock: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """Have the proxy at the other end of `sock` connect to `host` and `port`. Raises `ProxyFailed`, or `OSError`.

    Nothing but the proxy's answer is read: whoever is behind it speaks TLS, where the client speaks first.
    """
    loop = asyncio.get_running_loop()
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if proxy.credentials:
        lines.append(f"Proxy-Authorization: {proxy.credentials}")
    await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
    head = b""
    while not (end := _end_of(head)):
        if len(head) > _MOST_HEAD:
            raise ProxyFailed(f"the proxy {proxy.authority} answered CONNECT without end")
        piece = await loop.sock_recv(sock, 4096)
        if not piece:
            raise ProxyFailed(f"the proxy {proxy.authority} hung up on CONNECT")
        head += piece
    found = _STATUS.match(head)
    if found is None:
        raise ProxyFailed(f"the proxy {proxy.authority} does not speak HTTP/1.1")
    status = int(found[1])
    if not 200 <= status < 300:
        raise ProxyFailed(
            f"the proxy {proxy.authority} answered CONNECT with {status}; {_WORDS.get(status, 'see its log')}"
        )
    if len(head) > end:
        raise ProxyFailed(f"the proxy {proxy.authority} said more than an answer to CONNECT")


def _end_of(head: bytes) -> int:
    """Where the head of an answer ends; 0 if it has not."""
    for mark in (b"\r\n\r\n", b"\n\n"):
        at = head.find(mark)
        if at >= 0:
            return at + len(mark)
    return 0
