"""`fanout.open`: each way of giving it a configuration, and each way of getting that wrong."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import fanout
from fanout.bootstrap import make_settings
from fanout.registry import Registry
from fanout.testing.clock import VirtualClock

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("pigeons")]

KEYWORDS: dict[str, Any] = {"storage": "memory:", "transports": {"pigeon": {}}}


async def test_keywords() -> None:
    async with fanout.open(**KEYWORDS) as engine:
        await engine.endpoints.register(user="alice", binding="pigeon", address="alice-phone")
        receipt = await engine.send(fanout.Notification(title="Hello"), "user:alice")
        status = await receipt.wait(60)
    assert status.counts["accepted"] == 1


async def test_a_file_a_mapping_and_settings_mean_the_same(tmp_path: Path) -> None:
    file = tmp_path / "fanout.toml"
    file.write_text('storage = "memory:"\n[apps.default.transports.pigeon]\nlimit = 100\n[policy]\nattempts = 3\n')
    tables = {
        "storage": "memory:",
        "apps": {"default": {"transports": {"pigeon": {"limit": 100}}}},
        "policy": {"attempts": 3},
    }
    made = make_settings(tables, registry=Registry())
    for config in (file, str(file), tables, made):
        async with fanout.open(config) as engine:
            assert engine.policy.attempts == 3
            with pytest.raises(fanout.MessageTooLarge):
                await engine.send(fanout.Notification(body="x" * 200), "user:alice")


async def test_several_apps_and_values_already_made() -> None:
    async with fanout.open(
        storage="memory:",
        apps={"shop": {"doves": {"type": "pigeon"}}},
        transports={"pigeon": {}},
        policy=fanout.Policy(attempts=2),
        retention={"events": "1h"},
        role="submit",
        clock=VirtualClock(),
        rng=random.Random(1),
    ) as engine:
        assert sorted(engine.transports) == [("default", "pigeon"), ("shop", "doves")]
        assert engine.policy.attempts == 2
        assert engine.role == "submit"


async def test_an_exception_of_the_host_comes_through_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with fanout.open(**KEYWORDS):
            raise ZeroDivisionError


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"config": {}, "storage": "memory:"}, fanout.UsageError, "config and storage are both given"),
        (KEYWORDS | {"apps": {"default": {"x": {}}}}, fanout.UsageError, "both given"),
        (KEYWORDS | {"role": "boss"}, fanout.UsageError, "submit, work or both"),
        ({"transports": {"pigeon": {}}}, fanout.ConfigurationError, "storage is missing"),
        ({"storage": "memory:"}, fanout.ConfigurationError, "No transport is configured"),
        ({"storage": "floppy:a", "transports": {"pigeon": {}}}, fanout.ConfigurationError, "'floppy'"),
        (
            {"storage": "memory:", "transports": {"dove": {}}},
            fanout.ConfigurationError,
            "apps.default.transports.dove: no transport called 'dove' is installed",
        ),
        (
            {"storage": "memory:", "transports": {"pigeon": {"limits": 3}}},
            fanout.ConfigurationError,
            "did you mean limit",
        ),
        (KEYWORDS | {"policy": {"attempts": 0}}, fanout.ConfigurationError, "policy.attempts is 0"),
        ({"config": "absent.toml"}, fanout.ConfigurationError, "absent.toml"),
    ],
)
def test_refusals(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        fanout.open(**arguments)
    assert words in str(raised.value)
