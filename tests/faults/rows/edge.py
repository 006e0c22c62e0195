"""Row 56: the service while many hold connections to it and ask nothing, send nothing, or read nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import psutil

from fanout.service.auth import new_api_key, new_user_key, user_token
from tests.faults.nursery import Child
from tests.faults.table import Finding, NotRun, measured
from tests.faults.world import Form, World, moment, until, world

__all__ = ["ROWS"]

_PER_USER = 25
_PER_ADDRESS = 900
"""Connections from one address of loopback: below the cap of a peer."""
_AT_ONCE = 100
_SPARE = 300
"""Descriptors of either side that are for other things."""
_LAZY = "lazy"
_LARGE = 40_000


@measured(
    56,
    "idle streams, slow bodies and streams that nobody reads, at once",
    "every post accepted, p99 < 100 ms on one core; every idle stream open; memory of what is not read bounded",
)
async def crowd(form: Form) -> Finding:
    """10,000 idle event streams, 500 bodies that come a byte at a time and 50 streams that never read, while a tenant
    posts."""
    idle, slow, lying = form.pick((40, 12, 4), (10_000, 500, 50))
    posts, pause = form.pick((30, 0.0), (1000, 0.02))
    _descriptors(idle + slow + lying + _SPARE)
    async with world(form, devices=20) as here:
        served = await _serve(here, idle + slow + lying + _SPARE)
        with ExitStack() as stack:
            crowd = Crowd(served)
            stack.callback(crowd.close)
            streams = await crowd.streams([f"u{n // _PER_USER}" for n in range(idle)])
            before = served.resident
            unread = await crowd.streams([f"{_LAZY}{n // _PER_USER}" for n in range(lying)], room=4096)
            for n in range(lying // _PER_USER + 1):
                for _ in range(form.pick(5, 40)):
                    await served.post(f"{_LAZY}{n}")
            bodies = await crowd.bodies(slow)
            # Of two senders each waits for its answer: what is measured is the service, and not a queue of our own.
            dripping = asyncio.create_task(_drip(bodies))
            began, worked = time.monotonic(), served.worked
            halves = await asyncio.gather(*(_posts(served, posts // 2, pause) for _ in range(2)))
            took, worked = time.monotonic() - began, served.worked - worked
            grown = served.resident - before
            dripping.cancel()
            open_streams = sum(map(_is_open, streams))
            taken = [answer for half in halves for answer in half]
        served.process.kill()
        await served.process.wait()
    waits = sorted(seconds for seconds, _ in taken)
    p99 = waits[int(len(waits) * 0.99)]
    accepted = sum(status == 202 for _, status in taken)
    figures = (
        f"posts accepted {accepted:,} of {len(taken):,}, p50 {waits[len(waits) // 2] * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms, longest "
        f"{waits[-1] * 1000:.0f} ms; streams open {open_streams:,} of {idle:,}; {grown / 2**20:.0f} MB more for what nobody reads"
    )
    counts = accepted == len(taken) and open_streams == idle and grown < form.pick(64, 128) * 2**20
    scale = f"{len(unread)} never read, {len(bodies)} slow bodies, {len(taken) / took:.0f} posts/s, the core {worked / took:.0%} busy with them, {before / 2**20:.0f} MB idle"
    return Finding(figures, counts, scale, time=p99 < 0.1)


def _descriptors(wanted: int) -> None:
    """Raise this process's limit of descriptors. Raises `NotRun`, by name, where the machine does not allow so many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise NotRun(f"needs {wanted:,} descriptors, and RLIMIT_NOFILE allows {hard:,} here: raise it (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass
class Served:
    """A `fanout serve` on one core, with a key of its app and one that signs for its users."""

    process: Child
    address: tuple[str, int]
    key: str
    signer: str
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def resident(self) -> int:
        """Bytes of memory."""
        found: int = psutil.Process(self.process.pid).memory_info().rss
        return found

    @property
    def worked(self) -> float:
        """Seconds of processor time so far."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def token(self, user: str) -> str:
        """A token of the user."""
        if user not in self.tokens:
            self.tokens[user] = user_token(self.signer, "default", user, ttl=3600)
        return self.tokens[user]

    async def post(self, user: str) -> None:
        """A large item enters the feed of the user, at her own word. Raises `RuntimeError` where it is refused."""
        content = {"targetHostName": "service", "payload": {"rawContent": "x" * _LARGE}}
        async with _Sender(self, self.token(user)) as sender:
            status = await sender.post("/me/notifications", content)
        if status != 201:
            raise RuntimeError(f"a post was answered {status}")


async def _serve(here: World, descriptors: int) -> Served:
    key, signer = new_api_key(), new_user_key()
    table = (
        f'\n[[service.keys]]\nid = "{key.id}"\nhash = "{key.hash}"\n[[service.user_keys]]\nid = "{signer.id}"\n'
        f'secret = "{signer.secret.reveal()}"\n'
    )
    here.config.write_text(here.config.read_text() + table)
    process = here.spawn("serve", "--port", "0", limits={"NOFILE": descriptors})
    await until(lambda: "Serving" in process.said or process.ended, 60, "the service")
    found = re.search(r"at http://([0-9.]+):(\d+) ", process.said)
    if found is None:
        raise RuntimeError(f"the service did not start: {process.said[-2000:]}")
    _one_core(process.pid)
    return Served(process, (found.group(1), int(found.group(2))), key.key.reveal(), signer.secret.reveal())


def _one_core(pid: int) -> None:
    """All threads of the process on the first core that it may use."""
    core = {min(os.sched_getaffinity(pid))}
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), core)


class Crowd:
    """Whoever holds connections to the service: plain sockets, from several addresses of loopback."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._sockets: list[socket.socket] = []

    def close(self) -> None:
        """Close them all."""
        for each in self._sockets:
            each.close()

    async def streams(self, users: Sequence[str], *, room: int = 0) -> list[socket.socket]:
        """An event stream for each of these users, opened and then left alone. `room` is the receive buffer's size.
        Raises `RuntimeError`."""
        made: list[socket.socket] = []
        for begin in range(0, len(users), _AT_ONCE):
            part = users[begin : begin + _AT_ONCE]
            made += await asyncio.gather(*(self._stream(user, room) for user in part))
        return made

    async def _stream(self, user: str, room: int) -> socket.socket:
        lines = f"Authorization: Bearer {self._served.token(user)}\r\nAccept: text/event-stream\r\n"
        made = await self._send(f"GET /v1/me/feed/events HTTP/1.1\r\nHost: service\r\n{lines}\r\n".encode(), room)
        heard, loop = b"", asyncio.get_running_loop()
        async with asyncio.timeout(120):
            while b"event: cursor" not in heard:
                part = await loop.sock_recv(made, 4096)
                if not part or not (heard + part).startswith(b"HTTP/1.1 200"[: len(heard + part)]):
                    raise RuntimeError(f"a stream was answered {(heard + part)[:200]!r}")
                heard += part
        return made

    async def bodies(self, count: int) -> list[socket.socket]:
        """Requests whose bodies have a length and have not begun."""
        head = (
            f"POST /v1/notifications HTTP/1.1\r\nHost: service\r\nAuthorization: Bearer {self._served.key}\r\n"
            "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
        ).encode()
        return list(await asyncio.gather(*(self._send(head, 0) for _ in range(count))))

    async def _send(self, data: bytes, room: int) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        if room:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        made.bind((f"127.0.1.{1 + len(self._sockets) // _PER_ADDRESS}", 0))
        self._sockets.append(made)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(120):
            await loop.sock_connect(made, self._served.address)
            await loop.sock_sendall(made, data)
        return made


async def _drip(bodies: Sequence[socket.socket]) -> None:
    """A byte of each body, again and again."""
    while True:
        for each in bodies:
            try:
                each.send(b" ")
            except OSError:
                continue  # it was told that it is too slow
        await moment(time.monotonic() + 1.0)


class _Sender:
    """One connection on which a post follows the other."""

    def __init__(self, served: Served, credential: str) -> None:
        self._served = served
        self._credential = credential

    async def __aenter__(self) -> _Sender:
        self._reader, self._writer = await asyncio.open_connection(*self._served.address)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.close()

    async def post(self, path: str, what: object) -> int:
        """A post; the status of its answer."""
        content = json.dumps(what)
        self._writer.write(
            f"POST {path} HTTP/1.1\r\nHost: service\r\nAuthorization: Bearer {self._credential}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()
        )
        async with asyncio.timeout(60):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"content-length: (\d+)", head)
            await self._reader.readexactly(int(length.group(1)) if length is not None else 0)
        return int(head.split(" ")[1])


async def _posts(served: Served, count: int, pause: float) -> list[tuple[float, int]]:
    """So many posts, one after the other: seconds until the answer, and its status."""
    found = []
    async with _Sender(served, served.key) as sender:
        for n in range(count):
            began = time.monotonic()
            what = {"target": {"user": f"u{n % 10}"}, "title": "x", "feed": True}
            status = await sender.post("/v1/notifications", what)
            found.append((time.monotonic() - began, status))
            await moment(began + pause)
    return found


def _is_open(connection: socket.socket) -> bool:
    """Whether the other end has not closed it; what has come is read."""
    try:
        while part := connection.recv(65_536):
            del part
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


ROWS = [crowd]
