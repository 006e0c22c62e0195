"""A network in memory: names, addresses, connections, and everything that can happen to bytes between two processes.

Bytes leave in segments, arrive in order after a latency drawn from the seed, and wait at the receiving kernel until its
process reads. A host may refuse, swallow or stop; a path may be cut for a while and deliver late, as TCP does, or for
good.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from fanout_kit.simulation.wire import describe

if TYPE_CHECKING:
    from fanout_kit.simulation.loop import NodeLoop
    from fanout_kit.simulation.world import World

__all__ = ["End", "Host", "Network"]

_READ = 262_144
"""Bytes that one read takes at most, as in asyncio's selector loop."""

_Kind = Literal["data", "fin", "reset"]


class Host:
    """A server's machine: its addresses, and how it takes to being called. `accept` makes the protocol of a
    connection."""

    def __init__(self, name: str, addresses: list[str], node: NodeLoop, accept: Callable[[], asyncio.Protocol]) -> None:
        self.name = name
        self.addresses = addresses
        self.node = node
        self.accept = accept
        self.state: Literal["up", "refusing", "swallowing"] = "up"
        self.named = True
        """Whether the name service knows it at present."""
        self.deaf: set[str] = set()
        """Addresses at which no server answers, although the others do."""
        self.slowness = 1.0
        self.cut_until = 0.0
        """Until then nothing passes; bytes that were sent meanwhile arrive afterwards."""


class Network:
    """All hosts and connections. `latency` is the range of one segment's way, in seconds; `segment` the largest one, in
    bytes.

    `window` is how many bytes may be under way or unread before a sender must wait; `half_heard` the share of resets
    that overtake bytes sent before them.
    """

    def __init__(
        self,
        world: World,
        rng: random.Random,
        *,
        latency: tuple[float, float] = (0.0005, 0.02),
        segment: int = 1460,
        split: float = 0.2,
        window: int = 65_536,
    ) -> None:
        self.world = world
        self.rng = rng
        self.hosts: dict[str, Host] = {}
        self._latency = latency
        self._segment = segment
        self._split = split
        self.window = window
        self._made = 0
        self._dialled: dict[socket.socket, End] = {}

    def add(self, host: Host) -> None:
        """A host that can be called from now on."""
        self.hosts[host.name] = host

    def delay(self, host: Host) -> float:
        """How long one segment takes to or from this host, if nothing is cut."""
        return self.rng.uniform(*self._latency) * host.slowness

    def pieces(self, size: int) -> Iterator[int]:
        """The segments into which so many bytes fall."""
        while size > 0:
            piece = min(size, self._segment)
            if piece > 1 and self.rng.random() < self._split:
                piece = self.rng.randrange(1, piece)
            yield piece
            size -= piece

    # -- a loop's calls

    async def look_up(self, node: NodeLoop, name: str, port: int) -> list[Any]:
        """getaddrinfo. Raises `socket.gaierror`."""
        host = self.hosts.get(name)
        await _wait(node, self.rng.uniform(0.0002, 0.01))
        if host is None or not host.named:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in host.addresses]

    async def connect(self, node: NodeLoop, sock: socket.socket, address: tuple[str, int]) -> None:
        """Three-way handshake. Raises `ConnectionRefusedError`; against a host that swallows, waits for ever."""
        node.sockets[sock] = None
        answer: asyncio.Future[End] = node.create_future()
        host = next((host for host in self.hosts.values() if address[0] in host.addresses), None)
        if host is not None:
            there = max(self.world.time, host.cut_until) + self.delay(host)
            self.world.at(there, self._arrive, node, host, address[0], answer)
        try:
            self._dialled[sock] = await answer
        except BaseException:
            # The dialler closes its socket; a connection that came about nevertheless has no reader.
            node.sockets.pop(sock, None)
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                answer.result().kill()
            raise

    def _arrive(self, node: NodeLoop, host: Host, address: str, answer: asyncio.Future[End]) -> None:
        if host.state == "swallowing" or address in host.deaf:
            return
        back = max(self.world.time, host.cut_until) + self.delay(host)
        if host.state == "refusing":
            self.world.say(host.name, "refuse", node.name)
            self.world.at(back, node.post, _fail, answer, ConnectionRefusedError(111, "Connection refused"))
            return
        self._made += 1
        client = End(self, node, host, f"{host.name}#{self._made}")
        server = End(self, host.node, host, f"{node.name}#{self._made}")
        client.peer, server.peer = server, client
        self.world.say(host.name, "accept", f"{node.name} as #{self._made}")
        host.node.post(_serve, host, server)
        self.world.at(back, node.post, _succeed, answer, client)

    async def open(self, node: NodeLoop, make: Callable[[], asyncio.Protocol], **more: Any) -> Any:
        """`create_connection(make, sock=…)`: the socket becomes a transport; TLS costs its round trips and nothing
        else."""
        sock = more["sock"]
        end = self._dialled.pop(sock)
        node.sockets.pop(sock, None)
        end.sock = sock
        try:
            if more.get("ssl") is not None:
                end.extra["ssl_object"] = _Encrypted()
                await _wait(node, self.delay(end.host) + self.delay(end.host))
            protocol = make()
            made: asyncio.Future[None] = node.create_future()
            node.call_soon(end.attach, protocol)
            node.call_soon(_succeed, made, None)
            await made
        except BaseException:
            end.abort()
            raise
        return end, protocol


class _Encrypted:
    """The question to a TLS connection: the protocol that was agreed on."""

    def selected_alpn_protocol(self) -> str:
        return "h2"


class End(asyncio.Transport):
    """One end of a connection, and the kernel's buffers behind it. `name` is whom it leads to."""

    def __init__(self, network: Network, node: NodeLoop, host: Host, name: str) -> None:
        super().__init__()
        self.network = network
        self.node = node
        self.host = host
        self.name = name
        self.peer: End = self
        self.sock: socket.socket | None = None
        self.extra: dict[str, Any] = {"peername": (host.addresses[0], 443)}
        self.silent = False
        """The machine at this end is gone without a word: bytes that arrive are lost, and nothing answers."""
        self._protocol: asyncio.Protocol | None = None
        self._inbox: list[bytes] = []
        self._end: Exception | Literal["fin"] | None = None
        self._out = bytearray()
        self._unread = 0
        self._arrival = 0.0
        self._closing = False
        self._gone = False
        self._reading = True
        self._held = False
        node.ends[self] = None

    __hash__ = object.__hash__

    # -- the kernel

    def _send(self, kind: _Kind, data: bytes = b"") -> None:
        world, host = self.network.world, self.host
        when = max(self._arrival, max(world.time, host.cut_until) + self.network.delay(host))
        self._arrival = when
        world.at(when, self.peer.arrive, kind, data)

    def arrive(self, kind: _Kind, data: bytes) -> None:
        """A segment comes in. To a socket that is closed, the kernel answers with a reset."""
        if self.silent:
            return
        if self._gone or self._closing:
            if kind == "data" and not self.peer._gone:
                self._send("reset")
            elif kind == "reset" and not self._gone:
                self._out.clear()
                self.node.post(self._lost, ConnectionResetError(104, "Connection reset by peer"))
            return
        if kind == "data":
            self._inbox.append(data)
        elif kind == "fin":
            self._end = self._end or "fin"
        else:
            self._end = ConnectionResetError(104, "Connection reset by peer")
            if self.network.rng.random() < 0.5:
                self._inbox.clear()
        if self._reading and self._protocol is not None:
            self.node.to_read(self)

    def kill(self) -> None:
        """The process of this end is dead, or has lost interest: its kernel says so to the other."""
        if not self._gone:
            self._gone = True
            self._out.clear()
            if not self.silent:
                self._send("reset" if self._inbox or self.network.rng.random() < 0.5 else "fin")
        self._let_go()

    def vanish(self) -> None:
        """The machine of this end loses power: no peer is told."""
        self.silent = self._gone = True
        self._let_go()

    def _let_go(self) -> None:
        self.node.ends.pop(self, None)
        self.node.readable.pop(self, None)
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    # -- the process

    def attach(self, protocol: asyncio.Protocol) -> None:
        """The protocol hears from now on."""
        if self._gone:
            return
        self._protocol = protocol
        protocol.connection_made(self)
        self._look()

    def _look(self) -> None:
        if self._reading and not self._gone and (self._inbox or self._end is not None):
            self.node.to_read(self)

    def read(self) -> None:
        """The loop found the socket readable."""
        self.node.readable.pop(self, None)
        if self._gone or self._closing or not self._reading or self._protocol is None:
            return
        if self._inbox:
            data = b"".join(self._inbox)
            rest = data[_READ:]
            self._inbox = [rest] if rest else []
            data = data[:_READ]
            peer = self.peer
            peer._unread -= len(data)
            if peer._out:
                peer.node.post(peer._writable)
            self._protocol.data_received(data)
            self._look()
        elif self._end == "fin":
            self._end = None
            if not self._protocol.eof_received():
                self.close()
        elif self._end is not None:
            self._lose(self._end)

    def _writable(self) -> None:
        self._push()
        if self._held and len(self._out) * 4 <= self.network.window and not self._gone and self._protocol is not None:
            self._held = False
            self._protocol.resume_writing()
        if self._closing and not self._out and not self._gone:
            self._finish()

    def _push(self) -> None:
        """As much into the network as fits into the window."""
        room = self.network.window - self._unread
        size = min(room, len(self._out))
        if size <= 0:
            return
        position = 0
        for piece in self.network.pieces(size):
            self._unread += piece
            self._send("data", bytes(self._out[position : position + piece]))
            position += piece
        del self._out[:size]

    def _finish(self) -> None:
        self._send("fin")
        self.node.call_soon(self._lost, None)

    def _lose(self, error: Exception) -> None:
        if not self._closing:
            self._closing = True
            self.node.call_soon(self._lost, error)

    def _lost(self, error: Exception | None) -> None:
        if self._gone:
            return
        self._gone = True
        self._let_go()
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    # -- asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._gone or self._closing or not data:
            return
        world = self.network.world
        text = f"{self.name} {describe(bytes(data))}" if world.trace.keep else ""
        world.say(self.node.name, "write", text, bytes(data))
        self._out += data
        self._push()
        if not self._held and len(self._out) > self.network.window and self._protocol is not None:
            self._held = True
            self._protocol.pause_writing()

    def close(self) -> None:
        if self._gone or self._closing:
            return
        self._closing = True
        self.node.readable.pop(self, None)
        if not self._out:
            self._finish()

    def abort(self) -> None:
        if self._gone:
            return
        self._closing = True
        self.node.readable.pop(self, None)
        self._out.clear()
        if not self.silent:
            self._send("reset")
        self.node.call_soon(self._lost, None)

    def is_closing(self) -> bool:
        return self._closing or self._gone

    def pause_reading(self) -> None:
        self._reading = False
        self.node.readable.pop(self, None)

    def resume_reading(self) -> None:
        self._reading = True
        self._look()

    def is_reading(self) -> bool:
        return self._reading

    def get_write_buffer_size(self) -> int:
        return len(self._out)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.extra.get(name, default)


async def _wait(node: NodeLoop, seconds: float) -> None:
    future: asyncio.Future[None] = node.create_future()
    timer = node.call_later(seconds, _succeed, future, None)
    try:
        await future
    finally:
        timer.cancel()


def _succeed(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
    elif isinstance(value, End):
        value.kill()


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _serve(host: Host, end: End) -> None:
    end.attach(host.accept())
