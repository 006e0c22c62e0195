"""`[service]` of a file that changes while the service runs: keys, limits, origins and proxies follow it, whole or not
at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from edgerig import APP_KEY, OTHER_KEY, USER_KEY
from fastapi import FastAPI

from fanout import bootstrap
from fanout.registry import Registry
from fanout.service import create_app
from fanout.service.auth import user_token
from fanout.service.server import serving

pytestmark = pytest.mark.anyio

PRIVATE = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
OURS = "https://app.example.com"


def key(made: Any) -> str:
    return f'[[service.keys]]\nid = "{made.id}"\nhash = "{made.hash}"\n'


USERS = f'[[service.user_keys]]\nid = "{USER_KEY.id}"\nsecret = "{USER_KEY.secret.reveal()}"\n'


def write(folder: Path, service: str) -> Path:
    (folder / "key.p8").write_bytes(PRIVATE)
    file = folder / "fanout.toml"
    file.write_text(
        'storage = "memory:"\n[apps.default.transports.apns]\nteam_id = "ABCDE12345"\nkey_id = "ABC123DEFG"\n'
        f'topic = "x.y"\nkey_file = "key.p8"\n{service}'
    )
    return file


@dataclass
class World:
    folder: Path
    app: FastAPI
    http: httpx.AsyncClient

    async def change(self, service: str) -> bool:
        """Write the file anew and let the watcher look; whether the change was taken."""
        write(self.folder, service)
        watcher = self.app.state.service.engine.watcher
        return bool(await watcher.look(believe=True))

    async def status(self, made: Any = APP_KEY, **more: Any) -> int:
        headers = {"authorization": f"Bearer {made.key.reveal()}", **more.pop("headers", {})}
        return (await self.http.get("/v1/endpoints", headers=headers)).status_code


@asynccontextmanager
async def world(folder: Path, service: str, *, own: bool = False) -> AsyncIterator[World]:
    registry = Registry()
    made = bootstrap.prepare(bootstrap.make_settings(write(folder, service), registry=registry), registry)
    settings = made.settings if not own else replace(made.settings, service=replace(made.settings.service))
    app = create_app(made.engine(), settings, clock=made.clock)
    async with (
        app.state.service as running,
        serving(app, "127.0.0.1", 0, lambda: running.limits) as url,
        httpx.AsyncClient(base_url=url, timeout=20) as http,
    ):
        yield World(folder, app, http)


async def test_a_key_taken_out_is_believed_no_longer_and_one_put_in_is(tmp_path: Path) -> None:
    async with world(tmp_path, key(APP_KEY)) as rig:
        assert [await rig.status(made) for made in (APP_KEY, OTHER_KEY)] == [200, 401]
        assert await rig.change(key(OTHER_KEY))
        assert [await rig.status(made) for made in (APP_KEY, OTHER_KEY)] == [401, 200]
        assert await rig.change("")  # nobody is left: everybody is refused, and nobody is believed instead
        assert [await rig.status(made) for made in (APP_KEY, OTHER_KEY)] == [401, 401]
        assert (await rig.http.get("/v1/endpoints", headers={"x-fanout-app": "default"})).status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [
        key(APP_KEY).replace("sha256:", "md5:"),
        key(OTHER_KEY) + key(OTHER_KEY),
        key(OTHER_KEY) + '[service]\ntrusted_proxies = ["10.0.0.1/8"]\n',
        key(OTHER_KEY).replace("hash", "hsah"),
        key(OTHER_KEY) + 'app = "nobody"\n',
        key(OTHER_KEY)
        + '[[service.issuers]]\nissuer = "https://x.example"\naudience = "x"\napps = { a = "default" }\nca_file = "absent.pem"\n',
        "[service",
    ],
    ids=map(str, range(7)),
)
async def test_a_wrong_file_is_refused_aloud_and_nothing_changes(
    tmp_path: Path, wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path, key(APP_KEY)) as rig:
        assert not await rig.change(wrong)
        assert [await rig.status(made) for made in (APP_KEY, OTHER_KEY)] == [200, 401]
        assert (await rig.http.get("/ready")).json()["configuration"] == "refused"
        assert [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")]
        assert OTHER_KEY.hash not in caplog.text


async def test_limits_origins_and_proxies_are_those_of_the_moment(tmp_path: Path) -> None:
    async with world(tmp_path, key(APP_KEY)) as rig:
        service = rig.app.state.service

        async def allowed() -> bool:
            headers = {"origin": OURS, "access-control-request-method": "POST"}
            return (
                "access-control-allow-origin" in (await rig.http.options("/v1/notifications", headers=headers)).headers
            )

        many = {f"x-{n}": "y" for n in range(60)}
        assert (await allowed(), await rig.status(headers=many)) == (False, 200)
        assert await rig.change(
            f'[service]\norigins = ["{OURS}"]\ntrusted_proxies = ["127.0.0.1"]\npublic_url = "https://push.example.com"\n'
            f"{key(APP_KEY)}[service.limits]\nheaders = 50\nposts_per_minute = 1\ncontent_bytes = 1000\n"
        )
        assert (await allowed(), await rig.status(headers=many)) == (True, 431)
        post = {
            "json": {"target": {"user": "alice"}, "title": "x"},
            "headers": {"authorization": f"Bearer {APP_KEY.key.reveal()}"},
        }
        answers = [await rig.http.post("/v1/notifications", **post) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 429]
        assert answers[0].headers["location"].startswith("https://push.example.com/v1/notifications/")
        assert len(service.edge.proxies) == 1
        assert service.feed.settings.content_bytes == 1000
        assert await rig.change(key(APP_KEY))
        assert (await allowed(), await rig.status(headers=many)) == (False, 200)


async def test_an_open_stream_ends_with_the_key_that_it_was_opened_with(tmp_path: Path) -> None:
    token = user_token(USER_KEY.secret, "default", "alice")
    async with world(tmp_path, key(APP_KEY) + USERS) as rig:
        headers = {"authorization": f"Bearer {token}"}
        async with rig.http.stream("GET", "/v1/me/feed/events", headers=headers) as stream, asyncio.timeout(120):
            lines = stream.aiter_lines()
            while "event: cursor" not in await anext(lines):
                pass
            assert await rig.change(key(APP_KEY))
            heard = [line async for line in lines]  # until it ends, which takes a second
        assert "event: unauthorized" in heard
        assert (await rig.http.get("/v1/me/feed", headers=headers)).status_code == 401


async def test_a_hosts_own_settings_are_not_read_again_which_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fanout.service")
    async with world(tmp_path, key(APP_KEY), own=True) as rig:
        assert "host's own" in caplog.text
        await rig.change(key(OTHER_KEY))
        assert [await rig.status(made) for made in (APP_KEY, OTHER_KEY)] == [200, 401]
