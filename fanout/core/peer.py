"""The address that a request comes from, as far as trusted proxies name it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

__all__ = ["Element", "Network", "forwarded", "is_trusted", "network", "origin_of", "peer_of"]

Network: TypeAlias = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")
_WITH_PORT = re.compile(r"(?:\[([^\]]+)\]|([0-9.]+))(?::[0-9]{1,5})?")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_PAIR = re.compile(rf"""[ \t]*({_TOKEN}+)=(?:"((?:[^"\\]|\\.)*)"|((?:{_TOKEN}|[:\[\]])*))[ \t]*""")
"""A pair of `Forwarded`. An address may stand in it without quotation marks, as some proxies write it: nothing in it is
a separator."""

Element: TypeAlias = dict[str, str]
"""One element of `Forwarded`: `for`, `by`, `host`, `proto` and others, names in lower case."""


def network(text: str) -> Network:
    """A network such as `10.0.0.0/8` or `::1`. Raises `ValueError` for anything else, and where bits of the host are
    set."""
    found = ip_network(text)
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        return IPv4Network((int(found.network_address) & 0xFFFFFFFF, found.prefixlen - 96))
    return found


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in a text that may have a port; IPv4 where it is IPv4 in IPv6's clothes. None for a text without
    one."""
    found = _WITH_PORT.fullmatch(text)
    bare = (found.group(1) or found.group(2)) if found else text
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@lru_cache(maxsize=4096)
def peer_of(text: str) -> str:
    """The identity of a peer for rates and caps: an IPv4 address, or an IPv6 network of 64 bits, which one subscriber
    has. "" for no address.

    A provider gives each subscriber at least a /64 (RFC 6177), so that single IPv6 addresses would cost nothing.
    """
    address = _address(text)
    if address is None:
        return ""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


def is_trusted(text: str, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of these networks."""
    address = _address(text) if networks else None
    return address is not None and any(address in each for each in networks if each.version == address.version)


def origin_of(direct: str, named: Sequence[str], networks: Sequence[Network]) -> tuple[str, int]:
    """The address that a request comes from, and the position in `named` of the word that says so; -1 for the
    connection's own.

    `direct` is the other end of the connection. `named` are the words that proxies have written, the nearest last. Each
    word is believed only where a trusted proxy wrote it; a word that is no address ("unknown", RFC 7239, section 6.2)
    ends the search at that proxy.
    """
    at, position = direct, -1
    for number in range(len(named) - 1, -1, -1):
        if not is_trusted(at, networks):
            break
        position = number
        if _address(named[number]) is None:
            break
        at = named[number]
    return at, position


def forwarded(text: str) -> list[Element]:
    """The elements of a `Forwarded` header (RFC 7239, section 4). Raises `ValueError`.

    The whole of it must be well formed: after an open quotation mark, the text that the next proxy adds would be part
    of a client's own.
    """
    found: list[Element] = [{}]
    at = 0
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            raise ValueError("Forwarded is not of the form that RFC 7239 gives it.")
        name, quoted, token = pair.groups()
        name = name.lower()
        if name in found[-1]:
            raise ValueError("Forwarded has an element that says something twice.")
        found[-1][name] = token if token is not None else re.sub(r"\\(.)", r"\1", quoted)
        at = pair.end()
        if at < len(text):
            if text[at] == ",":
                found.append({})
            elif text[at] != ";":
                raise ValueError("Forwarded is not of the form that RFC 7239 gives it.")
            at += 1
            if at == len(text):
                raise ValueError("Forwarded ends in the middle.")
    return found
