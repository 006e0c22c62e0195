"""One request as everything behind the edge sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fanout.core.frozen import fast_init

__all__ = ["Request", "set_by_proxies"]

_PROXIES = (
    "forwarded",
    "via",
    "cdn-loop",
    "true-client-ip",
    "client-ip",
    "proxy-",
    "x-forwarded",
    "x-real-",
    "x-client-",
    "x-cluster-",
    "x-original-",
    "x-rewrite-",
    "x-envoy-",
    "x-proxy",
    "x-scheme",
    "x-amzn-",
    "x-amz-cf-",
    "x-azure-",
    "x-appengine-",
    "x-cloud-trace-",
    "cf-",
    "fastly-",
    "wl-proxy-",
)
"""How the names begin of headers that a proxy or a content network adds, and a client that speaks to us itself does
not."""


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, made once, in `fanout.service.edge`. Authenticators, rates, caps and `Location` read nothing else.

    Iterating gives the pairs of headers, so that an authenticator that was written for these goes on as it is.
    """

    method: str
    path: str
    """Below the path that the service is mounted at."""
    version: str
    """Of HTTP, such as 1.1."""
    headers: Mapping[bytes, bytes] = field(repr=False)
    """Names in lower case, each once. A header that is a list and came in several lines is joined by commas (RFC 9110,
    section 5.3)."""
    peer: str
    """Where it comes from, past trusted proxies: an IPv4 address, an IPv6 network of 64 bits, or "" (a UNIX socket)."""
    direct: str
    """The address at the other end of the connection, "" for a UNIX socket."""
    trusted: bool
    """Whether that is one of `trusted_proxies`."""
    scheme: str
    host: str
    root: str
    """The path that the service is mounted at, without a slash at its end."""
    certificate: str = ""
    """SHA-256 of the client's certificate (DER), in hexadecimal; "" without one. The server has verified it."""

    @property
    def base(self) -> str:
        """The service's address as the client knows it: scheme, host and the path that it is mounted at."""
        return f"{self.scheme}://{self.host}{self.root}"

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.headers.items())


def set_by_proxies(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the request has a header that proxies set. Without one there may be a proxy all the same."""
    return any(name.decode("latin-1").startswith(_PROXIES) for name in headers)
