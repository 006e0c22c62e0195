"""Two services on one database: what is posted at one is read and streamed at the other, and what one accepted outlives
it."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from fanout.service.auth import new_user_key, user_token
from fanout_kit.postgres import PostgresServer
from tests.feed.feedrig import Events, events
from tests.service.serverig import Place, Server, bearer, devices, place_in

pytestmark = [pytest.mark.anyio, pytest.mark.external, pytest.mark.timeout(240)]


@pytest.fixture
async def place(tmp_path: Path, server: PostgresServer) -> AsyncIterator[Place]:
    name = server.fresh()
    async with place_in(tmp_path, server.url(name)) as found:
        key = new_user_key()
        file = found.folder / "fanout.toml"
        table = f'[[service.user_keys]]\nid = "{key.id}"\nsecret = "{key.secret.reveal()}"\napp = "shop"\n'
        # A worker that was killed is missed soon.
        file.write_text(file.read_text() + table + "[policy]\nlease = 4\nheartbeat = 2\n")
        found.user_key = key
        yield found
    server.drop(name)


def client(server: Server, headers: dict[str, str]) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30)


def as_user(place: Place, user: str) -> dict[str, str]:
    assert place.user_key is not None
    return {"authorization": f"Bearer {user_token(place.user_key.secret, 'shop', user)}"}


def a_post(user: str, title: str) -> dict[str, object]:
    return {"target": {"user": user}, "title": title, "feed": True}


@pytest.mark.long("tests/cli/test_serve_processes.py has two services on SQLite")
async def test_what_is_posted_at_one_is_read_and_streamed_at_the_other(place: Place) -> None:
    here, there = await place.serve(), await place.serve()
    await devices(here, "alice-1", "alice-2")
    async with (
        client(here, bearer()) as app,
        client(there, as_user(place, "alice")) as alice,
        client(here, as_user(place, "alice")) as tablet,
        events(alice) as stream,
    ):
        assert (await stream.next())[0] == "cursor"
        posted = (await app.post("/v1/notifications", json=a_post("alice", "Hi"))).json()
        kind, place_of_it, item = await stream.next()
        assert (kind, item["id"], item["read"]) == ("change", posted["item"], False)
        listed = (await alice.get("/v1/me/feed")).json()
        assert [each["id"] for each in listed["items"]] == [posted["item"]]
        changed = await tablet.patch(f"/v1/me/feed/{posted['item']}", json={"read": True})
        assert changed.status_code == 200
        kind, after, item = await stream.next()
        assert (kind, item["id"], item["read"]) == ("change", posted["item"], True)
        # A cursor of the one is good at the other.
        since = (await tablet.get("/v1/me/feed", params={"cursor": place_of_it})).json()
        assert [(each["id"], each["read"]) for each in since["items"]] == [(posted["item"], True)]
        assert (await tablet.get("/v1/me/feed", params={"cursor": after})).json()["items"] == []
        assert (await alice.get(f"/v1/me/feed/{posted['item']}")).json()["read"] is True
    async with client(there, bearer()) as app, asyncio.timeout(60):
        while (status := (await app.get(f"/v1/notifications/{posted['id']}")).json())["state"] != "done":
            await asyncio.sleep(0.05)
    assert status["counts"]["accepted"] == 2


@pytest.mark.long("tests/feed kills a service, and row 1 of tests/faults four workers on PostgreSQL")
async def test_what_a_killed_service_accepted_is_in_the_feed_once_and_is_delivered(place: Place) -> None:
    """Eight clients post at two services, and go to the other when theirs is gone; a reader's stream hears each item
    once."""
    servers = [await place.serve(), await place.serve()]
    users = ["alice", "bob", "carol"]
    await devices(servers[0], *(f"{user}-1" for user in users))
    accepted: dict[str, tuple[str, str, str]] = {}
    more = asyncio.Condition()
    heard: list[str] = []
    stopping = False

    async def post(number: int) -> None:
        at = number % 2
        count = 0
        async with httpx.AsyncClient(headers=bearer(), timeout=30) as http:
            while not stopping:
                key, user = f"{number}-{count}", users[(number + count) % len(users)]
                try:
                    answer = await http.post(
                        f"{servers[at].url}/v1/notifications", json=a_post(user, key), headers={"idempotency-key": key}
                    )
                except httpx.TransportError:
                    at = 1 - at  # cut off: whether it was accepted nobody knows, so the same post again, at the other
                    continue
                assert answer.status_code == 202, answer.text
                count += 1
                async with more:
                    accepted[key] = user, answer.json()["id"], answer.json()["item"]
                    more.notify_all()

    async def listen(stream: Events) -> None:
        while True:
            kind, _, item = await stream.next()
            if kind == "change":
                async with more:
                    heard.append(item["id"])
                    more.notify_all()

    def owed() -> set[str]:
        return {item for user, _, item in accepted.values() if user == "alice"}

    async def until(count: int) -> None:
        async with more, asyncio.timeout(120):
            await more.wait_for(lambda: len(accepted) >= count)

    async with client(servers[1], as_user(place, "alice")) as alice, events(alice) as stream:
        assert (await stream.next())[0] == "cursor"
        listening = asyncio.create_task(listen(stream))
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(post(number))
            await until(30)
            servers[0].process.send_signal(signal.SIGKILL)
            await servers[0].process.wait()
            await until(len(accepted) + 30)
            stopping = True
        async with more, asyncio.timeout(60):
            await more.wait_for(lambda: owed() <= set(heard))
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert max(Counter(heard).values()) == 1

    again = await place.serve()
    for user in users:
        found: Counter[str] = Counter()
        async with client(again, as_user(place, user)) as reader:
            cursor: str | None = None
            while True:
                page = (
                    await reader.get("/v1/me/feed", params={"limit": 50} | ({"cursor": cursor} if cursor else {}))
                ).json()
                found.update(item["id"] for item in page["items"])
                cursor = page["cursor"]
                if not page["more"]:
                    break
        # Exactly what was accepted: nothing is lost, and what was posted again at the other service is there once.
        assert found == Counter(item for owner, _, item in accepted.values() if owner == user)
    async with client(again, bearer()) as app, asyncio.timeout(120):
        for _, id, _ in accepted.values():
            while (status := (await app.get(f"/v1/notifications/{id}")).json())["state"] != "done":
                await asyncio.sleep(0.05)
            assert status["counts"]["accepted"] == 1, status
    for each in (servers[1], again):
        code, _, said = await each.end()
        assert code == 0, said
    ledger = place.ledger
    assert all(ledger[id] >= 1 for _, id, _ in accepted.values())
