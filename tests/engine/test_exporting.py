"""All that is held of one user, on each storage; and nothing of another user's, whatever the two share."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rig import SystemClock, register, running

from fanout.core.feed import FeedChange, SubscriptionRequest
from fanout.core.model import Notification, Target
from fanout.engine import Engine
from fanout.engine.acting import acting
from fanout.plugin import Rejected, Sealer, StorageContext
from fanout.registry import Registry
from fanout.testing.storage_feed import alter, enter, posting

pytestmark = pytest.mark.anyio

OTHER = "bob-8c1f"


async def exported(engine: Engine, user: str, app: str = "default") -> list[dict[str, Any]]:
    """The records, as they pass through JSON."""
    records = [json.loads(json.dumps(each)) async for each in engine.export_user(user, app=app)]
    assert records[-1] == {"kind": "end", "records": len(records) - 1}
    return records


def of(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in records if each["kind"] == kind]


async def test_all_that_two_users_share_is_told_to_each_without_the_other() -> None:
    now = time.time()
    async with running(lambda m, d: Rejected(f"to {d.address}")) as (engine, _):
        storage = engine.storage
        mine = await register(engine, "alice", "hers-1", "hers-2", "handed-on", tags=["news"])
        (removed,) = await register(engine, "alice", "taken-later")
        await engine.endpoints.remove([removed])
        theirs = await register(engine, OTHER, "his-1", "handed-on", "taken-later", tags=["news", "his-own-tag"])
        alone = await engine.send(Notification(title="for her"), "user:alice")
        both = await engine.send(Notification(title="for both"), Target.users(["alice", OTHER]), idempotency_key="k")
        keyed = await engine.send(Notification(title="keyed", collapse_key="c"), Target.users([OTHER, "alice"]))
        his = await engine.send(Notification(title="for him alone"), f"user:{OTHER}")
        topic = await engine.send(Notification(title="for a topic"), "topic:news")
        later = await engine.send(Notification(title="later"), Target.users(["alice", OTHER]), at=now + 3000)
        for receipt in (alone, both, keyed, his, topic):
            await receipt.wait(60)
        one = await enter(storage, posting(Target.user("alice"), now=now, content=b'{"text":"hers"}'))
        two = await enter(storage, posting(Target.user("alice"), now=now))
        shared = await enter(storage, posting(Target.topic("news"), now=now, content=b'{"text":"all of them"}'))
        await enter(storage, posting(Target.user(OTHER), now=now, content=b'{"text":"his alone"}'))
        await alter(storage, "alice", FeedChange(item=one.id, read=True), now)
        await alter(storage, "alice", FeedChange(item=two.id, action="dismissed"), now)
        await alter(storage, OTHER, FeedChange(item=shared.id, action="activated"), now)
        await storage.feed.mark_seen("default", "alice", two.id, now)
        await storage.feed.subscribe(subscription("alice", "her-tablet"), now)
        await storage.feed.subscribe(subscription(OTHER, "his-tablet"), now)
        await register(engine, "alice", "elsewhere-she-is-somebody-else")
        with acting("shell"):
            records = await exported(engine, "alice")

        said = json.dumps(records)
        for secret in (
            OTHER,
            "his-1",
            "his alone",
            "for him alone",
            "his-own-tag",
            "his-tablet",
            "handed-on",
            "taken-later",
        ):
            assert secret not in said, secret
        endpoints = {each["id"]: each for each in of(records, "endpoint")}
        assert len(endpoints) == 5
        assert [endpoints[id]["address"] for id in (*mine, removed)] == ["hers-1", "hers-2", None, None]
        assert [endpoints[id]["state"] for id in (*mine, removed)] == ["active", "active", "replaced", "removed"]
        assert endpoints[mine[0]]["tags"] == ["news"]
        items = {each["id"]: each for each in of(records, "item")}
        assert items.keys() == {one.id, two.id, shared.id}
        assert (items[one.id]["read"], items[one.id]["content"]) == (True, {"text": "hers"})
        assert (items[two.id]["action"], items[shared.id]["action"]) == ("dismissed", "none")
        assert of(records, "seen") == [{"kind": "seen", "number": two.number}]
        assert [each["device"] for each in of(records, "subscription")] == ["her-tablet"]
        notifications = {each["id"]: each for each in of(records, "notification")}
        assert {alone.id, both.id, keyed.id, later.id} <= notifications.keys()
        assert not {his.id, topic.id} & notifications.keys()
        assert notifications[later.id]["state"] == "scheduled"
        for receipt in (alone, both, keyed):
            told = notifications[receipt.id]
            assert [(each["endpoint"], each["state"]) for each in told["deliveries"]] == [
                (id, "rejected") for id in mine[:2]
            ]
        assert notifications[both.id]["content"]["title"] == "for both"
        assert Counter(each["what"] for each in of(records, "event")) == {"endpoint.replaced": 1, "endpoint.removed": 1}
        assert all(not set(theirs) & set(each["data"].values()) for each in of(records, "event"))

        lines = [line async for line in lines_of(engine)]
        assert [(line.kind, line.data["by"]) for line in lines] == [("audit.user.exported", "shell")]
        assert "alice" not in str(lines)
        assert [each["what"] for each in of(await exported(engine, "alice"), "audit")] == ["audit.user.exported"] * 2


def subscription(user: str, device: str) -> SubscriptionRequest:
    return SubscriptionRequest(
        app="default", user=user, device=device, registration=None, platform="web", receive="none", expires_at=9e9, unsid=f"secret-{device}",
    )  # fmt: skip


async def lines_of(engine: Engine) -> Any:
    for line in await engine.storage.events(audit=True):
        yield line


async def test_it_is_read_in_pages_and_begins_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.engine.exporting._PAGE", 2)
    monkeypatch.setattr("fanout.engine.exporting._ITEMS", 2)
    now = time.time()
    async with running(role="submit") as (engine, _):
        devices = await register(engine, "alice", *(f"a{number}" for number in range(5)))
        await register(engine, "bob", "b0")
        many = [(Notification(title=str(number)), Target.user("alice")) for number in range(5)]
        ids = [each.id for each in await engine.send_many(many)]
        items = [(await enter(engine.storage, posting(Target.user("alice"), now=now))).id for _ in range(5)]
        await engine.endpoints.remove(devices)
        records = await exported(engine, "alice")
        assert [each["id"] for each in of(records, "endpoint")] == devices
        assert [each["id"] for each in of(records, "item")] == items
        told = [each["id"] for each in of(records, "notification")]
        assert [id for id in told if id in ids] == ids
        assert len(told) == len(set(told))
        for each in of(records, "notification"):
            assert [one["endpoint"] for one in each["deliveries"]] == devices
        assert len(of(records, "event")) == 5


async def test_of_a_stranger_and_of_another_app_there_is_nothing() -> None:
    async with running(role="submit") as (engine, _):
        await register(engine, "alice", "hers")
        await engine.send(Notification(title="hers"), "user:alice")
        assert [each["kind"] for each in await exported(engine, "nobody")] == ["user", "seen", "audit", "end"]
        assert [each["kind"] for each in await exported(engine, "alice", "other")] == ["user", "seen", "audit", "end"]


async def test_sealed_addresses_are_opened(tmp_path: Path) -> None:
    context = StorageContext(clock=SystemClock(), sealer=Sealer((os.urandom(32),)))
    async with running(storage=Registry().make_storage(f"sqlite:{tmp_path}/sealed.db", context)) as (engine, _):
        await register(engine, "alice", "a-token-of-hers")
        assert of(await exported(engine, "alice"), "endpoint")[0]["address"] == "a-token-of-hers"
    assert not on_disk(tmp_path, b"a-token-of-hers")


def on_disk(folder: Path, text: bytes) -> bool:
    return any(text in file.read_bytes() for file in folder.iterdir())
