"""The blocks of the guides that are parts of a program or of a shell session, each in the place that it is written
for."""

from __future__ import annotations

import asyncio
import shlex
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fanout
from fanout.config import load
from fanout.registry import Registry
from fanout.testing import ScriptedTransport
from fanout_fcm.simulator import FcmSimulator
from tests.contract.pages import blocks, section
from tests.contract.test_readme import install
from tests.contract.test_shell_examples import SCRIPTED, commands, run

Run = Callable[..., str]
__all__ = ["run"]  # a fixture


async def executed(code: str, **names: Any) -> dict[str, Any]:
    """Run a block that awaits; returns its names."""
    body = textwrap.indent(code, "    ") + "\n    return locals()\n"
    scope: dict[str, Any] = {"fanout": fanout, **names}
    exec(compile(f"async def block():\n{body}", "a page", "exec"), scope)
    found: dict[str, Any] = await scope["block"]()
    return found


def test_the_call_of_the_guide_on_sending() -> None:
    """The last lines follow the events for ever: here, up to the first."""
    (code,) = blocks("python", section("The call"))
    code = code.replace("    ...", "    break")

    async def main() -> None:
        async with fanout.open(storage="memory:", transports={"pigeon": ScriptedTransport()}) as engine:
            await engine.endpoints.register(user="alice", binding="pigeon", address="phone", tags=["match-17"])
            names = await executed(code, engine=engine, kick_off=time.time() + 600, cursor=0)
            status = await names["receipt"].status()
            assert (status.state, status.total) == ("cancelled", 1) or status.counts["cancelled"] == status.total
            assert names["event"].id

    asyncio.run(main())


def test_the_pauses_of_the_guide_on_sending(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python", section("When it sends, and when it waits"))
    code = code.replace('"apns"', '"pigeon"')

    def refuse(message: object, delivery: object) -> fanout.Outcome:
        return fanout.Throttled(600)

    async def main() -> None:
        async with fanout.open(storage="memory:", transports={"pigeon": ScriptedTransport(refuse)}) as engine:
            endpoint = await engine.endpoints.register(user="alice", binding="pigeon", address="phone")
            receipt = await engine.send(fanout.Notification(title="Hi"), "user:alice")
            names = await executed(code, engine=engine, receipt=receipt, endpoint=endpoint.id)
            assert names["status"].id == receipt.id

    asyncio.run(main())
    said = capsys.readouterr().out
    assert [line.split()[1] for line in said.splitlines() if " None" in line][:4] == [
        "accepted",
        "queued",
        "paused",
        "resumed",
    ]


def test_the_environment_of_the_guide_on_configuration(tmp_path: Path) -> None:
    (code,) = blocks("sh", section("The environment"))
    environ = dict(word.split("=", 1) for word in shlex.split(code) if word != "export")
    account = tmp_path / "service-account.json"
    account.write_text(FcmSimulator(folder=tmp_path / "google").service_account)
    environ = {
        name: value.replace("/run/secrets/service-account.json", str(account)) for name, value in environ.items()
    }
    environ = {name: value.replace("sha256:…", "sha256:" + "0" * 64) for name, value in environ.items()}
    settings = load(None, Registry().settings_type, environ)
    assert settings.policy.attempts == 10
    assert [binding for _, binding, _ in settings.bindings()] == ["fcm"]
    assert [key.id for key in settings.service.keys] == ["0123456789ab"]


def test_a_database_is_sealed_as_the_guide_says(tmp_path: Path, run: Run) -> None:
    install(tmp_path, "pigeon", "sealed_pigeon", SCRIPTED)
    config = tmp_path / "fanout.toml"
    config.write_text('storage = "sqlite:fanout.db"\n[apps.default.transports.pigeon]\n')
    run("endpoints", "add", "--user", "alice", "--transport", "pigeon", "phone")
    (block,) = blocks("sh", section("Sealed addresses"))
    made, seal = commands(block)
    said = run(*made[1:])
    assert '[addresses]\nkey_file = "address.key"' in said
    config.write_text(config.read_text() + said[said.index("[addresses]") :].partition("\n\n")[0] + "\n")
    run(*seal[1:])
    assert '"phone"' in run("users", "export", "alice")


def test_keys_are_made_and_revoked_as_the_guide_says(tmp_path: Path, run: Run) -> None:
    install(tmp_path, "pigeon", "keys_pigeon", SCRIPTED)
    (tmp_path / "fanout.toml").write_text('storage = "sqlite:fanout.db"\n[apps.default.transports.pigeon]\n')
    (block,) = [each for each in blocks("sh", section("As a service")) if each.startswith("fanout keys")]
    said: list[str] = []
    for _, *words in commands(block):
        said.append(run(*(said[0].split("_")[1] if word == "ID" else word for word in words)))
    assert said[0].startswith("fak_")
    assert "billing" in said[3]
    assert "app.example.com" in said[3]
