"""From an ASGI scope to the one value that all later code reads: ambiguous requests are refused, headers of proxies are
judged."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import urlsplit

from fanout.config import Limits, ServiceSettings
from fanout.core.peer import Network, forwarded, is_trusted, network, origin_of, peer_of
from fanout.core.urls import is_host
from fanout.service.errors import CODES, Refused
from fanout.service.request import Request

__all__ = ["Edge", "read_request"]

_LISTS = frozenset(
    b"accept accept-charset accept-encoding accept-language access-control-request-headers baggage cache-control cdn-loop connection "
    b"content-encoding content-language cookie expect forwarded if-match if-none-match keep-alive link pragma prefer priority "
    b"proxy-connection te trailer tracestate transfer-encoding upgrade via warning x-forwarded-for x-forwarded-host x-forwarded-proto".split()
)
"""Headers whose value is a list (RFC 9110, section 5.6.1, and each one's own document), so that several lines mean one.

`cookie` is here because HTTP/2 may send it in pieces (RFC 9113, section 8.2.3). Of every other header two lines are two
answers to one question, and the next program would take the other one.
"""
_VERSIONS = frozenset({"1.0", "1.1", "2", "3"})
"""Versions as ASGI writes them. HTTP/2 and later have no request line that could say "HTTP/2.0"."""
_CLOSE = {"connection": "close"}
"""Where a message's end may be elsewhere than we think, nothing more is read from the connection."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The part of `[service]` that defines a valid request and its URL, ready for use."""

    limits: Limits
    proxies: tuple[Network, ...]
    public: tuple[str, str, str] | None
    """Scheme, host and path of `public_url`."""

    @classmethod
    def of(cls, settings: ServiceSettings) -> Self:
        """That part of these settings."""
        public = None
        if settings.public_url is not None:
            parts = urlsplit(settings.public_url)
            public = parts.scheme, parts.netloc, parts.path.rstrip("/")
        return cls(settings.limits, tuple(network(each) for each in settings.trusted_proxies), public)


def read_request(scope: Mapping[str, Any], edge: Edge) -> Request:
    """The request that a scope describes. Raises `Refused`: 400, 431, 501, 505.

    The same in `fanout serve` and mounted under a foreign server, which must hand on each header line (as ASGI says)
    and end a message where we do. It writes the folded headers back into the scope, for later code that reads that.
    """
    headers = _folded(scope["headers"], edge.limits)
    version = scope.get("http_version", "1.1")
    if version not in _VERSIONS:
        status = 400 if version.startswith("0") else 505
        raise Refused(status, CODES[status], "The service speaks HTTP/1.1: ask in that version.", _CLOSE)
    _check_framing(headers, version)
    host = headers.get(b"host", b"").decode("latin-1")
    if not is_host(host):
        raise Refused(400, CODES[400], "Host is missing, or is no host with or without a port.", _CLOSE)
    direct = (scope.get("client") or ("",))[0] or ""
    trusted = is_trusted(direct, edge.proxies)
    peer, scheme = direct, scope.get("scheme", "http")
    root = scope.get("root_path", "").rstrip("/")
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if trusted:
        peer, scheme, host = _past_proxies(headers, direct, scheme, host, edge.proxies)
    if edge.public is not None:
        scheme, host, root = edge.public[0], edge.public[1], edge.public[2] or root
    return Request(
        method=scope["method"],
        path=path,
        version=version,
        headers=MappingProxyType(headers),
        peer=peer_of(peer),
        direct=direct,
        trusted=trusted,
        scheme=scheme,
        host=host,
        root=root,
        certificate=_certificate(scope),
    )


def _folded(pairs: Iterable[tuple[bytes, bytes]], limits: Limits) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    size = 0
    for count, (name, value) in enumerate(pairs, 1):
        size += len(name) + len(value)
        if count > limits.headers:
            raise Refused(431, CODES[431], f"The request has more than {limits.headers} headers.", _CLOSE)
        if size > limits.header_bytes:
            text = f"The request's headers have more than {limits.header_bytes:,} bytes."
            raise Refused(431, CODES[431], text, _CLOSE)
        name, value = name.lower(), value.strip(b" \t")  # RFC 9110, section 5.5; httptools hands on what ends a value
        if name not in found:
            found[name] = value
        elif name in _LISTS:
            found[name] += (b"; " if name == b"cookie" else b", ") + value
        else:
            shown = name[:64].decode("latin-1")
            raise Refused(400, CODES[400], f"The header {shown!r} stands twice, and is no list.", _CLOSE)
    return found


def _check_framing(headers: Mapping[bytes, bytes], version: str) -> None:
    """RFC 9112, section 6.1: one length, and no coding that is not understood."""
    coding = headers.get(b"transfer-encoding")
    if coding is None:
        return
    if coding.strip().lower() != b"chunked":
        raise Refused(501, CODES[501], "Transfer-Encoding must be chunked, or be left out.", _CLOSE)
    if b"content-length" in headers or version in ("1.0", "0.9"):
        raise Refused(400, CODES[400], "The request says in two ways, or in a wrong one, where its body ends.", _CLOSE)


def _past_proxies(
    headers: Mapping[bytes, bytes], direct: str, scheme: str, host: str, proxies: tuple[Network, ...]
) -> tuple[str, str, str]:
    """Peer, scheme and host as trusted proxies have written them. Raises `Refused`.

    Where both families of headers are there, they must name one peer: a proxy writes one of them, and passes the other
    on as the client wrote it.
    """
    given = {name: headers[name].decode("latin-1") for name in _MARKS if name in headers}
    peers: list[str] = []
    if b"x-forwarded-for" in given:
        named = [each.strip() for each in given[b"x-forwarded-for"].split(",")]
        peer, position = origin_of(direct, named, proxies)
        peers.append(peer)
    else:
        named, position = [], -1
    scheme = _said(given.get(b"x-forwarded-proto"), position, len(named)) or scheme
    host = _said(given.get(b"x-forwarded-host"), position, len(named)) or host
    if b"forwarded" in given:
        try:
            elements = forwarded(given[b"forwarded"])
        except ValueError as error:
            raise Refused(400, CODES[400], str(error)) from None
        peer, position = origin_of(direct, [each.get("for", "unknown") for each in elements], proxies)
        peers.append(peer)
        scheme, host = elements[position].get("proto", scheme), elements[position].get("host", host)
    if len({peer_of(peer) for peer in peers}) > 1:
        text = "Forwarded and X-Forwarded-For name two peers: let the proxy write one of them and delete the other."
        raise Refused(400, CODES[400], text)
    scheme = scheme.lower()
    if scheme not in ("http", "https") or not is_host(host):
        raise Refused(400, CODES[400], "The proxy's headers name no scheme of http and no host.")
    return (peers[0] if peers else direct), scheme, host


_MARKS = (b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host")


def _said(value: str | None, position: int, count: int) -> str:
    """The element of `X-Forwarded-Proto` or `-Host` that belongs to the place at which the peer was found, else that of
    the nearest proxy."""
    if value is None:
        return ""
    words = [each.strip() for each in value.split(",")]
    return words[position] if len(words) == count else words[-1]


def _certificate(scope: Mapping[str, Any]) -> str:
    """The fingerprint of the client's certificate by ASGI's extension `tls`."""
    tls: Mapping[str, Any] = (scope.get("extensions") or {}).get("tls") or {}
    chain = tls.get("client_cert_chain")
    return _fingerprint(next(iter(chain))) if chain and not tls.get("client_cert_error") else ""


@lru_cache(maxsize=1024)
def _fingerprint(pem: str) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
