"""What looks makes no database: a misspelt path is told, and nothing is left behind. A location that SQLAlchemy would
take is refused."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import orjson
import pytest

import fanout
import fanout.bootstrap
from fanout.errors import ConfigurationError, StorageAbsent
from fanout.plugin import StorageContext
from fanout.registry import Registry
from fanout.testing.scripted import ScriptedTransport

LOOKING = [
    ("status",),
    ("status", "0198"),
    ("status", "--workers"),
    ("endpoints", "list"),
    ("endpoints", "show", "1"),
    ("endpoints", "remove", "1"),
    ("endpoints", "restore", "1"),
    ("explain", "0198", "--endpoint", "1"),
    ("cancel", "0198"),
    ("pause", "0198"),
    ("resume", "--binding", "pigeon"),
    ("send", "--to", "user:alice", "--title", "Hi", "--dry-run"),
]


@pytest.mark.parametrize("words", LOOKING, ids=" ".join)
def test_a_command_that_only_looks_makes_no_database(shell: Any, words: tuple[str, ...]) -> None:
    before = set(os.listdir(shell.folder))
    result = shell(*words)

    assert result.code == 1
    assert "There is no database" in result.err
    assert "fanout.db" in result.err
    assert set(os.listdir(shell.folder)) == before


def test_an_empty_file_is_no_database_either(shell: Any) -> None:
    (shell.folder / "fanout.db").touch()
    result = shell("status")

    assert (result.code, (shell.folder / "fanout.db").stat().st_size) == (1, 0)
    assert "There is no database" in result.err


def test_doctor_says_that_it_is_not_made_yet_and_makes_none(shell: Any) -> None:
    result = shell("doctor", "--json")
    (found,) = [line for line in result.lines if line["kind"] == "storage"]

    assert found["ok"]
    assert "not made yet" in found["detail"]
    assert not (shell.folder / "fanout.db").exists()


def test_what_brings_something_makes_it_and_then_it_can_be_looked_at(shell: Any) -> None:
    shell.ok("endpoints", "add", "--user", "alice", "--transport", "pigeon", "coop-7")

    assert "alice" in shell.ok("endpoints", "list")
    assert "fanout.db" in next(line["detail"] for line in shell("doctor", "--json").lines if line["kind"] == "storage")


@pytest.mark.parametrize(
    "location", ["sqlite:///fanout.db", "sqlite:////var/lib/fanout.db", "sqlite://fanout.db", "sqlite://"]
)
def test_the_form_of_sqlalchemy_is_refused_at_once(
    location: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"sqlite:fanout\.db.*sqlite:/var/lib/fanout\.db"):
        fanout.open(
            storage=location, transports={"webpush": {"vapid_private_key": "x", "vapid_subject": "mailto:a@b.de"}}
        )
    with pytest.raises(ConfigurationError):
        Registry().make_storage(location, StorageContext(clock=fanout.bootstrap.SystemClock()))
    assert os.listdir(tmp_path) == []


@pytest.mark.anyio
async def test_a_storage_that_is_only_looked_at_is_absent(tmp_path: Any) -> None:
    context = StorageContext(clock=fanout.bootstrap.SystemClock(), create=False)
    with pytest.raises(StorageAbsent, match="yet"):
        async with Registry().make_storage(f"sqlite:{tmp_path}/fanout.db", context):
            pass
    assert os.listdir(tmp_path) == []


def test_doctor_counts_tags_from_before_and_names_what_it_cannot_load(shell: Any) -> None:
    async def use() -> Any:
        async with fanout.open(shell.config, role="submit") as engine:
            plain = engine.endpoints.registration(user="alice", binding="pigeon", address="phone")
            await engine.endpoints.register_many([replace(plain, tags=("old & odd", "fine"))])
        storage = f"sqlite:{shell.folder}/fanout.db"
        async with fanout.open(storage=storage, transports={"door": ScriptedTransport()}):
            words = [sys.executable, "-m", "fanout", "doctor", "--json"]
            given: Any = {"cwd": shell.folder, "env": shell.environ, "capture_output": True, "timeout": 60}
            return await asyncio.to_thread(lambda: subprocess.run(words, **given).stdout)

    lines = [orjson.loads(line) for line in asyncio.run(use()).splitlines()]
    (found,) = [line for line in lines if line["kind"] == "storage"]
    assert found["ok"]
    assert found["warning"].startswith("1 endpoints have tags (1 different ones)")
    (door,) = [line for line in lines if line["name"] == "default/door"]
    assert "cannot load it" in door["detail"]
    assert "cannot load" in shell("endpoints", "add", "--user", "a", "--transport", "door", "x").err
