"""`/v1/keys` and `/v1/hosts`: what an operator's key makes, lists and revokes for its own app, over a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest
from edgerig import APP_KEY, OTHER_KEY, USER_KEY, Answer, Rig, request, running

from fanout.config import ApiKeySettings
from fanout.service.auth import user_token

pytestmark = pytest.mark.anyio

OPERATORS = (
    ApiKeySettings(id=APP_KEY.id, hash=APP_KEY.hash, role="operator"),
    ApiKeySettings(id=OTHER_KEY.id, hash=OTHER_KEY.hash, app="other", role="operator"),
)


BY = f"key:{APP_KEY.id}"


async def call(rig: Rig, method: str, path: str, body: Any = None, *, key: str = APP_KEY.key.reveal()) -> Answer:
    lines = [f"Authorization: Bearer {key}"]
    data = b""
    if body is not None:
        lines.append("Content-Type: application/json")
        data = json.dumps(body).encode()
    return await rig.one(request(method, path, *lines, body=data))


async def test_an_operator_makes_lists_and_revokes_keys_of_its_own_app() -> None:
    async with running(keys=OPERATORS) as rig:
        answer = await call(rig, "POST", "/v1/keys", {"name": "billing", "role": "devices", "expires": "2100-01-31"})
        assert answer.status == 201
        assert answer.headers["cache-control"] == "no-store"
        made = answer.json()
        assert answer.headers["location"].endswith(f"/v1/keys/{made['id']}")
        key = made.pop("key")
        assert made["id"] in key
        assert (made["role"], made["name"], made["used_at"], made["source"]) == ("devices", "billing", None, "database")
        assert (await call(rig, "GET", "/v1/endpoints", key=key)).status == 200
        refused = await call(rig, "GET", "/v1/keys", key=key)
        assert (refused.status, refused.json()["error"]["innerError"]["code"]) == (403, "role")

        other = OTHER_KEY.key.reveal()
        listed = await call(rig, "GET", "/v1/keys")
        assert [(one["id"], one["source"]) for one in listed.json()["keys"]] == [
            (made["id"], "database"),
            (APP_KEY.id, "file"),
            (USER_KEY.id, "file"),
        ]
        assert key not in listed.body.decode()
        assert b"sha256" not in listed.body
        theirs = (await call(rig, "GET", "/v1/keys", key=other)).json()["keys"]
        assert [one["id"] for one in theirs] == [OTHER_KEY.id]

        assert (await call(rig, "DELETE", f"/v1/keys/{made['id']}", key=other)).status == 404
        assert (await call(rig, "GET", "/v1/endpoints", key=key)).status == 200
        assert (await call(rig, "DELETE", f"/v1/keys/{made['id']}")).status == 204
        assert (await call(rig, "GET", "/v1/endpoints", key=key)).status == 401
        assert (await call(rig, "DELETE", f"/v1/keys/{made['id']}")).status == 404
        assert (await call(rig, "DELETE", f"/v1/keys/{APP_KEY.id}")).status == 404, "a key of the file stays"
        assert (await call(rig, "GET", "/v1/keys")).status == 200
        kinds = [(line.kind, line.app, line.data["by"]) for line in await rig.engine.storage.events(audit=True)]
        assert kinds == [("audit.key.made", "default", BY), ("audit.key.revoked", "default", BY)]


async def test_a_signer_made_at_run_time_signs_until_it_is_revoked() -> None:
    async with running(keys=OPERATORS) as rig:
        made = (await call(rig, "POST", "/v1/keys", {"kind": "signer"})).json()
        assert made["role"] is None
        token = user_token(made["key"], "default", "alice")
        assert (await call(rig, "GET", "/v1/me/feed", key=token)).status == 200
        assert (await call(rig, "POST", "/v1/keys", {}, key=token)).status == 403
        assert (await call(rig, "GET", "/v1/endpoints", key=made["key"])).status == 401
        assert (await call(rig, "DELETE", f"/v1/keys/{made['id']}")).status == 204
        assert (await call(rig, "GET", "/v1/me/feed", key=token)).status == 401


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"role": "user"}, "signer"),
        ({"role": "root"}, "operator"),
        ({"kind": "host"}, "caller"),
        ({"expires": "2001-01-01"}, "past"),
        ({"app": "other"}, "app"),
        ({"name": "a\tb"}, "printable"),
        ([], ""),
    ],
)
async def test_what_makes_no_key_is_refused(body: Any, says: str) -> None:
    async with running(keys=OPERATORS) as rig:
        answer = await call(rig, "POST", "/v1/keys", body)
        assert answer.status == 400
        assert says in answer.json()["error"]["message"]
        assert await rig.engine.storage.access.grants() == []


async def test_host_names_are_taken_by_one_app_and_judged_from_then_on() -> None:
    async with running(keys=OPERATORS, host_names={"file.example.com": "other"}) as rig:
        other, service = OTHER_KEY.key.reveal(), rig.app.state.service

        def allowed(host: str) -> tuple[bool, bool]:
            return service.host_allowed("default", host), service.host_allowed("other", host)

        assert allowed("New.example.com") == (True, False), "an app without a name is known by its credential alone"
        taken = await call(rig, "POST", "/v1/hosts", {"host": "New.Example.com"})
        assert (taken.status, taken.json()["host"], taken.json()["source"]) == (201, "new.example.com", "database")
        assert allowed("new.example.COM") == (True, False)
        assert allowed("another.example.com") == (False, False), (
            "an app that has named one is held to those it has named"
        )
        assert allowed("file.example.com") == (False, True)
        for host, status in (("new.example.com", 409), ("file.example.com", 409), ("https://x.example.com/", 400)):
            assert (await call(rig, "POST", "/v1/hosts", {"host": host}, key=other)).status == status
        assert (await call(rig, "POST", "/v1/hosts", {"host": "file.example.com"})).status == 409
        listed = [one["host"] for one in (await call(rig, "GET", "/v1/hosts")).json()["hosts"]]
        assert listed == ["new.example.com"]
        assert (await call(rig, "DELETE", "/v1/hosts/new.example.com", key=other)).status == 404
        assert (await call(rig, "DELETE", "/v1/hosts/NEW.example.com")).status == 204
        assert allowed("another.example.com") == (True, False)


async def test_a_key_is_no_host_name_and_a_host_name_no_key() -> None:
    async with running(keys=OPERATORS) as rig:
        made = (await call(rig, "POST", "/v1/keys", {})).json()
        assert (await call(rig, "POST", "/v1/hosts", {"host": "0123456789ab"})).status == 201
        assert (await call(rig, "DELETE", f"/v1/hosts/{made['id']}")).status == 404
        assert (await call(rig, "DELETE", "/v1/keys/0123456789ab")).status == 404
        assert len(await rig.engine.storage.access.grants()) == 2
