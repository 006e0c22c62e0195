"""What the README says works as printed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import orjson
import pytest

from fanout.plugin import Notification
from fanout_fcm.payload import encode
from fanout_fcm.settings import FcmSettings
from fanout_fcm.simulator import FcmSimulator
from fanout_fcm.simulator.schema import violations

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "transports/fanout_fcm/README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def test_the_override_is_one_that_google_takes() -> None:
    (code,) = blocks("python")
    notification = eval(code, {"Notification": Notification})
    message = encode(notification, notification.override("fcm")).body("token", "T", 60)
    assert not violations(orjson.loads(message)["message"])


@pytest.mark.long("the README of APNs leads to one")
@pytest.mark.anyio
async def test_the_commands_lead_to_a_push(tmp_path: Path) -> None:
    """The configuration and commands of the README, with the file and the addresses of a simulator."""
    config, keyless = blocks("toml")
    tomllib.loads(config)
    FcmSettings(**tomllib.loads(keyless)["apps"]["default"]["transports"]["fcm"])
    commands = [line for block in blocks("") for line in block.splitlines() if line.startswith("fanout ")]
    async with FcmSimulator(folder=tmp_path / "google") as google:
        settings: dict[str, Any] = google.settings()
        (tmp_path / "service-account.json").write_text(settings.pop("service_account"))
        config += "".join(f"{name} = {orjson.dumps(value).decode()}\n" for name, value in settings.items())
        (tmp_path / "fanout.toml").write_text(config)
        google.pushes = []
        for command in commands:
            words = [google.address(1) if ":APA91b" in word else word for word in command.split()]
            out = await _run(words[1:], tmp_path)
            assert google.address(1) not in out
        assert len(google.pushes) == 1
    assert [command.split()[1] for command in commands] == ["doctor", "endpoints", "send"]


async def _run(words: list[str], folder: Path) -> str:
    import asyncio

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fanout", *words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()
