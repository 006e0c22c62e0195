"""The settings of the HTTP/1.1 client, its answers, and their receiver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

from fanout.http.response import RequestFailed, Response

__all__ = ["Http1Answers", "Http1Response", "Http1Settings"]


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
    """A complete answer over HTTP/1.1. `fields` are its header fields: by name, or as lines, each behind a CRLF, that
    are taken apart when one is asked for."""

    __slots__ = ()

    def __init__(self, status: int, body: bytes, fields: Mapping[str, str] | bytes) -> None:
        if not isinstance(fields, bytes):
            fields = "".join(f"\r\n{name}: {value}" for name, value in fields.items()).encode("latin-1", "replace")
        super().__init__(status, body, fields)

    def headers(self) -> list[tuple[str, str]]:
        """All fields in order, names in lower case."""
        pairs = (line.partition(b":") for line in self._block.split(b"\r\n")[1:])
        return [(name.lower().decode("latin-1"), value.strip().decode("latin-1")) for name, _, value in pairs]

    def header(self, name: str) -> str | None:
        """The first value of the field `name`, or None."""
        mark = b"\r\n%b:" % name.lower().encode()
        at = self._block.lower().find(mark)
        if at < 0:
            return None
        return self._block[at + len(mark) :].partition(b"\r\n")[0].strip().decode("latin-1")


class Http1Answers(Protocol):
    """The receiver of the answers to requests that were started together. Each index is answered once, in a callback of
    the loop's own: never during `Http1Client.start`, and never inside a connection."""

    def answered(self, results: list[tuple[int, Response | RequestFailed]]) -> None:
        """These have ended, in one turn of the loop.

        Args:
            results: The numbers of the requests, from 0, each with its answer, or why none will come.
        """
        ...

    def over(self, index: int) -> bool:
        """Whether the answer to a request is waited for no more: its connection is then closed within a tick.

        Args:
            index: The number of the request, from 0.

        Returns:
            Whether it is over.
        """
        ...
