"""The command line in this process, on a database and a transport of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pytest

import fanout
from fanout import cli

PIGEON = """
import asyncio
from fanout.plugin import ACCEPTED, Gone, Misconfigured, Rejected, TransportPlugin
from fanout.testing.scripted import ScriptedSettings, ScriptedTransport

def script(message, delivery):
    if delivery.address.startswith("dead"):
        return Gone("Unregistered", since=4e9)
    if delivery.address.startswith("never"):
        return Rejected("BadFeather")
    if delivery.address.startswith("parked"):
        return Misconfigured("the loft is locked")
    return ACCEPTED

def make(settings, context):
    return ScriptedTransport(script, capacity=settings.capacity, limit=settings.limit)

plugin = TransportPlugin(name="pigeon", settings=ScriptedSettings, factory=make)
"""


@dataclass(frozen=True)
class Result:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, object]]:
        """Standard output as JSON lines."""
        return [orjson.loads(line) for line in self.out.splitlines()]


@dataclass
class Shell:
    """A folder with a configuration, a transport called `pigeon`, and `fanout` run in it."""

    folder: Path
    call: Callable[[Sequence[str]], Result]
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.folder / "fanout.toml"

    def __call__(self, *words: str) -> Result:
        return self.call(words)

    def ok(self, *words: str) -> str:
        """Standard output of a command that must succeed."""
        result = self(*words)
        assert result.code == 0, result.err
        return result.out.strip()

    def register(self, *devices: tuple[str, str]) -> list[int]:
        """Endpoints of (user, address) on `pigeon`, made through the library; without any, the database alone."""

        async def enter() -> list[int]:
            async with fanout.open(self.config, role="submit") as engine:
                return [
                    (await engine.endpoints.register(user=user, binding="pigeon", address=address)).id
                    for user, address in devices
                ]

        return asyncio.run(enter())

    def deliveries(self, id: str) -> list[tuple[int, str, str]]:
        """(endpoint, state, reason) of a notification."""

        async def read() -> list[tuple[int, str, str]]:
            async with fanout.open(self.config, role="submit") as engine:
                return [row async for row in engine.deliveries(id)]

        return asyncio.run(read())


def install(site: Path, code: str = PIGEON) -> None:
    """A distribution with the transport `pigeon`."""
    info = site / "pigeon_post-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-post\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fanout.transports]\npigeon = pigeon_post_cli:plugin\n")
    (site / "pigeon_post_cli.py").write_text(code)


@pytest.fixture
def children_hear_signals() -> Iterator[None]:
    """Children start with the default action of each signal, also where this run was started to ignore one (`nohup`, a
    shell's `&`).

    An ignored signal is inherited by a new program; one with a handler is not. The handler here does nothing: this run
    ignores it still.
    """
    told = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if sys.platform != "win32" else []))
    ignored = [number for number in told if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda number, frame: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    site = tmp_path / "site"
    install(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "pigeon_post_cli", raising=False)
    monkeypatch.delenv("FANOUT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fanout.toml").write_text(
        'storage = "sqlite:fanout.db"\n[apps.default.transports.pigeon]\nlimit = 500\n'
    )

    def call(words: Sequence[str]) -> Result:
        monkeypatch.setattr(sys, "argv", ["fanout", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, out, err)

    return Shell(
        tmp_path,
        call,
        {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])},
    )
