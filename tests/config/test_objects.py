"""Transports and storages that a program hands over as objects, or as descriptors with their settings: no distribution
is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

import fanout
import fanout.sync
from fanout.bootstrap import SystemClock
from fanout.errors import ConfigurationError, PluginError, UsageError
from fanout.plugin import Context, Secret, StorageContext, StoragePlugin, TransportPlugin, new_address_key
from fanout.registry import Registry
from fanout.testing.scripted import ScriptedTransport

pytestmark = pytest.mark.anyio

HI = fanout.Notification(title="Hi")


@dataclass(frozen=True, slots=True, kw_only=True)
class BellSettings:
    limit: int = 4096
    key: Secret | None = None


made: list[tuple[Any, Context]] = []


def ring(settings: BellSettings, context: Context) -> ScriptedTransport:
    made.append((settings, context))
    return ScriptedTransport(limit=settings.limit)


BELL = TransportPlugin(name="bell", settings=BellSettings, factory=ring)


async def delivered(engine: fanout.Engine, binding: str, app: str = "default") -> int:
    async with engine:
        await engine.endpoints.register(user="alice", binding=binding, address="phone", app=app)
        return (await (await engine.send(HI, "user:alice", app=app)).wait(60)).counts["accepted"]


async def test_a_transport_object() -> None:
    door = ScriptedTransport()

    assert await delivered(fanout.open(storage="memory:", transports={"door": door}), "door") == 1
    assert len(door.sends) == 1


async def test_overrides_name_a_binding_or_a_transport() -> None:
    made: dict[str, Any] = {"door": (BELL, {}), "gate": ScriptedTransport()}
    async with fanout.open(storage="memory:", transports=made) as engine:
        for name in ("door", "gate", "bell", "apns", "wns"):
            await engine.send(fanout.Notification(title="Hi", transports={name: {"a": 1}}), "user:alice")
        for name in ("dor", "Door", ""):
            both = fanout.Notification(title="Hi", transports={"door": {}, name: {"a": 1}})
            with pytest.raises(UsageError, match=f"transports names '{name}'.*use one of apns, bell, door, .* take it"):
                await engine.send(both, "user:alice")


async def test_beside_tables_and_in_other_apps() -> None:
    door, gate = ScriptedTransport(), ScriptedTransport()
    settings = {"project_id": "shop-1234"}
    apps = {"default": {"door": door, "fcm": settings}, "shop": {"door": gate}}
    engine = fanout.open(storage="memory:", apps=apps, role="submit")
    async with engine:
        await engine.endpoints.register(user="a", binding="fcm", address="d1Z-token:" + "A" * 140)
        await engine.endpoints.register(user="a", binding="door", address="x")
        assert (await engine.send(HI, "user:a")).total == 2
    assert await delivered(fanout.open(storage="memory:", apps={"shop": {"door": gate}}), "door", "shop") == 1


@pytest.mark.parametrize("given", [(BELL, {"limit": 500}), (BELL, BellSettings(limit=500))])
async def test_a_descriptor_with_its_settings(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()

    assert await delivered(fanout.open(storage="memory:", transports={"door": given}), "door") == 1
    ((settings, context),) = made
    assert (settings.limit, context.app, context.binding) == (500, "default", "door")


async def test_a_descriptor_alone_its_secret_from_the_environment_and_unknown_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made.clear()
    monkeypatch.setenv("FANOUT_DEFAULT_DOOR_KEY", "hush")
    fanout.open(storage="memory:", transports={"door": BELL})
    assert made[0][0].key == Secret("hush")
    with pytest.raises(ConfigurationError, match=r"apps\.default\.transports\.door\.limmit.*limit"):
        fanout.open(storage="memory:", transports={"door": (BELL, {"limmit": 5})})


async def test_in_a_mapping_and_through_the_blocking_engine() -> None:
    config = {"storage": "memory:", "apps": {"default": {"transports": {"door": ScriptedTransport()}}}}
    assert await delivered(fanout.open(config), "door") == 1


def test_the_blocking_engine_takes_them_too() -> None:
    door = ScriptedTransport()
    with fanout.sync.open(storage="memory:", transports={"door": door}) as engine:
        engine.endpoints.register(user="alice", binding="door", address="phone")
        assert engine.send(HI, "user:alice").wait(60).counts["accepted"] == 1


async def test_a_storage_object_and_a_descriptor_with_its_location(tmp_path: Any) -> None:
    memory = Registry().make_storage("memory:", StorageContext(clock=SystemClock()))
    assert await delivered(fanout.open(storage=memory, transports={"door": ScriptedTransport()}), "door") == 1

    def make(location: str, context: StorageContext) -> Any:
        return Registry().make_storage(f"sqlite:{location}", context)

    mine = StoragePlugin(name="mine", factory=make)
    engine = fanout.open(storage=(mine, f"{tmp_path}/x.db"), transports={"door": ScriptedTransport()})
    assert await delivered(engine, "door") == 1
    assert (tmp_path / "x.db").exists()
    key = new_address_key().reveal()
    with pytest.raises(ConfigurationError, match="cannot seal"):
        fanout.open(storage=memory, transports={"door": ScriptedTransport()}, addresses={"key": key})


class _Half:
    def prepare(self, notification: object) -> None: ...


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (_Half(), UsageError, r"apps\.default\.transports\.door is a _Half without .*parse_address"),
        (ScriptedTransport, ConfigurationError, r"apps\.default\.transports\.door"),
        (5, ConfigurationError, r"transports\.door|'door'"),
        ((BELL, 5), ConfigurationError, r"apps\.default\.transports\.door"),
        ((TransportPlugin(name="x", settings=BellSettings, factory=ring, api=99), {}), PluginError, "level 99"),
        ((TransportPlugin(name="x", settings=BellSettings, factory="nowhere:ring"), {}), PluginError, "nowhere"),
    ],
)
def test_what_is_none_of_these_is_refused(given: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        fanout.open(storage="memory:", transports={"door": given})


def test_one_object_is_one_binding() -> None:
    door = ScriptedTransport()
    with pytest.raises(UsageError, match="the same object"):
        fanout.open(storage="memory:", transports={"door": door, "gate": door})
