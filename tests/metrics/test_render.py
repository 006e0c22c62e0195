"""What a scrape says of an engine: the figures of what really happened, under few labels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import fanout
from fanout.engine import Engine
from fanout.engine.observing import observe
from fanout.metrics import CONTENT_TYPE, Exporter, LoopLag, collector, render
from fanout.plugin import ACCEPTED, Gone, Misconfigured, Outcome, Scope, StorageError, StorageFull, Throttled

pytestmark = pytest.mark.anyio

SECRETS = ("alice", "one-phone", "dead-phone", "put-off", "hosts.example")


def script(message: Any, delivery: Any) -> Outcome:
    if delivery.address.startswith("dead"):
        return Gone("Unregistered", since=4e9)
    if delivery.address.startswith("put-off"):
        return Throttled(3600.0, Scope.ENDPOINT, "TooManyRequests")
    if delivery.group:
        return Misconfigured("locked", Scope.GROUP)
    return ACCEPTED


async def sent(engine: Engine, *addresses: str, lane: Any = "normal") -> str:
    """A notification to new endpoints of alice, once nothing of it is in a worker's hands."""
    for address in addresses:
        await engine.endpoints.register(user="alice", binding="push", address=address)
    receipt = await engine.send(fanout.Notification(title="Hello", lane=lane), "user:alice")
    # What is stored is counted a few turns of the loop later, and then the lease goes.
    while (await engine.status(receipt.id)).pending_by_reason.keys() & {"ready", "lane"} or any(
        each.leases for each in observe(engine).bindings
    ):
        await asyncio.sleep(0.001)
    return receipt.id


async def test_outcomes_attempts_and_what_waits(running: Callable[..., Any], scrape: Any) -> None:
    async with running(script) as engine:
        id = await sent(
            engine,
            "one-phone",
            "two-phone",
            "dead-phone",
            "put-off",
            "hosts.example/x",
            "hosts.example/y",
            lane="urgent",
        )
        page = await render(engine)
        found = scrape(page)
        of = {"app": "default", "binding": "push"}
        assert found("fanout_attempts_total", **of) == 6
        assert found("fanout_attempt_bytes_total", **of) > 6 * 36
        assert found("fanout_deliveries_total", **of, state="accepted") == 2
        assert found("fanout_deliveries_total", **of, state="gone", reason="Unregistered") == 1
        assert found("fanout_retries_total", **of, waiting="backoff", reason="TooManyRequests") == 1
        # The first of two that accuse their host waits alone, the second behind its gate.
        assert found("fanout_retries_total", **of, waiting="breaker", reason="locked") == 1
        assert found("fanout_releases_total", **of, waiting="breaker") == 1
        assert found("fanout_deliveries_waiting", app="default", reason="backoff") == 1
        assert found("fanout_deliveries_waiting", app="default", reason="breaker") == 2
        assert found("fanout_backlog_deliveries", app="default") == 3
        assert found("fanout_queue_age_seconds", app="default") > 0
        assert found("fanout_delivery_seconds_count", **of, lane="urgent") == 2
        assert found("fanout_delivery_seconds_count", **of, lane="bulk") == 0
        assert found("fanout_commit_seconds_count") >= 1
        assert found("fanout_faults_total", **of) == found("fanout_stale_leases_total", **of) == 0
        assert found("fanout_storage_up") == 1
        assert found("fanout_notifications_accepted_total", app="default") == 1
        # Two groups, one of them behind a breaker: the count is told, the host is not.
        assert found("fanout_group_gates", **of, state="open") == 1
        assert found("fanout_group_gates", **of, state="closed") == 1
        assert found("fanout_breakers", **of) == 1
        assert found("fanout_gate", **of, state="open") == 1
        assert found("fanout_retry_budget", **of) > 0
        # The other app has its own series, and nothing in them.
        assert found("fanout_attempts_total", app="shop") == found("fanout_backlog_deliveries", app="shop") == 0
        text = page.decode()
        assert not [word for word in (*SECRETS, id) if word in text]


async def test_a_lane_in_hand_shows_its_age_and_its_senders(running: Callable[..., Any], scrape: Any) -> None:
    held = asyncio.Event()
    begun = asyncio.Event()

    async def wait() -> Outcome:
        begun.set()
        await held.wait()
        return ACCEPTED

    async with running(lambda message, delivery: wait()) as engine:
        await engine.endpoints.register(user="alice", binding="push", address="one-phone")
        receipt = await engine.send(fanout.Notification(title="Hello"), "user:alice")
        await begun.wait()
        found = scrape(await render(engine))
        of = {"app": "default", "binding": "push"}
        assert found("fanout_in_flight", **of) == 1
        assert found("fanout_in_flight_limit", **of) >= 1
        assert found("fanout_in_flight_capacity", **of) == 1000
        assert found("fanout_leases", **of) == 1
        assert found("fanout_lane_age_seconds", **of, lane="normal") > 0
        assert found("fanout_lane_age_seconds", **of, lane="urgent") == 0
        assert found("fanout_deliveries_waiting", app="default", reason="leased") == 1
        held.set()
        await receipt.wait(60)
        assert scrape(await render(engine))("fanout_in_flight", **of) == 0


async def test_a_fault_is_counted(running: Callable[..., Any], scrape: Any) -> None:
    def broken(message: Any, delivery: Any) -> Outcome:
        raise KeyError(delivery.address)

    async with running(broken, attempts=1) as engine:
        await engine.endpoints.register(user="alice", binding="push", address="one-phone")
        await (await engine.send(fanout.Notification(title="Hello"), "user:alice")).wait(60)
        page = await render(engine)
    assert scrape(page)("fanout_faults_total", app="default", binding="push") == 1
    assert b"one-phone" not in page


async def test_storage_that_does_not_answer_is_a_metric_too(
    running: Callable[..., Any], scrape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as engine:

        async def fails(app: str) -> None:
            raise StorageError("The database cannot be read.")

        monkeypatch.setattr(engine.storage, "backlog", fails)
        found = scrape(await render(engine))
        assert found("fanout_storage_up") == 0
        assert "fanout_backlog_deliveries" not in found.families
        assert found("fanout_attempts_total") == 0


async def test_a_transport_that_cannot_say_is_a_fault_and_the_rest_is_told(
    running: Callable[..., Any], scrape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as engine:
        monkeypatch.setattr(engine.transports["default", "push"], "stats", lambda: 1 // 0, raising=False)
        await render(engine)
        assert scrape(await render(engine))("fanout_faults_total", app="default") >= 1


async def test_answers_that_came_late_or_twice_are_counted(running: Callable[..., Any], scrape: Any) -> None:
    async with running() as engine:
        engine._states[0].pump.late = 3
        assert scrape(await render(engine))("fanout_late_answers_total", app="default", binding="push") == 3


async def test_the_loops_lag_is_measured(running: Callable[..., Any], scrape: Any) -> None:
    lag = LoopLag()
    async with running() as engine:
        with lag:
            until = asyncio.get_running_loop().time() + 0.55
            while asyncio.get_running_loop().time() < until:
                pass  # the loop stands still, as under a blocking call
            while not sum(lag.histogram.counts):
                await asyncio.sleep(0.001)
        found = scrape(await render(engine, lag=lag))
    assert found("fanout_loop_lag_seconds_count") == 1
    assert found("fanout_loop_lag_seconds_sum") > 0.02


async def test_over_http(running: Callable[..., Any], scrape: Any) -> None:
    import aiohttp

    async with running() as engine, Exporter(engine) as exporter, aiohttp.ClientSession() as http:
        assert exporter.url.startswith("http://127.0.0.1:")
        async with http.get(exporter.url) as answer:
            assert answer.status == 200
            assert answer.headers["content-type"] == CONTENT_TYPE
            assert scrape(await answer.read())("fanout_info") == 1
        async with http.get(exporter.url.removesuffix("/metrics")) as answer:
            assert answer.status == 404
        port = int(exporter.url.split(":")[2].split("/")[0])
        with pytest.raises(fanout.UsageError, match="cannot be served"):
            async with Exporter(engine, port=port):
                pass


async def test_what_a_transport_says_of_its_connections(scrape: Any) -> None:
    from fanout_apns.simulator import ApnsSimulator

    async with (
        ApnsSimulator() as apple,
        fanout.open(storage="memory:", transports={"apns": apple.settings()}) as engine,
    ):
        before = scrape(await render(engine))
        assert before("fanout_connections", binding="apns") == 0
        await engine.endpoints.register(user="alice", binding="apns", address=apple.address(1))
        await (await engine.send(fanout.Notification(title="Hello"), "user:alice")).wait(60)
        after = scrape(await render(engine))
    assert after("fanout_connections", binding="apns") == 1
    assert after("fanout_connection_requests", binding="apns") == 0
    assert after("fanout_connection_events_total", binding="apns", event="opened") == 1
    assert after("fanout_connection_events_total", binding="apns", event="failed") == 0


async def test_a_refused_configuration_is_a_metric(
    tmp_path: Path, scrape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanout.engine.renewal.EVERY", 0.01)
    file = tmp_path / "fanout.toml"
    uuid = "00000000-0000-0000-0000-000000000001"
    good = 'storage = "memory:"\n[apps.default.transports.wns]\nauth = "entra"\nclient_secret = "s"\n'
    good += f'tenant_id = "{uuid}"\nclient_id = "{uuid}"\n'
    file.write_text(good)
    async with fanout.open(file) as engine:
        found = scrape(await render(engine))
        assert found("fanout_config_refused") == found("fanout_config_restart_needed") == 0
        file.write_text("storage = ")
        while not scrape(await render(engine))("fanout_config_refused"):
            await asyncio.sleep(0.005)
        assert scrape(await render(engine))("fanout_config_changes_total", result="refused") == 1
        file.write_text(good + "[policy]\nattempts = 3\n")
        while not scrape(await render(engine))("fanout_config_restart_needed"):
            await asyncio.sleep(0.005)
        assert scrape(await render(engine))("fanout_config_refused") == 0


async def test_probes_beside_the_metrics(running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(script) as engine, Exporter(engine) as exporter, aiohttp.ClientSession() as http:

        async def ask(path: str) -> tuple[int, Any]:
            exporter._readiness.forget()
            async with http.get(exporter.url.replace("/metrics", path)) as answer:
                assert answer.headers["cache-control"] == "no-store"
                return answer.status, await answer.json()

        good = {"ready": True, "storage": "ok", "engine": "ok", "configuration": "ok"}
        assert await ask("/health") == (200, {"status": "ok"})
        assert await ask("/ready") == (200, good)

        async def hangs() -> None:
            await asyncio.Event().wait()

        async def full() -> None:
            raise StorageFull("the path is nobody's affair")

        for probe, word in ((full, "full"), (hangs, "unavailable")):
            monkeypatch.setattr("fanout.metrics.readiness._PROMPT", 0.01)
            monkeypatch.setattr(engine.storage, "probe", probe)
            assert await ask("/ready") == (503, {**good, "ready": False, "storage": word})
        monkeypatch.undo()
        await exporter._readiness.aclose()  # the look that hangs
        monkeypatch.setattr(engine, "_fault", RuntimeError("the reason is nobody's affair"))
        assert await ask("/health") == (503, {"status": "failed"})
        assert await ask("/ready") == (503, {**good, "ready": False, "engine": "failed"})
        monkeypatch.undo()


async def test_a_database_that_is_dark_keeps_no_scrape_waiting(
    running: Callable[..., Any], scrape: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "_PROMPT", 0.02)
    async with running() as engine:
        found = scrape(await render(engine))
        while not found("fanout_storage_up"):  # a machine under load may need more than that
            found = scrape(await render(engine))
        assert found("fanout_storage_stale_seconds") == 0
        asked, dark = 0, asyncio.Event()
        backlog = engine.storage.backlog

        async def silent(app: str) -> Any:
            nonlocal asked
            asked += 1
            await dark.wait()
            return await backlog(app)

        monkeypatch.setattr(engine.storage, "backlog", silent)
        for _ in range(3):
            found = scrape(await render(engine))
            assert found("fanout_storage_up") == 0
            assert found("fanout_storage_stale_seconds") > 0
            assert found("fanout_backlog_deliveries", app="default") == 0, "the last value that was known"
        assert asked == 1, "one question is under way, however often it is scraped"
        dark.set()
        while not scrape(await render(engine))("fanout_storage_up"):
            pass
