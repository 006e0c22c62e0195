"""Keys in the database, and two processes: what one makes serves in the other at once, what it revokes is refused there
within five seconds."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import pytest
from serverig import place_in

from fanout import bootstrap
from fanout.plugin import StorageContext
from fanout.registry import Registry
from fanout.service.auth import user_token
from fanout.service.auth.granting import key_of

pytestmark = pytest.mark.anyio


async def test_what_another_process_makes_serves_and_what_it_revokes_is_refused(tmp_path: Path) -> None:
    clock = bootstrap.SystemClock()
    async with place_in(tmp_path) as place:
        server = await place.serve()
        storage = Registry().make_storage(f"sqlite:{tmp_path}/fanout.db", StorageContext(clock=clock))
        async with storage, httpx.AsyncClient(base_url=server.url, timeout=30) as http:
            access, now = storage.access, clock.now()
            grant, key = key_of("shop", now, name="billing")
            signer, secret = key_of("shop", now, kind="signer")
            callers = {"authorization": f"Bearer {key.reveal()}"}
            users = {"authorization": f"Bearer {user_token(secret, 'shop', 'alice')}"}
            assert (await http.get("/v1/endpoints", headers=callers)).status_code == 401
            assert await access.grant(grant, now, by="test")
            assert await access.grant(signer, now, by="test")
            assert (await http.get("/v1/endpoints", headers=callers)).status_code == 200
            async with http.stream("GET", "/v1/me/feed/events", headers=users) as stream:
                assert stream.status_code == 200
                began = time.monotonic()
                assert await access.revoke("shop", grant.id, now, by="test")
                assert await access.revoke("shop", signer.id, now, by="test")
                async with asyncio.timeout(60):
                    while (await http.get("/v1/endpoints", headers=callers)).status_code == 200:
                        pass
                    took = time.monotonic() - began
                    said = "".join([text async for text in stream.aiter_text()])
            assert took < 20, "five seconds, on a machine that does nothing else"
            assert "event: unauthorized" in said, "and the streams of its users end"
        assert (await server.end())[0] == 0
        async with Registry().make_storage(f"sqlite:{tmp_path}/fanout.db", StorageContext(clock=clock)) as storage:
            kinds = [line.kind for line in await storage.events(audit=True)]
        assert kinds == ["audit.key.made"] * 2 + ["audit.key.revoked"] * 2
