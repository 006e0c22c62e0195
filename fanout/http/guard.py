"""The host guard: the hosts to which an address that a client supplied may make us connect. Pure; `guard_resolver`
applies it to name lookups.

Our own strict reading of URLs, because the holes lie where two parsers disagree: a URL that could be read in two ways
is refused. The guard is asked when an address is registered and again before each send, since configuration and names
change in between.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from fanout.core.urls import is_ip_address
from fanout.errors import AddressInvalid, ConfigurationError
from fanout.http.guard_addresses import PRIVATE, why_not_public

__all__ = ["AllowedEntry", "GuardedUrl", "HostGuard", "HostRefused"]

_log = logging.getLogger("fanout.http")

MOST_URL = 4096
"""Characters of an address; the longest that vendors are known to hand out have under a thousand."""

_URL = re.compile(r"https://([^/?]*)([/?].*)?", re.IGNORECASE)
_HARMLESS = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
"""The characters of RFC 3986. Blanks, controls, backslashes, quotes, braces and everything beyond ASCII are outside."""
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^:\[\]@%]*)(?::([1-9][0-9]{0,4}))?")
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TARGET = r"/(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]++|%[0-9A-Fa-f]{2})*+"
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label of this form makes the whole host an IPv4 address, in the eyes of browsers (WHATWG URL) and of
inet_aton."""

_LOCAL = ("localhost", "local", "localdomain", "internal", "intranet", "private", "corp", "home", "lan", "svc")
_SPECIAL = frozenset((*_LOCAL, "invalid", "test", "example", "onion", "alt", "arpa"))
"""Last labels that are never a public host's (RFC 6761 and others; `.internal` holds Google's metadata service)."""


class HostRefused(AddressInvalid):
    """The guard refuses this address. `reason` is one word for programs; neither it nor the text holds the address.

    The words: form, scheme, userinfo, port, literal (an IP address in any spelling), host (no proper name), fragment,
    list (not on the allow-list).
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class GuardedUrl(NamedTuple):
    """An address that passed. `host` is lower-case; `target` is path and query as the client gave them; `url` is all of
    it."""

    host: str
    port: int
    target: str

    def __repr__(self) -> str:
        return f"<GuardedUrl of {self.authority}>"

    @property
    def authority(self) -> str:
        """Host, and port where it is not 443: the name of a group of connections."""
        return self.host if self.port == 443 else f"{self.host}:{self.port}"

    @property
    def origin(self) -> str:
        """`https://` and the authority."""
        return f"https://{self.authority}"

    @property
    def url(self) -> str:
        """The canonical text: scheme and host in lower case, port 443 left out, the rest untouched."""
        return f"https://{self.authority}{self.target}"


class AllowedEntry(Protocol):
    """An entry of `allowed_hosts` that says more than a name."""

    @property
    def host(self) -> str:
        """The host as it was written."""
        ...

    @property
    def private(self) -> bool:
        """Whether its addresses may be of a private network."""
        ...

    @property
    def ca_file(self) -> Path | None:
        """The authority of its certificate, besides the system's."""
        ...

    def check(self) -> None:
        """Raise `ConfigurationError` for an entry that cannot be meant."""
        ...

    def admits(self, host: str, port: int) -> bool:
        """Whether a URL may name this host and port."""
        ...


class HostGuard:
    """Admits https URLs on `port` whose host is on the allow-list.

    An entry of `allowed_hosts` such as `notify.windows.com` admits that host and everything below it; a leading `.` or
    `*.` is the same. With `public_hosts` every host with a proper public name passes as well, and then each address
    that it resolves to must be public (see `addresses`). `allow_private` is for tests on loopback: any port, entries
    such as `localhost` or `127.0.0.1`, and no look at resolved addresses; the log says so. An entry that is no text
    (`fanout.plugin.AllowedHost`) admits its own names, and no more.

    Raises `ConfigurationError` for an entry that is no host, and for an empty list without `public_hosts`.
    """

    __slots__ = ("_exact", "_suffixes", "_usual", "allow_private", "named", "port", "public_hosts")

    def __init__(
        self,
        allowed_hosts: Iterable[str | AllowedEntry] = (),
        *,
        public_hosts: bool = False,
        allow_private: bool = False,
        port: int = 443,
    ) -> None:
        self.public_hosts = public_hosts
        self.allow_private = allow_private
        self.port = port
        entries = list(allowed_hosts)
        self.named = tuple(entry for entry in entries if not isinstance(entry, str))
        for entry in self.named:
            entry.check()
        names = [_entry(entry, allow_private=allow_private) for entry in entries if isinstance(entry, str)]
        self._exact = frozenset(names)
        self._suffixes = tuple(f".{name}" for name in names if not _is_literal(name))
        # Addresses in canonical form on a listed host, in one look: the question of every send.
        listed = "|".join(re.escape(name) for name in names if not _is_literal(name)) or "(?!)"
        self._usual = re.compile(rf"https://((?:{_LABEL}\.)*(?:{listed}))({_TARGET})")
        if not entries and not public_hosts:
            raise ConfigurationError(
                "allowed_hosts is empty: name the push service's host, such as notify.windows.com."
            )
        if allow_private:
            _log.warning(
                "allow_private is on for %s: addresses inside this network are reachable. For tests on loopback only.",
                ", ".join(names) or "every host",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts of the allow-list, in order."""
        return tuple(sorted({*self._exact, *(entry.host for entry in self.named)}))

    def entry(self, host: str, port: int) -> AllowedEntry | None:
        """The entry of the configuration that names this host and port by themselves, if one does.

        Args:
            host: The host name, in lower case.
            port: The TCP port.

        Returns:
            The entry; None where there is none.
        """
        return next((entry for entry in self.named if entry.admits(host, port)), None)

    def check(self, url: str) -> GuardedUrl:
        """The parts of a URL, if it may be used.

        Args:
            url: The URL, as the client gave it.

        Returns:
            The parts.

        Raises:
            HostRefused: It may not be used. The text does not have the URL.
        """
        if isinstance(url, str) and self.port == 443 and len(url) <= MOST_URL:
            usual = self._usual.fullmatch(url)
            if usual is not None and "--" not in usual[1] and len(usual[1]) <= 253:
                return GuardedUrl(usual[1], 443, usual[2])
        return self._check(url)

    def _check(self, url: str) -> GuardedUrl:
        """The whole of `check`, without the short way."""
        if not isinstance(url, str) or len(url) > MOST_URL or not _HARMLESS.fullmatch(url) or _BAD_ESCAPE.search(url):
            raise HostRefused("form", f"The address is no URL of at most {MOST_URL} plain ASCII characters.")
        if "#" in url:
            raise HostRefused(
                "fragment",
                "The address has a fragment (#), which no push service hands out: give it as the platform handed it out.",
            )
        found = _URL.fullmatch(url)
        if found is None:
            raise HostRefused(
                "scheme", "The address does not begin with https:// and a host: give it as the platform handed it out."
            )
        authority, target = found.group(1), found.group(2) or "/"
        if "@" in authority:
            raise HostRefused("userinfo", "The address has a user name before its host.")
        parts = _AUTHORITY.fullmatch(authority)
        if parts is None:
            raise HostRefused(
                "host", "The address's host and port are malformed: give it as the platform handed it out."
            )
        host = parts.group(1).lower()
        port = int(parts.group(2) or 443)
        self.check_host(host, port)
        if port != self.port and self.entry(host, port) is None and not (self.allow_private and port < 65_536):
            raise HostRefused(
                "port",
                f"The address names another port than {self.port}: to admit it, add an entry such as push.lan:5443 to allowed_hosts.",
            )
        return GuardedUrl(host, port, target if target[0] == "/" else f"/{target}")

    def check_host(self, host: str, port: int = 443) -> None:
        """Refuse a host that may not be connected to.

        Args:
            host: The host, in lower case.
            port: The TCP port of the URL.

        Raises:
            HostRefused: It is no proper name, or none that is allowed.
        """
        if (self.allow_private and host in self._exact) or self.entry(host, port) is not None:
            return
        if _is_literal(host):
            raise HostRefused(
                "literal",
                "The address's host is an IP address: give the one that the platform handed out, which has a name.",
            )
        if not _HOST.fullmatch(host) or "." not in host or not _honest_idna(host):
            raise HostRefused(
                "host", "The address's host is no fully qualified name in plain ASCII (or valid xn-- form)."
            )
        if host in self._exact or host.endswith(self._suffixes):
            return
        if not self.public_hosts or host.rpartition(".")[2] in _SPECIAL:
            raise HostRefused(
                "list", "The address's host is none of the allowed push services: to admit it, add it to allowed_hosts."
            )

    def addresses(self, found: Sequence[str], host: str = "", port: int = 443) -> Sequence[str]:
        """The IP addresses of a host, if we may connect to them: every one must be public. One that is not condemns the
        others, for the name's owner means us no good then.

        Where an entry says that the host is private, they may be of a private network or of this machine.

        Args:
            found: The addresses.
            host: The host name that the addresses were found for.
            port: The TCP port of the URL.

        Returns:
            The same addresses.

        Raises:
            HostRefused: One of them is not public.
        """
        if not self.allow_private:
            entry = self.entry(host, port)
            private = entry is not None and entry.private
            for address in found:
                what = why_not_public(address)
                if what and not (private and what in PRIVATE):
                    raise HostRefused(
                        "literal",
                        f"The host resolves to an address that is not public ({what}): to admit it, add {{ host, private = true }} to allowed_hosts.",
                    )
        return found

    def __repr__(self) -> str:
        return f"HostGuard({sorted(self._exact)}, public_hosts={self.public_hosts}, allow_private={self.allow_private})"


def _is_literal(host: str) -> bool:
    """Whether some resolver or parser would take `host` for an IP address: also 0x7f.1, 017700000001 and 2130706433."""
    return host.startswith("[") or ":" in host or bool(_NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]))


def _honest_idna(host: str) -> bool:
    """Whether each `xn--` label is valid (RFC 5891): decodable, not plain ASCII in disguise, and canonical."""
    for label in host.split("."):
        if label[2:4] != "--":
            continue
        if not label.startswith("xn--"):
            return False
        try:
            name = label[4:].encode().decode("punycode")
            if name.isascii() or name.encode("punycode").decode() != label[4:]:
                return False
        except UnicodeError:
            return False
    return True


def _entry(entry: str, *, allow_private: bool) -> str:
    name = entry.strip().lower().removeprefix("*").removeprefix(".")
    if allow_private and (name == "localhost" or is_ip_address(name)):
        return name
    if not _HOST.fullmatch(name) or "." not in name or _is_literal(name) or not _honest_idna(name):
        raise ConfigurationError(
            f"allowed_hosts has {entry!r}, which is no host: write a name such as notify.windows.com, without https://."
        )
    return name
