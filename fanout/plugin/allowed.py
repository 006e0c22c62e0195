"""Hosts that an operator names one by one: in a local network, on another port, behind an authority of its own.
Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from fanout.core.urls import is_ip_address
from fanout.errors import refuse

__all__ = ["AllowedHost"]

_NAME = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/]+)(?::([1-9][0-9]{0,4}))?")


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """An entry of `allowed_hosts` that says more than a name.

    `host` is a name, which stands for all names below it too, with a port where that is not 443: `push.lan:5443`. With
    `private` its addresses may be those of a private network or of this machine (never link-local ones, where clouds
    keep credentials), and it may be a name without a dot or an IP address. `ca_file` is the authority (PEM) that its
    certificate is of, besides the system's.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    host: str
    private: bool = False
    ca_file: Path | None = None

    def check(self) -> None:
        """Refuse an entry that cannot be meant.

        Raises:
            ConfigurationError: There is a problem; `faults` has all.
        """
        refuse(self.problems())

    def problems(self) -> Iterator[str]:
        """The reasons for which an entry cannot be meant.

        Yields:
            A sentence for each; nothing for an entry that is in order.
        """
        found = _PLACE.fullmatch(self.host.strip().lower())
        port = int(found[2] or 443) if found is not None else 0
        name = found[1].removeprefix("*").removeprefix(".") if found is not None else ""
        literal = is_ip_address(name)
        if not 0 < port < 65_536 or not (literal or _NAME.fullmatch(name)):
            yield (
                f"allowed_hosts has {{ host = {self.host!r} }}, which is no host: write a name such as push.lan or push.lan:5443."
            )
        elif not self.private and (literal or "." not in name):
            yield (
                f"allowed_hosts has {{ host = {self.host!r} }}, which is a name or address of a local network: add private = true."
            )
        if self.ca_file is not None and not self.ca_file.is_file():
            yield f"allowed_hosts: ca_file names no file ({self.ca_file}): put the PEM file there or correct the path."

    @property
    def place(self) -> tuple[str, int]:
        """Name and port."""
        found = _PLACE.fullmatch(self.host.strip().lower())
        assert found is not None
        return found[1].removeprefix("*").removeprefix("."), int(found[2] or 443)

    def admits(self, host: str, port: int) -> bool:
        """Whether a URL may name this host and port.

        Args:
            host: The host, in lower case, as it stands in a URL.
            port: The TCP port.

        Returns:
            Whether it is this host, or one below its name, at its port.
        """
        name, own = self.place
        return port == own and (host == name or (not is_ip_address(name) and host.endswith(f".{name}")))
