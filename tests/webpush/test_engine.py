"""Through the whole engine: directory, retries and settlement."""

from __future__ import annotations

import asyncio
import gc
import json
from types import SimpleNamespace
from typing import Any

import pytest

import fanout
from fanout.engine import Engine
from fanout.engine.lease import Lease
from fanout.plugin import Notification
from fanout_webpush.simulator import WebPushSimulator
from fanout_webpush.vapid import make_vapid_keys

pytestmark = pytest.mark.anyio
POLICY = {"backoff_base": 0.02, "backoff_throttled": 0.02, "probe": 0.05, "request_timeout": 5.0}


def engine_to(server: WebPushSimulator, storage: str = "memory:", hooks: Any = (), **changes: Any) -> Engine:
    return fanout.open(storage=storage, transports={"webpush": server.settings() | changes}, policy=POLICY, hooks=hooks)


async def register(engine: Engine, user: str, raw: Any) -> int:
    endpoint = await engine.endpoints.register(user=user, binding="webpush", address=raw)
    return endpoint.id


@pytest.mark.parametrize("storage", ["memory:", "sqlite:{}/x.db"])
async def test_one_user_with_all_kinds_of_browsers(tmp_path: Any, storage: str) -> None:
    async with WebPushSimulator(keep=True, slow=0.01) as server:
        async with engine_to(server, storage.format(tmp_path)) as engine:
            for number in range(8):
                await register(engine, "alice", WebPushSimulator.address(number))
            for behaviour in ("dead", "other", "throttled", "slow", "moved"):
                await register(engine, "alice", WebPushSimulator.address(0, behaviour))
            receipt = await engine.send(Notification(title="Hello"), "user:alice")
            status = await receipt.wait()
        assert {state: n for state, n in status.counts.items() if n} == {"accepted": 11, "gone": 2}
        assert len(server.received) == 11
        for (plaintext,) in server.received.values():
            assert json.loads(plaintext)["fanout"] == {"id": receipt.id}
        assert not server.counters.violations


async def test_a_moved_endpoint_is_followed_into_the_directory() -> None:
    async with WebPushSimulator(keep=True) as server, engine_to(server) as engine:
        id = await register(engine, "alice", WebPushSimulator.address(3, "moved"))
        before = await engine.endpoints.get(id)
        for _ in range(2):
            status = await (await engine.send(Notification(title="Hello"), "user:alice")).wait()
            assert status.counts["accepted"] == 1
        after = await engine.endpoints.get(id)
        assert before is not None
        assert after is not None
        assert after.address.digest != before.address.digest
        assert server.counters.rejected["moved"] == 1  # the second went to the new address at once


async def test_a_wrong_vapid_key_empties_no_directory() -> None:
    """Every endpoint is refused: that is our doing, so that after a few the rest waits for an operator."""
    async with WebPushSimulator() as server:
        other = make_vapid_keys()
        async with engine_to(server, vapid_private_key=other.private_pem.reveal()) as engine:
            for number in range(120):
                await register(engine, "alice", WebPushSimulator.address(number))
            receipt = await engine.send(Notification(title="Hello"), "user:alice")
            async for event in engine.live():
                if event.kind == "alarm":
                    break
            status = await receipt.status()
            assert status is not None
            assert status.counts["gone"] <= 25
            assert status.counts["pending"] >= 95


async def test_a_notification_that_is_too_large_is_refused_before_anything_is_stored() -> None:
    async with WebPushSimulator() as server, engine_to(server) as engine:
        await register(engine, "alice", WebPushSimulator.address(1))
        with pytest.raises(fanout.MessageTooLarge, match="3993"):
            await engine.send(Notification(title="x" * 4000), "user:alice")


async def test_erased_secrets_are_not_in_events() -> None:
    async with WebPushSimulator() as server, engine_to(server) as engine:
        raw = server.subscribe("alice", behaviour="dead")
        await register(engine, "alice", raw)
        await (await engine.send(Notification(title="x"), "user:alice")).wait()
        shown = ""
        async for event in engine.events():
            shown += repr(event)
            if event.kind == "notification.finished":
                break
        assert "endpoint.gone" in shown
        assert raw["endpoint"] not in shown
        assert raw["keys"]["auth"] not in shown


def _leases() -> list[Lease]:
    """Those of tests before may be held by what they left."""
    return [each for each in gc.get_objects() if isinstance(each, Lease)]


@pytest.mark.parametrize(
    ("many", "most"),
    [(40, 8), pytest.param(300, 64, marks=pytest.mark.long("40 hosts where 8 may be in use"))],
)
async def test_more_hosts_than_may_be_in_use_are_served_without_a_gate_and_let_go(many: int, most: int) -> None:
    """Every push is answered 201: no host is in trouble, none costs a second attempt, and nothing is held when all is
    done."""
    closed: list[Any] = []
    hook = SimpleNamespace(on_event=lambda event: closed.append(event) if event.kind == "gate.closed" else None)
    others = _leases()
    async with WebPushSimulator(lean=True) as server:
        settings = {"max_hosts": most, "allowed_hosts": ["push.example"]}
        async with engine_to(server, hooks=[hook], **settings) as engine:
            for number in range(many):
                raw = json.loads(WebPushSimulator.address(number))
                await register(
                    engine, "alice", raw | {"endpoint": f"https://h{number}.push.example/wpush/v2/good-{number}"}
                )
            for _ in range(2):
                receipt = await engine.send(Notification(title="Hello"), "user:alice")
                status = await receipt.wait(120)
                assert (status.counts["accepted"], status.attempts) == (many, many)
            assert closed == []
            assert server.counters.open_connections <= most
            (state,) = engine._settler.states
            while state.leases:
                await asyncio.sleep(0.005)
            hosts = engine.transports["default", "webpush"]._hosts  # type: ignore[attr-defined]
            assert len(hosts._hosts) <= most
            assert all(host.idle for host in hosts._hosts.values())
            assert not hosts._waiting
            assert not any(group.queued or group.active for group in state.groups.values())
            gc.collect()
            assert not [each for each in _leases() if not any(each is other for other in others)], (
                "rows of what is done stay"
            )
            state.tick(state.clock.now() + 3600.0)
            assert not state.groups
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not state.sends._under_way, "tasks of idle hosts stay"
