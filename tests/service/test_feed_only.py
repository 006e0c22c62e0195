"""A feed without any transport: `[apps.NAME]` alone in the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

import fanout
from fanout.metrics import render
from fanout.service import from_config
from fanout.service.auth import new_api_key, new_user_key, user_token
from fanout.service.server import serving

pytestmark = pytest.mark.anyio


async def test_items_are_posted_read_and_changed_and_nothing_is_pushed(tmp_path: Path, anyio_backend: Any) -> None:
    key, signer = new_api_key(), new_user_key()
    (tmp_path / "users.secret").write_text(signer.secret.reveal())
    (tmp_path / "fanout.toml").write_text(
        'storage = "sqlite:fanout.db"\n[apps.shop]\n'
        f'[[service.keys]]\nid = "{key.id}"\nhash = "{key.hash}"\napp = "shop"\n'
        f'[[service.user_keys]]\nid = "{signer.id}"\nsecret_file = "users.secret"\napp = "shop"\n'
    )
    app = from_config(tmp_path / "fanout.toml")
    alice = {"authorization": f"Bearer {user_token(signer.secret, 'shop', 'alice')}"}
    async with (
        app.state.service as service,
        serving(app, "127.0.0.1", 0, service.limits) as url,
        httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {key.key.reveal()}"}, timeout=30) as http,
    ):
        assert (await http.get("/ready")).status_code == 200
        made = await http.post("/v1/me/subscriptions", json={"device_id": "page"}, headers=alice)
        assert made.status_code == 201, made.text
        unsid = {"x-uns-id": made.json()["unsid"]}
        sent = await http.post("/v1/notifications", json={"target": {"user": "alice"}, "title": "T", "feed": True})
        assert sent.status_code == 202, sent.text
        post = {"payload": {"visualContent": {"title": "Graph"}}}
        posted = await http.post("/me/notifications", json=post, headers=unsid)
        assert posted.status_code == 201, posted.text
        items = (await http.get("/v1/me/feed", headers=alice)).json()["items"]
        assert sorted(item["content"]["title"] for item in items) == ["Graph", "T"]
        for item in items:
            answer = await http.patch(f"/v1/me/feed/{item['id']}", json={"read": True}, headers=alice | unsid)
            assert answer.status_code == 200, answer.text
        status = (await http.get(f"/v1/notifications/{sent.json()['id']}")).json()
        assert (status["state"], status["total"]) == ("done", 0)
        refused = await http.post("/v1/endpoints", json={"user": "alice", "binding": "apns", "address": "a"})
        assert refused.status_code == 400
        assert "transports" in refused.json()["error"]["message"]
        assert b"fanout_storage_up 1" in await render(app.state.service.engine)


async def test_a_configuration_without_apps_is_refused(tmp_path: Path, anyio_backend: Any) -> None:
    (tmp_path / "fanout.toml").write_text('storage = "memory:"\n')
    with pytest.raises(fanout.ConfigurationError, match=r"\[apps.default\] alone for a feed"):
        fanout.open(tmp_path / "fanout.toml")
