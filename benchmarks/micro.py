"""The cost of the single steps of one delivery, each by itself: nanoseconds of CPU.

    python -m benchmarks.micro [--count N] [--rounds N]

Encoding and decoding of HTTP/2, encryption, payloads, ids, the settlement decision and the queue of a lane, in the
calls that a delivery makes of them. The cost of SQLite (put, lease, resolve, settle) is `benchmarks.storage`, which
belongs to this table. The figure is the median of the rounds, the spread their least and greatest; the process has CPU
0.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import fanout
from benchmarks import rig
from benchmarks.rig import on_client_cpu
from benchmarks.row import Row
from benchmarks.webpush import encryption_alone, primitives_alone, subscriptions
from fanout.core.ids import DeliveryIds, notification_id
from fanout.core.lanes import WEIGHTS
from fanout.core.outcome import ACCEPTED, Gone, Throttled, Unavailable
from fanout.core.policy import Policy
from fanout.core.settlement import Attempted, decide
from fanout.engine.lane_queue import LaneQueue
from fanout.http.codec import Codec
from fanout.http.hpack_encoder import Head, literal
from fanout.testing.simulator import frames as h2

__all__ = ["run"]

NOW = 1_800_000_000.0
_AT_ONCE = 500
"""Requests that are open together, as over one connection."""


def run(*, count: int = 50_000, rounds: int = 7) -> list[Row]:
    """Every step, as rows."""
    steps: dict[str, Callable[[int], float]] = {
        "HTTP/2 encode: one request": _encode,
        "HTTP/2 decode: one answer of status 200": lambda n: _decode(n, b"\x88"),
        "HTTP/2 decode: one answer with headers": lambda n: _decode(n, h2.encode_headers(410, {"apns-id": "0" * 36})),
        "delivery id: UUIDv5 of notification and endpoint": _ids,
        "payload: APNs, once for a notification": lambda n: _payload(n),
        "payload: FCM body of one device": _fcm_body,
        "lane's queue: in and out": _lane,
        "settlement decision: accepted": lambda n: _decide(n, ACCEPTED),
        "settlement decision: gone": lambda n: _decide(n, Gone("Unregistered")),
        "settlement decision: throttled, back-off with jitter": lambda n: _decide(n, Throttled(None)),
        "settlement decision: unavailable, in doubt": lambda n: _decide(n, Unavailable("unknown")),
        "Web Push: encrypt one message": _encrypt(encryption_alone),
        "Web Push: the primitives of cryptography alone": _encrypt(primitives_alone),
    }
    rows = []
    with on_client_cpu():
        for name, step in steps.items():
            step(count // 10)
            taken = [step(count) / count * 1e9 for _ in range(rounds)]
            rows.append(
                Row(
                    name,
                    statistics.median(taken),
                    "ns of CPU",
                    note=f"{min(taken):,.0f} to {max(taken):,.0f}",
                    cores=f"CPU {rig.CLIENT_CPU} alone",
                    figure="nanoseconds of one step" if "Web Push" not in name else "nanoseconds of one encryption",
                )
            )
    return rows


def _timed(call: Callable[[], Any]) -> float:
    """Seconds of CPU."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


def _connection() -> Codec:
    """A started codec, whose peer has sent its SETTINGS."""
    codec = Codec()
    codec.start()
    codec.take()
    codec.receive(h2.settings({h2.MAX_CONCURRENT_STREAMS: 1000}) + h2.window_update(0, 0x7FFF_0000))
    codec.take()
    return codec


_HEAD = Head("POST", "https", "api.push.apple.com", [("apns-push-type", "alert"), ("apns-priority", "10")])
_FIELDS = literal("apns-id", "0" * 36) + literal("apns-expiration", "1900000000")
_PATH = b"/3/device/" + b"ab" * 32
_BODY = b'{"aps":{"alert":{"title":"Storm warning","body":"Gale-force winds from the west after six."}}}'


def _encode(count: int) -> float:
    def requests(codec: Codec) -> None:
        for number in range(_AT_ONCE):
            codec.request(number, _HEAD, _PATH, _FIELDS, _BODY)
        codec.take()

    return sum(_timed(partial(requests, _connection())) for _ in range(max(1, count // _AT_ONCE)))


def _decode(count: int, block: bytes) -> float:
    answers = b"".join(
        h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, block) for stream in range(1, 2 * _AT_ONCE, 2)
    )

    def once() -> float:
        codec = _connection()
        for number in range(_AT_ONCE):
            codec.request(number, _HEAD, _PATH, _FIELDS, _BODY)
        codec.take()
        took = _timed(lambda: codec.receive(answers))
        if len(codec.answered) != _AT_ONCE:
            raise RuntimeError(f"only {len(codec.answered)} of {_AT_ONCE} answers were read")
        return took

    return sum(once() for _ in range(max(1, count // _AT_ONCE)))


def _ids(count: int) -> float:
    ids = DeliveryIds(notification_id(NOW, bytes(10)))

    def make() -> None:
        for endpoint in range(count):
            ids(endpoint)

    return _timed(make)


def _payload(count: int) -> float:
    from fanout_apns.payload import encode

    notification = fanout.Notification(title=rig.TITLE, body=rig.BODY)
    few = max(1, count // 50)

    def make() -> None:
        for _ in range(few):
            encode(notification, rig.TOPIC, {})

    return _timed(make) / few * count


def _fcm_body(count: int) -> float:
    from fanout_fcm.payload import encode
    from fanout_fcm.simulator import FcmSimulator

    message = encode(fanout.Notification(title=rig.TITLE, body=rig.BODY), {}, validate_only=False)
    address = FcmSimulator.address(1)

    def make() -> None:
        for _ in range(count):
            message.body("token", address, 3600)

    return _timed(make)


def _lane(count: int) -> float:
    lease: Any = object()
    owner = SimpleNamespace(queued=0)

    def turn() -> None:
        queue = LaneQueue(WEIGHTS[1] * 16, 1, [0, 0, 0], owner)
        for first in range(0, count, 1000):
            queue.add(lease, [*range(first + 999, first - 1, -1)])
        for _ in range(count):
            queue.pop()

    return _timed(turn)


def _decide(count: int, outcome: Any) -> float:
    tried = Attempted(
        attempt=1, free=0, expires_at=NOW + 86_400, registered_at=NOW - 86_400, repeat="prefer_delivery", once=False,
        group_failing=False,
    )  # fmt: skip
    policy, rng = Policy(), random.Random(1)

    def many() -> None:
        for _ in range(count):
            decide(outcome, tried, policy, NOW, rng)

    return _timed(many)


def _encrypt(alone: Callable[[list[dict[str, Any]]], rig.Sample]) -> Callable[[int], float]:
    """Fewer of them: each takes as long as fifty of the other steps."""
    browsers: list[dict[str, Any]] = []

    def step(count: int) -> float:
        few = max(1, count // 50)
        while len(browsers) < few:
            browsers.extend(subscriptions(few - len(browsers), ""))
        return alone(browsers[:few]).cpu / few * count

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    for row in run(count=arguments.count, rounds=arguments.rounds):
        print(row)


if __name__ == "__main__":
    main()
