"""Which IP addresses are public: reachable by any host, and inside no private network. Pure.

Our own table, from the IANA special-purpose registries (RFC 6890 and its updates), since `ipaddress.is_private` changed
between Python releases (CVE-2024-4032) and looks into few of the forms in which IPv6 carries an IPv4 address (Synapse,
CVE-2021-21392).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["PRIVATE", "why_not_public"]

PRIVATE = frozenset({"private", "loopback", "unique local", "carrier-grade NAT", "site-local"})
"""Answers of `why_not_public` for addresses that may stand in a network of one's own."""

_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "this network"),  # RFC 791; Linux takes 0.0.0.0 for the machine itself
        ("10.0.0.0/8", "private"),  # RFC 1918
        ("100.64.0.0/10", "carrier-grade NAT"),  # RFC 6598; Alibaba's metadata service lives here
        ("127.0.0.0/8", "loopback"),  # RFC 1122
        ("168.63.129.16/32", "metadata"),  # Azure's host agent, on an address that looks public
        ("169.254.0.0/16", "link-local"),  # RFC 3927; the metadata service of most clouds
        ("172.16.0.0/12", "private"),  # RFC 1918
        ("192.0.0.0/24", "protocol assignments"),  # RFC 6890; Oracle's metadata service lives here
        ("192.0.2.0/24", "documentation"),  # RFC 5737
        ("192.31.196.0/24", "AS112"),  # RFC 7535
        ("192.52.193.0/24", "AMT"),  # RFC 7450
        ("192.88.99.0/24", "6to4 relay"),  # RFC 7526
        ("192.168.0.0/16", "private"),  # RFC 1918
        ("192.175.48.0/24", "AS112"),  # RFC 7534
        ("198.18.0.0/15", "benchmarking"),  # RFC 2544
        ("198.51.100.0/24", "documentation"),  # RFC 5737
        ("203.0.113.0/24", "documentation"),  # RFC 5737
        ("224.0.0.0/4", "multicast"),  # RFC 5771
        ("240.0.0.0/4", "reserved"),  # RFC 1112, with 255.255.255.255
    )
)

_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("::1/128", "loopback"),  # RFC 4291
        ("::/128", "unspecified"),  # RFC 4291
        ("::/96", "IPv4-compatible"),  # RFC 4291, deprecated
        ("64:ff9b:1::/48", "local NAT64"),  # RFC 8215
        ("100::/64", "discard"),  # RFC 6666
        ("2001::/23", "protocol assignments"),  # RFC 2928; Teredo, unwrapped before, is part of it
        ("2001:db8::/32", "documentation"),  # RFC 3849
        ("3fff::/20", "documentation"),  # RFC 9637
        ("5f00::/16", "segment routing"),  # RFC 9602
        ("fc00::/7", "unique local"),  # RFC 4193; fd00:ec2::254 is Amazon's metadata service
        ("fe80::/10", "link-local"),  # RFC 4291
        ("fec0::/10", "site-local"),  # RFC 3879
        ("ff00::/8", "multicast"),  # RFC 4291
    )
)

_GLOBAL = IPv6Network("2000::/3")
"""The only part of IPv6 that is given out as global unicast (RFC 4291, section 2.4, and IANA's registry)."""

_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")  # RFC 2765
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052
_SIX_TO_FOUR = IPv6Network("2002::/16")  # RFC 3056
_TEREDO = IPv6Network("2001::/32")  # RFC 4380
_ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")  # RFC 5214, section 6.1


def why_not_public(address: str) -> str:
    """The kind of `address` if it is not public, in a word or two; empty for a public one.

    An IPv6 address that carries IPv4 addresses (mapped, translated, NAT64, 6to4, Teredo, ISATAP) is public if all of
    those are. A text that is no address at all, or has a zone, is not public either.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return "not an address"
    if isinstance(parsed, IPv4Address):
        return _of_v4(parsed)
    if parsed.scope_id is not None:
        return "scoped"
    for inner in _carried(parsed):
        what = _of_v4(inner)
        if what:
            return f"{what}, carried in IPv6"
    if parsed in _MAPPED or parsed in _NAT64 or parsed in _SIX_TO_FOUR or parsed in _TEREDO:
        return ""
    for network, what in _V6:
        if parsed in network:
            return what
    return "" if parsed in _GLOBAL else "reserved"


def _of_v4(address: IPv4Address) -> str:
    return next((what for network, what in _V4 if address in network), "")


def _carried(address: IPv6Address) -> list[IPv4Address]:
    raw = address.packed
    if address in _MAPPED or address in _TRANSLATED or address in _NAT64:
        return [IPv4Address(raw[12:])]
    if address in _SIX_TO_FOUR:
        return [IPv4Address(raw[2:6])]
    if address in _TEREDO:
        # The server in the clear, the client with every bit inverted (RFC 4380, section 4).
        return [IPv4Address(raw[4:8]), IPv4Address(bytes(byte ^ 0xFF for byte in raw[12:]))]
    if raw[8:12] in _ISATAP:
        return [IPv4Address(raw[12:])]
    return []
