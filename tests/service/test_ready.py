"""What `/ready` says of issuers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fanout.errors import StorageFull, StorageRefused, StorageUnavailable
from fanout.metrics import readiness
from fanout.testing.issuer import Fault

pytestmark = pytest.mark.anyio


async def ready(rig: Any) -> tuple[int, bool, str]:
    answer = await rig.http.get("/ready")
    found = answer.json()
    return answer.status_code, found["ready"], found["issuers"]


async def test_an_issuer_in_trouble_is_told_and_others_are_served(rig: Any) -> None:
    assert await ready(rig) == (200, True, "ok")
    rig.issuer.faults["keys"] = Fault(status=503)
    assert (await rig.call("GET", "/v1/me/feed", rig.user_token("alice"))).status_code == 503
    assert await ready(rig) == (200, True, "failed")
    assert (await rig.as_app("GET", "/v1/endpoints")).status_code == 200
    del rig.issuer.faults["keys"]
    assert set((await rig.service.authenticator.refresh()).values()) == {""}
    assert (await rig.call("GET", "/v1/me/feed", rig.user_token("alice"))).status_code == 200
    assert await ready(rig) == (200, True, "ok")


async def test_while_the_last_keys_serve_it_is_only_stale(rig: Any) -> None:
    assert (await rig.call("GET", "/v1/me/feed", rig.user_token("alice"))).status_code == 200
    rig.issuer.faults["discovery"] = Fault(down=True)
    assert set((await rig.service.authenticator.refresh()).values()) != {""}
    assert await ready(rig) == (200, True, "stale")
    assert (await rig.call("GET", "/v1/me/feed", rig.user_token("bob"))).status_code == 200


async def test_what_storage_refuses_the_engine_is_told_though_it_can_be_written(rig: Any) -> None:
    patience = rig.engine.trouble.patience()

    async def storage() -> tuple[int, str]:
        rig.service._readiness.forget()
        answer = await rig.http.get("/ready")
        return answer.status_code, answer.json()["storage"]

    assert await storage() == (200, "ok")
    for error, word in (
        (StorageRefused("/secret"), "refused"),
        (StorageUnavailable("x"), "unavailable"),
        (StorageFull("x"), "full"),
    ):
        patience.failed(error)
        assert await storage() == (200, "ok"), "a moment is nobody's concern"
        rig.engine.trouble._met[patience] = (-10.0, error)
        assert await storage() == (503, word)
        patience.well()
        assert await storage() == (200, "ok")


async def test_a_database_that_does_not_answer_is_told_within_a_second(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, silent = 0, asyncio.Event()

    async def probe() -> None:
        nonlocal asked
        asked += 1
        await silent.wait()

    monkeypatch.setattr(readiness, "_PROMPT", 0.02)
    monkeypatch.setattr(rig.engine.storage, "probe", probe)
    for _ in range(3):
        rig.service._readiness.forget()
        answer = await rig.http.get("/ready")
        assert (answer.status_code, answer.json()["storage"]) == (503, "unavailable")
    assert asked == 1, "one question is under way, however often it is asked"
    silent.set()
    rig.service._readiness.forget()
    assert (await rig.http.get("/ready")).json()["storage"] == "ok"


async def test_an_outage_of_the_database_is_not_a_line_of_the_log_for_each_request(
    rig: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*args: Any) -> None:
        raise StorageUnavailable("The database is away.")

    monkeypatch.setattr(rig.engine, "status", away)
    monkeypatch.setattr(rig.engine.endpoints, "import_", lambda *args, **more: away())
    for _ in range(25):
        answer = await rig.as_app("GET", "/v1/notifications/" + "0" * 36)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        answer = await rig.as_app(
            "POST", "/v1/endpoints/import", content=b"{}", headers={"content-type": "application/x-ndjson"}
        )
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    said = [record.getMessage() for record in caplog.records if "Not done" in record.getMessage()]
    assert 1 <= len(said) <= 10
    assert "The database is away." in said[0]
