"""The differences between the push services of the browser vendors, as far as a request goes. Their answers are in
`outcome`."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["HTTP1_ONLY", "Vendor", "edge_headers", "least_ttl", "most_ttl", "vendor_of"]


class Vendor(StrEnum):
    """The vendor whose rules a host follows. OTHER is everything else, taken at its word: RFC 8030 and nothing more."""

    MOZILLA = "mozilla"
    GOOGLE = "google"
    APPLE = "apple"
    EDGE = "edge"
    OTHER = "other"


_DOMAINS = {
    "push.services.mozilla.com": Vendor.MOZILLA,
    "fcm.googleapis.com": Vendor.GOOGLE,
    "push.apple.com": Vendor.APPLE,
    "notify.windows.com": Vendor.EDGE,
}

HTTP1_ONLY = frozenset({Vendor.EDGE})
"""WNS documents HTTP/1.1 and nothing else, so HTTP/2 is not even tried. Everywhere else ALPN decides."""


def vendor_of(host: str) -> Vendor:
    """The vendor whose domain `host` (with or without a port) is, or is below."""
    name = host.partition(":")[0].rstrip(".").lower()
    for domain, vendor in _DOMAINS.items():
        if name == domain or name.endswith("." + domain):
            return vendor
    return Vendor.OTHER


def least_ttl(vendor: Vendor) -> int:
    """The smallest TTL that the vendor takes: Apple answers BadTtl to 0, where RFC 8030 means "now or never" by it."""
    return 1 if vendor is Vendor.APPLE else 0


_MONTH = 30 * 86_400
_FOUR_WEEKS = 28 * 86_400


def most_ttl(vendor: Vendor) -> int:
    """The largest TTL that the vendor takes: Mozilla and Apple keep for 30 days, Google for four weeks ("Message
    options"), and of the others, which say nothing, the least of these is expected."""
    return _MONTH if vendor in (Vendor.MOZILLA, Vendor.APPLE) else _FOUR_WEEKS


def edge_headers(vendor: Vendor, ttl: int) -> dict[str, str]:
    """The further header of Edge: without it a TTL of 0 is answered 400 "Ttl value conflicts with
    X-WNS-Cache-Policy"."""
    if vendor is not Vendor.EDGE:
        return {}
    return {"X-WNS-Cache-Policy": "cache" if ttl else "no-cache"}
