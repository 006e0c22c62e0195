"""The settings of the HTTP/1.1 client, and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from fanout.http.response import Response

__all__ = ["Http1Response", "Http1Settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Settings:
    """All times in seconds. Raises `ValueError` for a number that cannot work."""

    connections: int = 64
    """To one host at most; each carries one request at a time. Hosts do not share them, so that one cannot use up
    another's."""
    request_timeout: float = 15.0
    """From the moment a connection may be used or opened to the last byte of the answer. Before that, a request waits
    half as long."""
    connect_timeout: float = 10.0
    """For name lookup, TCP and TLS together."""
    keep_alive: float = 55.0
    """For how long an unused connection is kept: just under the minute after which many servers close."""
    max_body: int = 65_536
    """Bytes of an answer's body that are read; beyond them the connection is dropped, for the rest may have no end."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            if not getattr(self, setting.name) > 0:
                raise ValueError(f"{setting.name} is {getattr(self, setting.name)!r}: it must be above zero.")


class Http1Response(Response):
    """A complete answer over HTTP/1.1."""

    __slots__ = ("_fields",)

    def __init__(self, status: int, body: bytes, fields: Mapping[str, str]) -> None:
        super().__init__(status, body, b"")
        self._fields = fields

    def headers(self) -> list[tuple[str, str]]:
        """All fields in order, names in lower case."""
        return [(name.lower(), value) for name, value in self._fields.items()]

    def header(self, name: str) -> str | None:
        """The first value of the field `name`, or None."""
        return self._fields.get(name)
