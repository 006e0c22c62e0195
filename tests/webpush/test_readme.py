"""What the README says works as printed."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fanout.plugin import Notification
from fanout_webpush.payload import encode
from fanout_webpush.simulator import WebPushSimulator

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "transports/fanout_webpush/README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def test_the_override_passes_through() -> None:
    (code,) = blocks("python")
    notification = eval(code, {"Notification": Notification})
    message = encode(notification, notification.override("webpush"))
    assert message.plaintext is not None
    content = json.loads(message.plaintext)
    assert content["requireInteraction"] is True
    assert dict(message.headers) == {"urgency": "high"}


@pytest.mark.long("the README of APNs leads to one")
@pytest.mark.anyio
async def test_the_commands_lead_to_a_push(tmp_path: Path) -> None:
    """The configuration and commands of the README, with the addresses of a simulator."""
    (config,) = blocks("toml")
    tomllib.loads(config)
    commands = [line for block in blocks("") for line in block.splitlines() if line.startswith("fanout ")]
    assert [command.split()[1] for command in commands] == ["keys", "doctor", "endpoints", "send"]
    async with WebPushSimulator(folder=tmp_path / "services") as server:
        for name in ("gateway", "ca_file"):
            config += f"{name} = {json.dumps(server.settings()[name])}\n"
        (tmp_path / "fanout.toml").write_text(config)
        server.pushes = []
        public = ""
        for command in commands:
            words = shlex.split(command)[1:]
            if words[0] == "endpoints":
                raw = server.subscribe("me", vendor="google", server_key=public)
                words = [json.dumps(raw) if word.startswith("{") else word for word in words]
            out = await _run(words, tmp_path)
            found = re.search(r"B[A-Za-z0-9_-]{86}", out)
            public = found.group() if found else public
        assert len(server.pushes) == 1


async def _run(words: list[str], folder: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fanout", *words), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out: Any
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return str(out.decode())
