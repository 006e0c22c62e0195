"""Malformed requests: thousands of bodies, none of which may be a 500. The mass goes to the ASGI app, some hundreds
over the socket."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from servicerig import UNLIMITED, Gateways, Rig, Stub, engine_of, running, settings_of

from fanout.service import create_app

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

LIMITS = replace(UNLIMITED, body_bytes=40_000, inflated_bytes=80_000)
GOOD: dict[str, Any] = {
    "/v1/notifications": {
        "target": {"user": "alice"}, "title": "Hi", "body": "b", "data": {"a": [1, {"b": None}]}, "ttl": "1h", "lane": "urgent",
        "actions": [{"id": "x", "title": "y"}], "transports": {"apns": {"priority": 5}}, "feed": {"id": "x", "expires_in": "1d"},
    },
    "/beta/me/notifications": {
        "targetHostName": "shop.example.com", "appNotificationId": "order-42", "expirationDateTime": "2030-01-31T23:59:00.000Z",
        "payload": {"visualContent": {"title": "Shipped", "body": "b"}, "rawContent": "r"}, "priority": "High", "groupName": "g",
        "targetPolicy": {"platformTypes": ["windows", "ios"]}, "displayTimeToLive": "60",
        "fallbackPolicy": {
            "endpointFallback": {"platformTypes": ["ios"], "fallbackDelayInSeconds": 60, "visualContent": {"title": "t"}}
        },
    },
    "/v1/endpoints": {
        "user": "alice", "binding": "apns", "address": "alice-1", "platform": "ios", "tags": ["news"], "expires_at": 4e9,
    },
    "/v1/endpoints/restore": {"ids": [1, 2]},
    "/v1/endpoints/import": {"user": "alice", "transport": "apns", "address": "alice-1", "tags": ["news"]},
    "/v1/me/subscriptions": {"device_id": "d", "binding": "apns", "address": "alice-1", "receive": "push", "expires_in": 60.0},
}  # fmt: skip
USERS = ("/beta/me/notifications", "/v1/me/subscriptions")
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 1e308, -1e308, 2**31, 2**63 - 1, 2**64, "", " ", "\x00", "x" * 5000, "\ud800", "é" * 300,
    "9" * 400, [], {}, [[]], {"": {}}, [None], "2030-13-45T99:99:99Z", "+1h", "-1", "NaN", "user:", "\u202e", {"$ref": "#"},
)  # fmt: skip


def _paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _paths(part, (*at, key))


def _replaced(value: Any, at: tuple[Any, ...], by: Callable[[Any], Any]) -> Any:
    if not at:
        return by(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = _replaced(value[at[0]], at[1:], by)
    return copy


def _dumps(value: Any, rng: random.Random) -> bytes:
    return json.dumps(value, ensure_ascii=rng.random() < 0.7).encode("utf-8", "surrogatepass")


def _deep(value: Any, rng: random.Random) -> bytes:
    times = rng.choice([30, 200, 3000])
    return rng.choice([b"[" * times, b'{"a":' * times, b"[" * times + b"]" * times])


def _twice(value: Any, rng: random.Random) -> bytes:
    key = rng.choice(sorted(value))
    return b"{" + _dumps({key: rng.choice(ODD)}, rng)[1:-1] + b"," + _dumps(value, rng)[1:]


def _number(value: Any, rng: random.Random) -> bytes:
    digits = rng.choice(
        ["NaN", "-Infinity", "1e999", "0x10", "01", "9" * 5000, "1" + "0" * 25, "-" + "9" * 30, "+1", "1."]
    )
    return _dumps(value, rng)[:-1] + b',"ttl":' + digits.encode() + b"}"


def _odd_value(value: Any, rng: random.Random) -> bytes:
    at = rng.choice([*_paths(value)])
    return _dumps(_replaced(value, at, lambda _: rng.choice(ODD)), rng)


def _odd_key(value: Any, rng: random.Random) -> bytes:
    places = list(_paths(value))
    at = rng.choice([at for at in places if isinstance(_at(value, at), dict)])
    key = rng.choice(["", "\x00", "__proto__", "\ud800", "a" * 3000, "titel", "@odata", "$"])
    return _dumps(_replaced(value, at, lambda part: {**part, key: rng.choice(ODD)}), rng)


def _at(value: Any, at: tuple[Any, ...]) -> Any:
    for key in at:
        value = value[key]
    return value


def _without(value: Any, rng: random.Random) -> bytes:
    at = rng.choice([at for at in _paths(value) if at and isinstance(at[-1], str)])

    def less(part: Any) -> Any:
        return {key: each for key, each in part.items() if key != at[-1]}

    return _dumps(_replaced(value, at[:-1], less), rng)


def _broken(value: Any, rng: random.Random) -> bytes:
    body = bytearray(_dumps(value, rng))
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(body))
        match rng.randrange(3):
            case 0:
                body[place] = rng.randrange(256)
            case 1:
                del body[place]
            case _:
                body[place:place] = bytes(rng.choices(b'{}[]",:\\\x00\xff0e', k=rng.randint(1, 4)))
    return bytes(body)


def _cut(value: Any, rng: random.Random) -> bytes:
    body = _dumps(value, rng)
    return body[: rng.randrange(len(body))]


def _noise(value: Any, rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 20, 500]))


def _large(value: Any, rng: random.Random) -> bytes:
    return _dumps({**value, "title": "x" * rng.choice([39_000, 60_000])}, rng)


def _listed(value: Any, rng: random.Random) -> bytes:
    return _dumps([value] * rng.randint(1, 3), rng)


WAYS = (_deep, _twice, _number, _odd_value, _odd_value, _odd_value, _odd_key, _odd_key, _without, _broken, _broken, _cut, _noise,
        _large, _listed)  # fmt: skip


def malformed(rng: random.Random) -> tuple[str, bytes, dict[str, str]]:
    """A path, a body that is probably wrong, and headers that are right or wrong."""
    path = rng.choice(sorted(GOOD))
    body = rng.choice(WAYS)(GOOD[path], rng)
    headers = {"content-type": "application/x-ndjson" if path.endswith("import") else "application/json"}
    match rng.randrange(25):
        case 0:
            headers["content-encoding"] = "gzip"
        case 1:
            headers["content-encoding"], body = "gzip", gzip.compress(body)
        case 2:
            headers["content-encoding"], body = "deflate", zlib.compress(body) + rng.choice([b"", b"x"])
        case 3:
            headers["content-encoding"] = rng.choice(["br", "gzip, deflate", "\xff", ""])
        case 4:
            headers["content-type"] = rng.choice(
                ["text/plain", "", "application/json; charset=\xff", "application/json;;;"]
            )
        case 5:
            headers["idempotency-key"] = rng.choice(["", "x" * 400, "\xff", "k"])
        case 6:
            headers["x-uns-id"] = rng.choice(["", "\xff" * 50, "x" * 5000, "' OR 1=1"])
        case 7:
            headers["client-request-id"] = rng.choice(["\xff", "x" * 500, ""])
    return path, body, headers


async def test_malformed_bodies_are_never_a_500(request: pytest.FixtureRequest) -> None:
    """Each gets a 4xx with the envelope; what came out in order after all is not counted. 20,000 of them with --soak or
    --faults."""
    long = request.config.getoption("--soak") or request.config.getoption("--faults")
    wanted = 20_000 if long else 1_500
    rng = random.Random(20_000)
    app = create_app(engine_of(Gateways(), None), settings_of(limits=LIMITS), authenticator=Stub())
    counts: Counter[int] = Counter()

    async def ask(path: str, body: bytes, headers: dict[str, str]) -> None:
        status, answer = await said_to(app, path, body, headers)
        counts[status] += 1
        assert status < 500, (path, body[:300], headers, answer)
        if status >= 400:
            error = json.loads(answer)["error"]
            assert error["code"], answer
            assert error["message"], answer
            assert error["innerError"]["request-id"], answer

    def refused() -> int:
        return sum(count for status, count in counts.items() if status >= 400)

    async with app.state.service:
        while refused() < wanted:
            await asyncio.gather(*(ask(*malformed(rng)) for _ in range(50)))
    assert {400, 403, 413, 415} <= set(counts)
    # Some changes leave what is in order, or a stream with one good line. They must be few, or the fuzz tests nothing.
    assert refused() > 0.7 * sum(counts.values()), counts


async def said_to(app: Any, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """One request to the ASGI app itself; status and body of the answer."""
    caller = b"shop/alice" if path in USERS else b"shop"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": b"", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        "headers": [(b"host", b"127.0.0.1"), (b"authorization", caller), (b"content-length", str(len(body)).encode())]
        + [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }  # fmt: skip
    half = len(body) // 2
    pieces = [body[:half], body[half:]]
    found: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        found.append(message)

    await app(scope, receive, send)
    return found[0]["status"], b"".join(message.get("body", b"") for message in found[1:])


async def test_some_hundreds_over_the_socket(tmp_path: Path) -> None:
    rng = random.Random(300)
    async with running(tmp_path, limits=LIMITS) as rig:
        user = rig.user_token("alice")
        for _ in range(300):
            path, body, headers = malformed(rng)
            headers = {name: value for name, value in headers.items() if value.isascii()}
            send = rig.call("POST", path, user, content=body, headers=headers) if path in USERS else None
            answer = await (send or rig.as_app("POST", path, content=body, headers=headers))
            assert answer.status_code < 500, (path, body[:300], headers, answer.text)
        assert (await rig.call("GET", "/ready")).status_code == 200


async def test_bytes_that_are_no_http_end_the_connection_and_nothing_else(rig: Rig) -> None:
    rng = random.Random(7)
    host, port = rig.url.removeprefix("http://").split(":")
    for _ in range(150):
        reader, writer = await asyncio.open_connection(host, int(port))
        head = b"POST /v1/notifications HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nabcde"
        noise = bytearray(head)
        for _ in range(rng.randint(1, 5)):
            noise[rng.randrange(len(noise))] = rng.randrange(256)
        writer.write(bytes(noise) if rng.random() < 0.7 else rng.randbytes(100))
        writer.write_eof()
        first = await asyncio.wait_for(reader.readline(), 50)
        assert first == b"" or int(first.split()[1]) < 500, (noise, first)
        writer.close()
    assert (await rig.call("GET", "/health")).status_code == 200


@pytest.mark.parametrize(
    "query", ["cursor=%00", "user=%00", "user=%ff%fe", "limit=" + "9" * 5000, "tag=" + "x" * 2000, "state=%F0%9F%92%A9"]
)
async def test_odd_queries_and_paths(rig: Rig, query: str) -> None:
    assert (await rig.as_app("GET", f"/v1/endpoints?{query}")).status_code in (200, 400)
    for path in ("/v1/notifications/%00", "/v1/notifications/%ff", "/v1/endpoints/" + "9" * 4000, "/v1/endpoints/-1", "/v1/users/%00",
                 "/v1/users/" + "x" * 600, "/v1/users/", "/v1/me/feed/%00"):  # fmt: skip
        for method in ("GET", "DELETE", "PATCH"):
            answer = await rig.as_app(method, path, json={})
            assert 400 <= answer.status_code < 500, (method, path, answer.text)
