"""Which addresses of other services may be configured."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

__all__ = ["is_host", "is_ip_address", "is_loopback", "url_problem"]

_PORT = r"(?::(?:[0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_HOST = re.compile(rf"(?!.*\.\.)[A-Za-z0-9_](?:[A-Za-z0-9_.-]{{0,253}}[A-Za-z0-9_.])?{_PORT}")
_LITERAL = re.compile(rf"\[([0-9A-Fa-f:.]{{2,45}})\]{_PORT}")


def is_host(text: str) -> bool:
    """Whether it is a host as `Host` has it, with or without a port (RFC 9110, section 7.2). "" is none."""
    if not text.startswith("["):
        return _HOST.fullmatch(text) is not None
    literal = _LITERAL.fullmatch(text)
    return literal is not None and _is_ipv6(literal[1])


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name: `localhost`, 127.0.0.0/8 or ::1. Nothing is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def url_problem(url: str, *, query: bool = False) -> str:
    """The fault of the URL of a trusted server, as the end of a sentence; "" if there is none.

    https, or http on loopback; no user or fragment, a query only where `query` says so; nothing but visible ASCII.
    """
    if not url.isascii() or not url.isprintable() or " " in url:
        return "holds characters that no URL has"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no URL: write https://host/path"
    if parts.scheme not in ("https", "http") or not host:
        return "is no URL: write https://host/path"
    if parts.username is not None or "#" in url:
        return "must have no user and no fragment"
    if "?" in url and not query:
        return "must have no query"
    if parts.scheme == "http" and not is_loopback(host):
        return "must be https: over http any host on the way could replace what it answers"
    return ""


def is_ip_address(text: str) -> bool:
    """Whether this is an IP address as it stands between https:// and the port, in its one canonical spelling."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        parsed = ipaddress.ip_address(bare)
    except ValueError:
        return False
    return str(parsed) == bare and (parsed.version == 6) == (bare != text)
