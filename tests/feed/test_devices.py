"""Whose a device is: its name is its user's own, and what moves between users moves by proof. Through the service, and
from the schema before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest
from feedrig import Rig, running

from fanout.core.address import Address
from fanout.plugin import StorageContext
from fanout.storage.sqlite.opening import connect
from fanout.storage.sqlite.schema import STEPS
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.scripted import ScriptedTransport
from fanout.testing.storage_kit import T0
from fanout.testing.storage_subscriptions import subscribe

pytestmark = pytest.mark.anyio

BEFORE = next(number for number, step in enumerate(STEPS) if "subscription_scoped" in step)
"""The version before device names were their user's own."""


def parse(transport: ScriptedTransport, raw: str | Mapping[str, Any]) -> Address:
    """As Web Push does: the URL is the identity, and the keys are part of the value."""
    if isinstance(raw, str):
        return Address(raw)
    return Address(orjson.dumps(dict(raw)).decode(), identity=raw["endpoint"])


async def ask(rig: Rig, user: str, unsid: str = "", **more: Any) -> tuple[int, Any]:
    async with rig.client(user, unsid=unsid) as client:
        answer = await client.post("/v1/me/subscriptions", json={"device_id": "phone", **more})
        return answer.status_code, answer.json()


async def test_nobody_ends_anothers_subscription_by_the_name_of_a_device(backend: str) -> None:
    async with running(backend) as rig:
        hers = await rig.subscribe("alice", "apns", "phone")
        assert (await ask(rig, "bob"))[0] == 201
        assert (await ask(rig, "bob", binding="fcm", address="bobs"))[0] == 200
        await rig.post("alice")
        assert list(rig.gateways.take()) == ["alice-phone"]
        async with rig.client("alice", unsid=hers["unsid"]) as client:
            assert (await client.get("/v1/me/feed")).status_code == 200
            assert (await client.get(f"/v1/me/subscriptions/{hers['id']}")).json()["state"] == "active"


async def test_an_address_moves_by_its_keys_or_by_the_devices_unsid(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedTransport, "parse_address", parse)
    browser = {"endpoint": "https://push.example/alice", "auth": "secret of her browser"}
    async with running(backend) as rig:
        _, hers = await ask(rig, "alice", binding="webpush", address=browser)
        for lie in ({"auth": "mine"}, {"auth": ""}, {"auth": "secret of her browser", "p256dh": "mine"}):
            status, said = await ask(rig, "bob", binding="webpush", address={**browser, **lie})
            assert (status, said["error"]["code"]) == (409, "conflict")
            assert "alice" not in str(said)
        status, _ = await ask(rig, "bob", "no such UNSID", binding="webpush", address={**browser, "auth": "mine"})
        assert status == 409
        async with rig.client("bob") as client:
            assert (await client.get("/v1/me/subscriptions")).json() == {"subscriptions": []}
        async with rig.client("alice") as client:
            (held,) = (await client.get("/v1/me/subscriptions")).json()["subscriptions"]
        assert (held["unsid"], held["state"]) == (hers["unsid"], "active")

        status, moved = await ask(rig, "bob", binding="webpush", address=browser)  # he signed in at her browser
        assert status == 201
        status, again = await ask(
            rig, "carol", moved["unsid"], binding="webpush", address={**browser, "auth": "renewed"}
        )
        assert status == 201
        await rig.engine.endpoints.register(user="dave", binding="webpush", address={**browser, "auth": "host"})
        async with rig.client("carol") as client:
            shown = (await client.get(f"/v1/me/subscriptions/{again['id']}")).json()
        assert shown["state"] == "unreachable", "the app itself needs no proof"


def rows(path: Path, sql: str, *arguments: Any) -> list[Any]:
    connection = apsw.Connection(str(path))
    try:
        return list(connection.execute(sql, arguments))
    finally:
        connection.close()


INSERT = (
    "INSERT INTO subscription (platform, receive, endpoint, renewed_at, expires_at, created_at, app, user, device, unsid) "
    "VALUES ('ios', 'push', 0, ?1, ?2, ?1, 1, ?3, ?4, ?5)"
)
"""As the version before writes it."""
FIND = "SELECT id, user, endpoint FROM subscription WHERE app = 1 AND device = ?"


async def test_a_file_of_the_version_before_keeps_its_subscriptions(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    connect(str(path), steps=STEPS[:BEFORE]).close()
    rows(path, "INSERT INTO app VALUES (1, 'default')")
    for number, user in enumerate(("alice", "bob", "carol")):
        rows(path, INSERT, T0, T0 + 1000, user, f"device-{number}", f"unsid-{user}")
    rows(path, "DELETE FROM subscription WHERE user = 'carol'")
    async with SqliteStorage(str(path), StorageContext(clock=VirtualClock(T0)), offload=Inline) as storage:
        found = await storage.feed.subscription("default", "unsid-alice")
        assert found is not None
        assert (found.id, found.device, found.expires_at) == (1, "device-0", T0 + 1000)
        assert not (await subscribe(storage, "alice", "device-1", None)).ended, "bob's device-1 is another"
        renewed = await subscribe(storage, "bob", "device-1", None)
        assert (renewed.renewed, renewed.subscription.id) == (True, 2)
        new = (await subscribe(storage, "dave", "x", None)).subscription
        assert new.id > 4 or new.id == 5, "the number of a deleted one is not given again"


async def test_a_statement_of_the_version_before_fails_in_a_file_brought_up_to_date(tmp_path: Path) -> None:
    """A process of it that runs on: columns have other names since, so it does nothing, and nothing that is wrong."""
    path = tmp_path / "fanout.db"
    connect(str(path), steps=STEPS[:BEFORE]).close()
    rows(path, "INSERT INTO app VALUES (1, 'default')")
    async with SqliteStorage(str(path), StorageContext(clock=VirtualClock(T0)), offload=Inline) as storage:
        with pytest.raises(apsw.SQLError, match="user"):
            rows(path, FIND, "phone")
        with pytest.raises(apsw.SQLError, match="user"):
            rows(path, INSERT, T0, T0 + 1000, "alice", "phone", "unsid-new")
        assert await storage.feed.subscriptions("default", "alice") == []
