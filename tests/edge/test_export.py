"""`GET /v1/export`: what is held of a user, for a key that may do all that the app may; a line a record, until
`end`."""

from __future__ import annotations

import json

import pytest
from edgerig import APP_KEY, BEARER, OTHER_KEY, Rig, request, running

from fanout.config import ApiKeySettings

pytestmark = pytest.mark.anyio

AUTH = f"Authorization: {BEARER}"


async def entered(rig: Rig, user: str, address: str) -> None:
    await rig.engine.endpoints.register(user=user, binding="apns", address=address)


async def test_an_export_is_lines_until_its_end_and_is_kept_nowhere() -> None:
    async with running() as rig:
        await entered(rig, "a/b & c", "her-token")
        await entered(rig, "bob", "his-token")
        answer = await rig.one(request("GET", "/v1/export?user=a%2Fb%20%26%20c", AUTH))
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert answer.headers["cache-control"] == "no-store"
        records = [json.loads(line) for line in answer.body.splitlines()]
        assert [each["kind"] for each in records] == ["user", "endpoint", "seen", "audit", "end"]
        assert (records[0]["user"], records[1]["address"]) == ("a/b & c", "her-token")
        assert b"his-token" not in answer.body
        (line,) = await rig.engine.storage.events(audit=True)
        assert (line.kind, line.data["by"]) == ("audit.user.exported", f"key:{APP_KEY.id}")
        other = await rig.one(request("GET", "/v1/export?user=bob", f"Authorization: Bearer {OTHER_KEY.key.reveal()}"))
        assert b"his-token" not in other.body
        assert len(await rig.engine.storage.events(audit=True)) == 2


@pytest.mark.parametrize("query", ["", "?user=", "?user=a%00", f"?user={'x' * 513}", "?user=a&user=b"])
async def test_what_names_no_user_is_refused_and_leaves_no_line(query: str) -> None:
    async with running() as rig:
        answer = await rig.one(request("GET", f"/v1/export{query}", AUTH))
        assert (answer.status, answer.json()["error"]["innerError"]["code"]) == (400, "invalid")
        assert await rig.engine.storage.events(audit=True) == []


@pytest.mark.parametrize("role", ["read", "send", "devices", "operator"])
async def test_no_other_role_exports(role: str) -> None:
    async with running(keys=(ApiKeySettings(id=APP_KEY.id, hash=APP_KEY.hash, role=role),)) as rig:
        await entered(rig, "alice", "her-token")
        for path in (
            "/v1/export?user=alice",
            "/v1/export/?user=alice",
            "/v1/%65xport?user=alice",
            "//v1/export?user=alice",
        ):
            answer = await rig.one(request("GET", path, AUTH))
            assert answer.status in (403, 404), path
            assert b"her-token" not in answer.body
        answer = await rig.one(request("GET", "/v1/export?user=alice", f"Authorization: {rig.user()}"))
        assert answer.status in (401, 403)
        assert await rig.engine.storage.events(audit=True) == []


async def test_where_it_breaks_off_there_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as rig:
        await entered(rig, "alice", "her-token")

        async def broken(*arguments: object, **more: object) -> None:
            raise OSError("the disk is gone")

        monkeypatch.setattr(rig.engine.storage, "addressed", broken)
        answer = await rig.one(request("GET", "/v1/export?user=alice", AUTH))
        assert b'"end"' not in answer.body
