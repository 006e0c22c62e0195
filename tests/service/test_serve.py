"""`fanout serve` as a process: where it listens, how it ends, and what a rolling restart under load loses (nothing)."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest
from serverig import Place, bearer, devices, place_in, subscribed
from servicerig import storage_at

from fanout.core.records import Status
from fanout.service.auth import new_user_key, user_token

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with place_in(tmp_path) as found:
        yield found


async def test_it_serves_delivers_and_ends_when_told_to(place: Place) -> None:
    server = await place.serve()
    assert "loopback only" not in server.said
    await devices(server, "alice-1", "alice-2")
    async with httpx.AsyncClient(base_url=server.url, headers=bearer()) as http:
        posted = await http.post("/v1/notifications", json={"target": {"user": "alice"}, "title": "Hi"})
        assert posted.status_code == 202
        assert (await http.get("/ready")).status_code == 200
        assert (await http.get("/metrics")).status_code == 404
    code, took, said = await server.end()
    assert (code, took < 10) == (0, True), said
    assert place.ledger[posted.json()["id"]] == 2


_OTHERS = pytest.mark.long("every interface, and a name; tests/core/test_urls.py tries each")


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", pytest.param("::", marks=_OTHERS), pytest.param("192.0.2.1", marks=_OTHERS), "push.example.com"],
)
async def test_without_authentication_it_listens_on_loopback_only(place: Place, host: str) -> None:
    file = place.folder / "fanout.toml"
    file.write_text(file.read_text().partition("[[service")[0])
    process = await place.start("serve", "--port", "0", "--host", host)
    _, said = await process.communicate()
    assert process.returncode == 2
    assert host in said.decode()
    assert "[[service.keys]]" in said.decode()


async def test_without_authentication_it_says_so(place: Place) -> None:
    file = place.folder / "fanout.toml"
    file.write_text(file.read_text().partition("[[service")[0])
    server = await place.serve("--host", "localhost")
    async with httpx.AsyncClient(base_url=server.url) as http:
        assert (await http.get("/v1/endpoints")).status_code == 401
        assert (await http.get("/v1/endpoints", headers={"host": "evil.example"})).status_code == 401
    _, _, said = await server.end(signal.SIGINT)
    assert "loopback only" in server.said + said


async def test_memory_is_refused(place: Place) -> None:
    file = place.folder / "fanout.toml"
    file.write_text(file.read_text().replace("sqlite:fanout.db", "memory:"))
    process = await place.start("serve", "--port", "0")
    _, said = await process.communicate()
    assert process.returncode == 2
    assert "fanout serve" in said.decode()


async def test_it_ends_in_time_whatever_holds_on_to_it(place: Place) -> None:
    """A gateway that never answers, a client that never ends its request, one that keeps a connection, and an open
    event stream."""
    server = await place.serve()
    await devices(server, "alice-1", "never-1")
    host, port = server.url.removeprefix("http://").split(":")
    async with httpx.AsyncClient(base_url=server.url, headers=bearer()) as http:
        stuck = await http.post("/v1/notifications", json={"target": {"user": "never"}, "title": "Hi"})
        assert stuck.status_code == 202
        head = b"POST /v1/notifications HTTP/1.1\r\nhost: x\r\nauthorization: " + bearer()["authorization"].encode()
        slow_reader, slow = await asyncio.open_connection(host, int(port))
        slow.write(head + b"\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{")
        idle_reader, idle = await asyncio.open_connection(host, int(port))
        code, took, said = await server.end()
    assert code == 0, said
    assert took < 10
    for writer in (slow, idle):
        writer.close()
    # What was in the gateway's hands is still to be delivered, by whoever comes next.
    status = (await statuses(place, [stuck.json()["id"]]))[0]
    assert status is not None
    assert status.counts["pending"] == 1


async def test_an_open_event_stream_ends_with_the_service(place: Place) -> None:
    key = new_user_key()
    file = place.folder / "fanout.toml"
    table = f'[[service.user_keys]]\nid = "{key.id}"\nsecret = "{key.secret.reveal()}"\napp = "shop"\n'
    file.write_text(file.read_text() + table)
    server = await place.serve()
    token = {"authorization": f"Bearer {user_token(key.secret, 'shop', 'alice')}"}
    async with (
        httpx.AsyncClient(base_url=server.url, headers=token, timeout=30) as http,
        http.stream("GET", "/v1/me/feed/events") as stream,
    ):
        assert stream.status_code == 200
        lines = stream.aiter_lines()
        await anext(lines)
        code, took, said = await server.end()
        async for _ in lines:
            pass  # an orderly end: a stream that is cut off raises
    assert (code, took < 10) == (0, True), said


@pytest.mark.long("tests/faults restarts workers under load, row 42")
async def test_a_rolling_restart_under_load_loses_nothing(place: Place) -> None:
    """Two services on one file, each restarted in turn while clients post; a client that is turned away goes to the
    other."""
    key = new_user_key()
    file = place.folder / "fanout.toml"
    table = f'[[service.user_keys]]\nid = "{key.id}"\nsecret = "{key.secret.reveal()}"\napp = "shop"\n'
    file.write_text(file.read_text() + table)
    servers = [await place.serve(), await place.serve()]
    users = [f"user{n}" for n in range(20)]
    unsids = [await subscribed(servers[0], user, user_token(key.secret, "shop", user)) for user in users]
    accepted: dict[str, tuple[str, str]] = {}
    more = asyncio.Condition()
    stopping = False

    async def client(number: int) -> None:
        at = number % 2
        count = 0
        async with httpx.AsyncClient(headers=bearer(), timeout=20) as http:
            while not stopping:
                key, which = f"{number}-{count}", count % 20
                headers = {"idempotency-key": key}
                if number % 4 < 2:
                    path, body = "/v1/notifications", {"target": {"user": users[which]}, "title": key}
                else:
                    path, body = "/beta/me/notifications", {"payload": {"visualContent": {"title": key}}}
                    headers["x-uns-id"] = unsids[which]
                try:
                    answer = await http.post(servers[at].url + path, json=body, headers=headers)
                except httpx.TransportError:
                    at = 1 - at  # turned away, or cut off: the same post again, at the other
                    continue
                if answer.status_code == 503:
                    at = 1 - at
                    continue
                assert answer.status_code in (201, 202), answer.text
                count += 1
                async with more:
                    accepted[key] = users[which], answer.json()["id"]
                    more.notify_all()

    async def until(count: int) -> None:
        async with more, asyncio.timeout(60):
            await more.wait_for(lambda: len(accepted) >= count)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(client(number))
        for which in (0, 1):
            await until(len(accepted) + 40)
            code, took, said = await servers[which].end()
            assert (code, took < 10) == (0, True), said
            await until(len(accepted) + 20)
            servers[which] = await place.serve()
        await until(len(accepted) + 40)
        stopping = True
    for server in servers:
        code, _, said = await server.end()
        assert code == 0, said
    work = await place.start("work", "--drain")
    await work.communicate()
    assert work.returncode == 0

    ids = {key: id for key, (_, id) in accepted.items()}
    assert len(set(ids.values())) == len(ids) > 150
    ours = [id for key, id in ids.items() if int(key.partition("-")[0]) % 4 < 2]
    for status in await statuses(place, ours):
        assert status is not None
        assert status.state == "done"
        assert status.counts["accepted"] == 1
    async with storage_at(place.folder) as storage:
        for key, (user, id) in accepted.items():
            if id not in ours:
                assert await storage.feed.item("shop", user, id, time.time()) is not None, key
    ledger = place.ledger
    assert set(ids.values()) <= set(ledger)
    assert max(ledger.values()) == 1, "an orderly end repeats nothing"


async def statuses(place: Place, ids: Sequence[str]) -> list[Status | None]:
    """What the database says of these notifications."""
    async with storage_at(place.folder) as storage:
        return [await storage.status(id, time.time()) for id in ids]
