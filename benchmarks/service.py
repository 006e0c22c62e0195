"""The REST service: posts that were accepted durably, a second, and how long an answer takes at half that rate.

    python -m benchmarks.service [--posts N] [--users N] [--only WORD]

The service runs as `fanout serve` runs it (uvicorn, uvloop where it is installed, SQLite with `synchronous=FULL` on the
disk of the current folder, callers told apart by an API key), with CPU 0 to itself; the client has CPU 1. Each user has
three devices: APNs, FCM and Web Push. Payloads are encoded by the real transports; sending is replaced by an answer at
once, for the wire is another benchmark's subject. Rows "accepted" are of a service that leaves delivering to others
(`fanout work`), "accepted and delivered" of one process that does both, until every delivery's settlement is committed.
The last rows are of that process on PostgreSQL, whose server (`fsync` on) shares CPU 1 with the client.

Latency is from the moment at which a post was due, not from when the client came to send it, so that waiting behind
others counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from benchmarks.postgres import own_server
from benchmarks.rig import CLIENT_CPU, GATEWAY_CPU
from benchmarks.row import Row
from fanout import bootstrap
from fanout.config import ApiKeySettings, Limits, ServiceSettings, Settings
from fanout.core.address import Address
from fanout.core.model import Notification
from fanout.core.policy import Policy, Retention
from fanout.engine import Engine, EngineOptions
from fanout.engine.context import Role
from fanout.plugin import ACCEPTED, Delivery, Diagnosis, Message, Outcome, StorageContext
from fanout.registry import Registry
from fanout.service import create_app
from fanout.service.auth import new_api_key
from fanout.service.feed import FeedService
from fanout.service.server import serving
from fanout_kit.postgres import MISSING, find_programs

__all__ = ["run"]

_CONNECTIONS = 64
_BINDINGS = ("apns", "fcm", "webpush")


class Instant:
    """A transport that encodes as the real one does, and whose gateway accepts everything at once."""

    def __init__(self, binding: str) -> None:
        if binding == "apns":
            from fanout_apns.payload import encode as apns
            from fanout_apns.transport import ApnsTransport as Real

            self._encode: Any = lambda notification: apns(notification, "com.example.app", {})
        elif binding == "fcm":
            from fanout_fcm.payload import encode as fcm
            from fanout_fcm.transport import FcmTransport as Real  # type: ignore[assignment]

            self._encode = lambda notification: fcm(notification, {})
        else:
            from fanout_webpush.payload import encode as webpush
            from fanout_webpush.transport import WebPushTransport as Real  # type: ignore[assignment]

            self._encode = lambda notification: webpush(notification, {})
        self.fits = Real.fits

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass

    def parse_address(self, raw: Any) -> Address:
        return Address(str(raw))

    def prepare(self, notification: Notification) -> Message:
        message: Message = self._encode(notification)
        return message

    def capacity(self, group: str) -> int:
        return 1000

    async def send(self, message: Message, delivery: Delivery) -> Outcome:
        return ACCEPTED

    async def check(self) -> Diagnosis:
        return Diagnosis()


async def serve(place: str, role: Role, users: int) -> None:
    """The service, until standard input ends. Prints one JSON line when it is ready."""
    clock = bootstrap.SystemClock()
    storage = Registry().make_storage(place, StorageContext(clock=clock, retention=Retention()))
    transports: Any = {("default", binding): Instant(binding) for binding in _BINDINGS}
    engine = Engine(
        storage,
        transports,
        EngineOptions(clock=clock, rng=random.Random(), policy=Policy(), role=role, drain_timeout=3),
    )
    key = new_api_key()
    known = ServiceSettings(
        keys=(ApiKeySettings(id=key.id, hash=key.hash),), limits=Limits(posts_per_minute=10_000_000)
    )
    app = create_app(engine, Settings(storage="", apps={}, service=known))
    bootstrap.dedicate_process()
    async with app.state.service as service:
        unsids = await asyncio.gather(*(_enrolled(service.feed, f"user-{n}", n) for n in range(users)))
        async with serving(app, "127.0.0.1", 0, service.limits) as url:
            print(json.dumps({"url": url, "key": key.key.reveal(), "unsids": unsids}), flush=True)
            while line := await asyncio.to_thread(sys.stdin.readline):
                if line.strip() == "drain":
                    await engine.drain(poll=0.01)
                print(json.dumps({"cpu": time.process_time()}), flush=True)


async def _enrolled(feed: FeedService, user: str, number: int) -> str:
    """A user with a device on each binding; the user's UNSID."""
    for binding in _BINDINGS:
        device, address = f"{user}-{binding}", f"{binding}-{number:060x}"
        made, _ = await feed.subscribe("default", user, device=device, binding=binding, address=address)
    return made.unsid


class _Client:
    """Posts over kept connections."""

    def __init__(self, at: dict[str, Any], kind: str) -> None:
        self._port = int(at["url"].rpartition(":")[2])
        self._unsids = at["unsids"]
        path = "/v1/notifications" if kind == "v1" else "/beta/me/notifications"
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {at['key']}\r\n"
        )
        self._kind = kind
        self._number = 0
        self.latencies: list[float] = []

    def _request(self) -> bytes:
        self._number += 1
        which = random.randrange(len(self._unsids))
        title, body = "Shipped", f"Order {self._number} is on its way"
        if self._kind == "v1":
            content: dict[str, Any] = {"target": {"user": f"user-{which}"}, "title": title, "body": body}
            more = ""
        else:
            content = {
                "targetHostName": "app.example.com",
                "appNotificationId": f"order-{os.getpid()}-{self._number}",
                "payload": {"visualContent": {"title": title, "body": body}}
                if self._kind == "visual"
                else {"rawContent": json.dumps({"order": self._number})},
                "priority": "High",
                "displayTimeToLive": "3600",
            }
            more = f"x-uns-id: {self._unsids[which]}\r\n"
        text = json.dumps(content)
        return f"{self._head}{more}content-length: {len(text)}\r\n\r\n{text}".encode()

    async def run(self, posts: int, rate: float | None) -> float:
        """So many posts, as fast as they are answered or at so many a second; seconds that it took."""
        began = time.perf_counter()
        due = iter(range(posts))

        async def one() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            for number in due:
                at = time.perf_counter()
                if rate is not None:
                    at = began + number / rate
                    await asyncio.sleep(max(0.0, at - time.perf_counter()))
                writer.write(self._request())
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith((b"HTTP/1.1 201", b"HTTP/1.1 202")):
                    raise RuntimeError(head.decode())
                length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                self.latencies.append(time.perf_counter() - at)
            writer.close()

        await asyncio.gather(*(one() for _ in range(_CONNECTIONS)))
        return time.perf_counter() - began


def load(at: dict[str, Any], kind: str, posts: int, rate: float | None) -> dict[str, float]:
    """One run of the client. `began` is on the clock that all processes of a machine share, when it has loaded its
    modules."""
    client = _Client(at, kind)
    loop = bootstrap.loop_factory()
    with asyncio.Runner(loop_factory=loop) as runner:
        took = runner.run(client.run(posts, rate))
    ended = time.perf_counter()
    found = sorted(client.latencies)
    return {
        "began": ended - took,
        "rate": posts / took,
        "p50": found[len(found) // 2] * 1000,
        "p99": found[int(len(found) * 0.99)] * 1000,
        "worst": found[-1] * 1000,
    }


def _pinned(cpu: int, *words: str) -> list[str]:
    return ["taskset", "-c", str(cpu), sys.executable, "-m", "benchmarks.service", *words]


@contextmanager
def service(place: str, role: str, users: int) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The service in a process of its own, on CPU 0."""
    command = _pinned(CLIENT_CPU, "--serve", place, role, str(users))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(30)


def _ask(process: subprocess.Popen[str], word: str) -> float:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    return float(json.loads(process.stdout.readline())["cpu"])


def _run_client(at: dict[str, Any], kind: str, posts: int, rate: float | None = None) -> dict[str, float]:
    out = subprocess.run(
        _pinned(GATEWAY_CPU, "--load", kind, str(posts), str(rate or 0)),
        input=json.dumps(at),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: dict[str, float] = json.loads(out)
    return found


_NAMES = {"v1": "/v1/notifications", "visual": "Graph, visual", "raw": "Graph, raw"}


def run(*, posts: int = 20_000, users: int = 1000, only: str = "") -> list[Row]:
    """The measurements, as rows; with `only` those of the services whose name begins so."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fanout-bench-") as folder:
        for role, what in (("submit", "accepted"), ("both", "accepted and delivered")):
            if what.startswith(only):
                with service(f"sqlite:{folder}/{role}.db", role, users) as (process, at):
                    rows += _measured(process, at, what, _NAMES, role == "both", posts)
    what = "PostgreSQL, accepted and delivered"
    if not what.startswith(only):
        return rows
    if find_programs() is None:
        return [*rows, Row(what, 0.0, "", note=f"skipped: {MISSING}")]
    with own_server() as server, service(server.url(server.fresh()), "both", users) as (process, at):
        return rows + _measured(process, at, what, ("v1",), True, posts)


def _measured(
    process: subprocess.Popen[str], at: dict[str, Any], what: str, kinds: Iterable[str], delivers: bool, posts: int
) -> list[Row]:
    """A service under full load, and at half the rate of that."""
    rows: list[Row] = []
    word = "drain" if delivers else "cpu"
    for kind in kinds:
        name = _NAMES[kind]
        _run_client(at, kind, posts // 10)
        before = _ask(process, word)
        found = _run_client(at, kind, posts)
        cpu = _ask(process, word) - before
        rate = posts / (time.perf_counter() - found["began"]) if delivers else found["rate"]
        note = f"CPU {cpu / posts * 1e6:.0f} us a post; under full load p99 {found['p99']:.0f} ms"
        about: dict[str, Any] = {
            "cores": f"service CPU {CLIENT_CPU}, client CPU {GATEWAY_CPU}",
            "figure": "posts a second",
        }
        rows.append(Row(f"{what}, {name}", rate, "posts/s", note=note, **about))
        half = _run_client(at, kind, posts // 2, rate / 2)
        note = f"p50 {half['p50']:.1f} ms, worst {half['worst']:.0f} ms, at {half['rate']:,.0f} posts/s"
        rows.append(Row(f"{what}, {name}: p99 at half the rate", half["p99"], "ms", note=note))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--only", default="", metavar="WORD", help="such as PostgreSQL")
    parser.add_argument("--serve", nargs=3, metavar=("STORAGE", "ROLE", "USERS"), help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=3, metavar=("KIND", "POSTS", "RATE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        place, role, users = chosen.serve
        with asyncio.Runner(loop_factory=bootstrap.loop_factory()) as runner:
            runner.run(serve(place, role, int(users)))
    elif chosen.load:
        kind, posts, rate = chosen.load
        print(json.dumps(load(json.load(sys.stdin), kind, int(posts), float(rate) or None)))
    else:
        for row in run(posts=chosen.posts, users=chosen.users, only=chosen.only):
            print(row)


if __name__ == "__main__":
    main()
