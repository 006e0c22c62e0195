"""The first test push: to a device that was named, or over simulated gateways."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import typer

from fanout import bootstrap
from fanout.cli.gateways import Gateway, simulated_transports, toml
from fanout.cli.init_answers import Answers
from fanout.core.model import Notification
from fanout.core.states import DeliveryState
from fanout.errors import UsageError
from fanout.registry import Registry

__all__ = ["first_push"]

_USER = "first-test-push"


async def first_push(registry: Registry, answers: Answers, file: Path) -> int:
    """0 where every device got it. With a device it goes by the new configuration, and the device stays registered for
    `first-test-push`."""
    if answers.devices:
        return await _push(file, registry, answers.app, answers.devices, "the gateway")
    simulated = {each.name: each for each in simulated_transports(registry) if each.name in answers.bindings}
    if not simulated:
        raise UsageError("None of these platforms can be simulated: name a device with --device, or say --no-push.")
    with tempfile.TemporaryDirectory(prefix="fanout-init-") as made:
        folder = Path(made)
        async with AsyncExitStack() as stack:
            settings = {}
            for name in simulated:
                gateway = await stack.enter_async_context(Gateway(name, folder / name))
                settings[name] = gateway.settings
            config = folder / "fanout.toml"
            config.write_text(toml("sqlite:fanout.db", settings, {}), encoding="utf-8")
            config.chmod(0o600)
            devices = {name: each.address(1, "good") for name, each in simulated.items()}
            return await _push(config, registry, "default", devices, "a simulated gateway")


async def _push(config: Path, registry: Registry, app: str, devices: Mapping[str, Any], gateway: str) -> int:
    made = bootstrap.prepare(bootstrap.make_settings(config, registry=registry), registry)
    async with made.engine() as engine:
        ids = {}
        for binding, address in devices.items():
            endpoint = await engine.endpoints.register(user=_USER, binding=binding, address=address, app=app)
            ids[endpoint.id] = binding
        note = Notification(title="It works", body="The first push of fanout.", ttl=300.0)
        receipt = await engine.send(note, f"user:{_USER}", app=app)
        await receipt.wait()
        good = True
        async for endpoint_id, state, reason in engine.deliveries(receipt.id):
            said = f"{state}" + (f" ({reason})" if reason else "")
            typer.echo(f"The first test push to {ids.get(endpoint_id, endpoint_id)}: {said} by {gateway}.")
            good = good and state == DeliveryState.ACCEPTED
        return 0 if good else 1
