"""The request to a simulator, and all of its possible answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Answer", "Disconnect", "Peer", "Push", "Reply", "Request", "Reset", "Stall"]

INTERNAL_ERROR = 0x2


class Peer:
    """One client connection, as a handler sees it.

    `number` counts from 1. `certificate` is the client's certificate in DER, or None. `state` belongs to the handler
    and lives as long as the connection. Setting `streams` announces another MAX_CONCURRENT_STREAMS.
    """

    __slots__ = ("certificate", "number", "state", "streams")

    def __init__(self, number: int, certificate: bytes | None, streams: int) -> None:
        self.number = number
        self.certificate = certificate
        self.state: dict[str, Any] = {}
        self.streams = streams


class Request:
    """One complete request. `fields` are its ordinary header fields in order, `headers` the same by lower-case name
    (the last wins)."""

    __slots__ = ("body", "fields", "headers", "method", "path", "peer")

    def __init__(self, method: str, path: str, fields: Sequence[tuple[str, str]], body: bytes, peer: Peer) -> None:
        self.method = method
        self.path = path
        self.fields = fields
        self.headers = dict(fields)
        self.body = body
        self.peer = peer


class Push(NamedTuple):
    """The record of an accepted push.

    `delivery` and `notification` are UUIDs (either may be empty), `address` is the 32 hexadecimal digits of
    `Address.digest`.
    """

    delivery: str
    address: str
    notification: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with a status. `push` marks it as an acceptance; otherwise the counters file it under `reason`.

    `after` is in seconds; other requests do not wait for it. `undecided` says that the push is accepted only when the
    answer leaves.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    push: Push | None = None
    reason: str = ""
    after: float = 0.0
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """RST_STREAM with an error code of RFC 9113, section 7 (REFUSED_STREAM is 7)."""

    code: int = INTERNAL_ERROR


@dataclass(frozen=True, slots=True)
class Stall:
    """No answer, ever; the stream stays open."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The connection is cut at once, without a word. The answers to other requests on it are lost too."""


Answer: TypeAlias = Reply | Reset | Stall | Disconnect
