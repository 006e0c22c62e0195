"""A gateway of the fault run: a transport's simulator in a process of its own, told through a socket how to misbehave.

It is the simulator of `fanout.testing.simulator` with what the table asks for besides its `Faults`: a capacity, a
timeline of what it was offered, a check of expiry by its own clock, answers that are mutated, tokens that are counted.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from fanout.testing.simulator import Answer, Disconnect, Faults, Reply, Request, Reset, Simulator, Stall
from fanout.testing.simulator.__main__ import _find
from tests.faults.nursery import Child, Nursery

__all__ = ["Gateway", "main"]

_SLOT = 0.1
"""Seconds of a slot of the timeline."""


class Strain:
    """How a simulator is strained at present; `set` of the control socket changes any of it."""

    def __init__(self) -> None:
        self.capacity = 0.0
        """Requests that are served a second; above that, `error`. 0 is no limit."""
        self.error = "ServiceUnavailable"
        self.burst = 0.0
        self.retry_after = ""
        """What a `Retry-After` says in every error that the strain makes."""
        self.share = 0.0
        """How many of all requests are answered with `error`, from 0 to 1."""
        self.mutate = False
        self.offered: Counter[int] = Counter()
        self.served: Counter[int] = Counter()
        self.tokens: set[str] = set()
        self.late: list[str] = []
        """Pushes that arrived after their own expiry."""
        self.expirations: list[tuple[str, str, float]] = []
        """(delivery, apns-expiration, when) of each push."""
        self.remaining: list[tuple[list[int], float]] = []
        """(every TTL in seconds that it names, when) of each request, where a gateway is told seconds and no time."""
        self.remember = False
        self.tell_once: dict[str, str] = {}
        """By a part of the path: what a `Retry-After` says, once, in an answer with `error` ("-": says nothing)."""
        self.exact = False
        """Whether the keys of `tell_once` are the last parts of paths: then there may be many."""
        self.told: list[tuple[str, float]] = []
        """(part of the path, when) of those."""
        self.refuse_paths = ""
        """Requests for a path with this text are answered with `error`."""
        self._tokens = 0.0
        self._filled = time.monotonic()

    def once(self, path: str) -> str | None:
        """The key of `tell_once` that is meant for this request."""
        if self.exact:
            last = path.rpartition("/")[2]
            return last if last in self.tell_once else None
        return next((part for part in self.tell_once if part in path), None)

    def admits(self) -> bool:
        """Whether there is capacity for one more."""
        if not self.capacity:
            return True
        now = time.monotonic()
        most = self.burst or max(1.0, self.capacity * 0.05)
        self._tokens = min(most, self._tokens + (now - self._filled) * self.capacity)
        self._filled = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def strained(base: type[Simulator], strain: Strain) -> type[Simulator]:
    """The simulator's class, strained."""
    rng = random.Random(7)

    class Strained(base):  # type: ignore[misc,valid-type]
        def answer(self, request: Request) -> Answer:
            slot = int(time.time() / _SLOT)
            strain.offered[slot] += 1
            if token := request.headers.get("authorization"):
                strain.tokens.add(token)
            if strain.remember:
                strain.remaining.append((_ttls(request), time.time()))
                _look_at_expiry(strain, request)
            once = strain.once(request.path) if strain.tell_once else None
            after = strain.retry_after
            if once is not None:
                after = strain.tell_once.pop(once)
                strain.told.append((once, time.time()))
            fails = (
                once is not None
                or not strain.admits()
                or (strain.share and rng.random() < strain.share)
                or (strain.refuse_paths and strain.refuse_paths in request.path)
            )
            if fails:
                self.counters.requests += 1
                reply = self.error(strain.error, request)
                headers = dict(reply.headers) | ({"retry-after": after} if after and after != "-" else {})
                return self._counted(Reply(reply.status, headers, reply.body, reason=reply.reason))
            answer = super().answer(request)
            if isinstance(answer, Reply) and answer.push is not None:
                strain.served[slot] += 1
            if strain.mutate:
                return mutated(answer, rng)
            return answer

    return Strained


def _look_at_expiry(strain: Strain, request: Request) -> None:
    told = request.headers.get("apns-expiration", "")
    now = time.time()
    delivery = request.headers.get("apns-id", "")
    strain.expirations.append((delivery, told, now))
    if told not in ("", "0") and float(told) < now - 1:
        strain.late.append(delivery)


def _ttls(request: Request) -> list[int]:
    """What FCM's body, and the headers of Web Push and WNS, name as the time that remains."""
    found = [request.headers.get(name) for name in ("ttl", "x-wns-ttl")]
    if request.headers.get("content-type", "").startswith("application/json"):
        message = json.loads(request.body).get("message", {})
        found += [message.get("android", {}).get("ttl"), message.get("webpush", {}).get("headers", {}).get("TTL")]
    return [int(value.removesuffix("s")) for value in found if value is not None]


def mutated(answer: Answer, rng: random.Random) -> Answer:
    """Another answer than the gateway's own: nonsense that a client must survive and file under something."""
    if not isinstance(answer, Reply) or rng.random() < 0.3:
        return answer
    body = rng.choice(
        (
            b"", b"null", b"[]", b"{", b'{"reason":null}', b'{"reason":{"a":1}}', b'{"reason":"' + b"x" * 5000 + b'"}', b"\xff\xfe" * 50,
            b'{"reason":"Unregistered","timestamp":"soon"}', b'{"reason":"BadPriority\\u0000"}', b"<html>" + b"y" * 200_000, b"[" * 3000,
            b'{"timestamp":1e400}', b'{"error":{"code":"x"}}',
        )
    )  # fmt: skip
    status = rng.choice((200, 200, 201, 204, 299, 301, 307, 400, 404, 405, 418, 429, 451, 499, 500, 502, 503, 599, 999))
    headers = rng.choice(
        (
            {}, {"content-type": "text/html"}, {"content-type": "application/json; charset=utf-16"}, {"retry-after": "-5"},
            {"retry-after": "soon"}, {"retry-after": "9" * 300}, {"content-length": str(len(body))}, {"location": "https://127.0.0.1/"},
            {"apns-id": "x" * 2000}, {"content-encoding": "gzip"},
        )
    )  # fmt: skip
    return rng.choice(
        (Reply(status, headers, body, answer.push), Reply(status, headers, body), Reset(rng.randrange(14)))
    )


# -- in the gateway's process


def main() -> int:
    """gateway TRANSPORT CONTROL OPTIONS: serve until the control connection ends."""
    transport, control, options = sys.argv[1:4]
    return asyncio.run(_serve(transport, control, json.loads(options)))


async def _serve(transport: str, control: str, options: dict[str, Any]) -> int:
    strain = Strain()
    made: Any = _find(transport)
    faults = Faults.parse(options.pop("faults", {}))
    for name, value in options.pop("set", {}).items():
        setattr(strain, name, value)
    lean = bool(options.get("lean"))
    simulator = (made if lean else strained(made, strain))(faults=faults, **options)
    ended = asyncio.Event()

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _say(writer, {"url": simulator.url, "settings": simulator.settings(), "pid": os.getpid()})
            while line := await reader.readline():
                try:
                    _say(writer, await _command(simulator, strain, json.loads(line)))
                except Exception as error:
                    _say(writer, {"error": repr(error)})
        finally:
            writer.close()
            ended.set()

    async with simulator:
        server = await asyncio.start_unix_server(obey, control, limit=2**24)
        try:
            await ended.wait()
        finally:
            server.close()
    return 0


def _say(writer: asyncio.StreamWriter, values: Any) -> None:
    writer.write(json.dumps(values).encode() + b"\n")


async def _command(simulator: Any, strain: Strain, words: Mapping[str, Any]) -> Any:
    ((word, value),) = words.items()
    match word:
        case "counters":
            return simulator.counters.as_dict()
        case "faults":
            simulator.faults = Faults.parse(value)
        case "set":
            for name, each in value.items():
                setattr(strain, name, each)
        case "simulator":
            for name, each in value.items():
                owner, _, attribute = name.rpartition(".")
                setattr(getattr(simulator, owner) if owner else simulator, attribute, each)
        case "get":
            return {
                name: sorted(found) if isinstance(found, set) else list(found.items()) if isinstance(found, Counter) else found
                for name, found in ((name, getattr(strain, name)) for name in value)
            }  # fmt: skip
        case "go_away":
            simulator.go_away(**value)
        case "announce":
            simulator.announce(value)
        case "disconnect":
            await simulator.disconnect()
        case "tokens":
            tokens = simulator.tokens
            match value:
                case "counters":
                    return tokens.counters.as_dict()
                case "revoke":
                    tokens.revoke()
                case "stall":
                    tokens.script = lambda request: Stall()
                case "fail":
                    tokens.script = lambda request: Reply(503, {}, b"")
                case "cut":
                    tokens.script = lambda request: Disconnect()
                case "":
                    tokens.script = None
                case _:
                    tokens.lifetime = value
        case _:
            raise ValueError(word)
    return {}


# -- in the runner's process


class Gateway:
    """A handle on a gateway's process. `port` keeps one, so that it can be started again where it was."""

    def __init__(
        self, nursery: Nursery, folder: Path, transport: str = "apns", *, name: str = "", port: int = 0, **options: Any
    ) -> None:
        self._nursery = nursery
        self._folder = folder
        self.transport = transport
        self.name = name or transport
        self.port = port
        self.ledger = folder / f"{self.name}.ledger"
        self._options = {"ledger": str(self.ledger)} | options
        self.settings: dict[str, Any] = {}
        self.url = ""
        self.process: Child
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._starts = 0

    async def start(self) -> Self:
        """Start it (again)."""
        self._starts += 1
        # A socket's path may have 107 bytes at most.
        control = Path("/tmp") / f"fanout-{os.getpid()}-{id(self):x}-{self._starts}.s"
        certificates = self._folder.parent / f"certificates-{self.transport}"
        options = {"folder": str(certificates), "port": self.port} | self._options
        self.process = self._nursery.spawn(
            "tests.faults.gateway:main",
            ["gateway", self.transport, str(control), json.dumps(options)],
            log=self._folder / f"{self.name}.log",
        )
        try:
            while True:
                try:
                    self._reader, self._writer = await asyncio.open_unix_connection(str(control), limit=2**24)
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    if self.process.ended:
                        raise RuntimeError(f"The gateway did not start: {self.process.said}") from None
                    await asyncio.sleep(0.005)
            said = json.loads(await self._reader.readline())
        finally:
            control.unlink(missing_ok=True)
        self.url, self.settings = said["url"], said["settings"]
        self.port = int(self.url.rpartition(":")[2])
        return self

    async def stop(self) -> None:
        """End it. Idempotent."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            self.process.kill()
            await self.process.wait()

    async def tell(self, **words: Any) -> Any:
        """One command, and its answer."""
        assert self._writer is not None
        self._writer.write(json.dumps(words).encode() + b"\n")
        answer = json.loads(await self._reader.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    async def faults(self, **faults: Any) -> None:
        """Set what goes wrong; nothing without arguments."""
        await self.tell(faults=faults)

    async def strain(self, **values: Any) -> None:
        """Set fields of `Strain`."""
        await self.tell(set=values)

    async def counters(self) -> dict[str, Any]:
        """The simulator's counters."""
        found: dict[str, Any] = await self.tell(counters=True)
        return found

    async def timeline(self, name: str) -> dict[int, int]:
        """`offered` or `served`, by slot of a tenth of a second."""
        found = await self.tell(get=[name])
        return {int(slot): count for slot, count in found[name]}

    @property
    def arrived(self) -> int:
        """Records in the ledger."""
        return self.ledger.stat().st_size // 56 if self.ledger.exists() else 0
