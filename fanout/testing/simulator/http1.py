"""The server for gateways that speak HTTP/1.1 (RFC 9112), and for token endpoints: same answers, faults, counters and
ledger."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Self

from fanout.testing.simulator.answers import Answer, Disconnect, Peer, Reply, Request, Reset
from fanout.testing.simulator.base import Simulator
from fanout.testing.simulator.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Http1Connection", "Http1Simulator"]

_HEAD_LIMIT = 16_384
_BODY_LIMIT = 1_048_576
_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.1")
_FIELD = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,9}")


class _Broken(Exception):
    """The client broke a rule: the sentence for `violations`, and the status that it is told."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Http1Connection(Connection):
    """One connection, one request at a time. Chunked bodies, `Expect` and pipelining are breaches: gateways support
    none of them."""

    def __init__(self, simulator: Simulator) -> None:
        super().__init__(simulator)
        self._buffer = bytearray()
        self._pending = False
        self._timer: asyncio.TimerHandle | None = None
        self._last = False
        self._handled = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.peer = Peer(self.counters.connections, certificate, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._pending:
            self.counters.cancelled += 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.simulator.silent:
            return
        self._buffer += data
        if self._pending:
            self._violated(_Broken("a request was sent before the last one was answered"))
            return
        try:
            request = self._request()
        except _Broken as broken:
            self._violated(broken)
            return
        if request is not None:
            self._handle(request)

    def go_away(self, *, short: int = 0, code: int = 0, debug: bytes = b"") -> None:
        """Close after the answer that is due, or at once; HTTP/1.1 has no words for more."""
        self.counters.goaways += 1
        self._last = True
        if not self._pending:
            self.transport.close()

    def announce(self, streams: int) -> None:
        """HTTP/1.1 announces nothing."""

    def _request(self) -> Request | None:
        """The request in the buffer, if all of it is there. Raises `_Broken`."""
        end = self._buffer.find(b"\r\n\r\n")
        if end > _HEAD_LIMIT or (end < 0 and len(self._buffer) > _HEAD_LIMIT):
            raise _Broken("the request's head is too long", 431)
        if end < 0:
            return None
        first, *rest = self._buffer[:end].decode("latin-1").split("\r\n")
        line = _LINE.fullmatch(first)
        if line is None:
            raise _Broken("the request line is malformed")
        fields = [_field(text) for text in rest]
        start = end + 4
        size = _length(line.group(1), fields)
        if len(self._buffer) < start + size:
            return None
        body = bytes(self._buffer[start : start + size])
        del self._buffer[: start + size]
        if self._buffer:
            raise _Broken("a request was sent before the last one was answered")
        return Request(line.group(1), line.group(2), fields, body, self.peer)

    def _handle(self, request: Request) -> None:
        self._pending = True
        self._handled += 1
        every = self.simulator.faults.goaway_every
        if request.headers.get("connection", "").lower() == "close" or (every and self._handled >= every):
            self._last = True
        answer: Answer = self.simulator.answer(request)
        match answer:
            case Reply() if answer.after:
                self._timer = asyncio.get_running_loop().call_later(answer.after, self._reply, answer)
            case Reply():
                self._reply(answer)
            case Reset() | Disconnect():
                if isinstance(answer, Reset):
                    self.counters.resets += 1
                else:
                    self.counters.disconnects += 1
                self.simulator.flush_ledger()
                self.transport.abort()
            case _:
                self.counters.stalls += 1
                self.simulator.flush_ledger()

    def _reply(self, reply: Reply) -> None:
        self._timer = None
        self._pending = False
        if reply.undecided and not self.transport.is_closing():
            self.simulator.decided(reply)
        self.simulator.flush_ledger()
        if self.transport.is_closing():
            return
        lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}", f"Content-Length: {len(reply.body)}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        if self._last:
            lines.append("Connection: close")
        self.transport.write("\r\n".join((*lines, "", "")).encode("latin-1") + reply.body)
        if self._last:
            self.transport.close()

    def _violated(self, broken: _Broken) -> None:
        self.counters.violations.append(f"{broken}.")
        self._last = True
        self._reply(Reply(broken.status))


class Http1Simulator(Simulator):
    """A simulator whose server speaks HTTP/1.1 only. `Reset` and `Disconnect` both cut the connection."""

    async def __aenter__(self) -> Self:
        context = self.authority.server_context(client_certificates=self._client_certificates)
        context.set_alpn_protocols(["http/1.1"])
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Http1Connection(self), self._host, self._port, ssl=context, ssl_handshake_timeout=5.0, backlog=1024
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self


def _field(text: str) -> tuple[str, str]:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise _Broken("a header field is malformed")
    return found.group(1).lower(), found.group(2)


def _length(method: str, fields: Sequence[tuple[str, str]]) -> int:
    names = [name for name, _ in fields]
    if names.count("host") != 1:
        raise _Broken("there is not exactly one Host")
    if "transfer-encoding" in names:
        raise _Broken("the body is chunked", 411)
    if "expect" in names:
        raise _Broken("Expect is sent", 417)
    lengths = [value for name, value in fields if name == "content-length"]
    if not lengths and method not in ("POST", "PUT"):
        return 0
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise _Broken("there is not exactly one Content-Length", 411)
    if int(lengths[0]) > _BODY_LIMIT:
        raise _Broken("the body is over a mebibyte", 413)
    return int(lengths[0])


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Answer"
