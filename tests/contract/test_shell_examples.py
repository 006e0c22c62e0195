"""The shell blocks of README.md and of the guides are run, in order, as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fanout import cli
from fanout.config import load
from fanout.registry import Registry
from fanout_webpush.vapid import make_vapid_keys
from tests.contract.pages import EXAMPLES, PAGES, blocks, section
from tests.contract.test_readme import install

SCRIPTED = "from fanout.testing.scripted import plugin as make\nplugin = make()\n"
Run = Callable[..., str]


def commands(block: str) -> list[list[str]]:
    """The words of each line, without its comment."""
    return [line.partition(" #")[0].split() for line in block.splitlines()]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line of `fanout` in this process, and gives back its output. It must end with 0."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FANOUT_")]:
        monkeypatch.delenv(name)

    def one(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["fanout", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert ended.value.code == 0, (words, out, err)
        return out.strip()

    return one


def test_the_shell_in_the_readme(tmp_path: Path, run: Run) -> None:
    """`init` in a folder of its own: its push goes to a simulator, and what follows goes to a scripted transport.
    `serve`: test_walk."""
    lines = commands(EXAMPLES["shell"])
    assert len(lines) <= 10
    assert all(words[0] == "fanout" for words in lines)
    install(tmp_path, "pigeon", "shell_pigeon", SCRIPTED)
    devices = [f'{{"user": "{user}", "transport": "pigeon", "address": "{user}", "tags": ["news"]}}\n' for user in ("alice", "bob")]  # fmt: skip
    (tmp_path / "devices.ndjson").write_text("".join(devices))
    names: dict[str, str] = {}
    said: dict[str, str] = {}
    for _, *words in lines:
        if words[0] == "init":
            (tmp_path / "first").mkdir()
            os.chdir(tmp_path / "first")
            assert "accepted by a simulated gateway" in run(*words)
            os.chdir(tmp_path)
            (tmp_path / "fanout.toml").write_text('storage = "sqlite:fanout.db"\n[apps.default.transports.pigeon]\n')
        elif words[0] != "serve":
            out = said[words[0]] = run(*(names.get(word, word) for word in words))
            if words[0] == "send" and "--wait" not in words:
                names["ID"] = out
                names["E"] = str(json.loads(run("endpoints", "list", "--user", "alice", "--json"))["id"])
    assert "wrong" not in said["doctor"]
    assert "done" in said["status"]
    assert "accepted" in said["explain"]


def test_the_lines_of_an_import(tmp_path: Path, run: Run) -> None:
    """The file of the guide on migrating, and its commands; the bindings are those of the transports, and nothing is
    sent."""
    (lines,) = blocks("json", PAGES["docs/migrating.md"])
    (block,) = [each for each in blocks("sh", PAGES["docs/migrating.md"]) if "import" in each]
    (tmp_path / "devices.ndjson").write_text(lines)
    for name in ("apns.p8", "vapid.pem"):
        (tmp_path / name).write_text(make_vapid_keys().private_pem.reveal())
    (tmp_path / "fanout.toml").write_text(
        'storage = "sqlite:fanout.db"\n[apps.default.transports.apns]\nteam_id = "ABCDE12345"\nkey_id = "ABC123DEFG"\n'
        'key_file = "apns.p8"\ntopic = "com.example.app"\n[apps.default.transports.webpush]\n'
        'vapid_private_key_file = "vapid.pem"\nvapid_subject = "mailto:ops@example.com"\n'
    )
    for _, *words in commands(block):
        said = run(*words)
    assert "1 endpoint" in said
    assert len(run("endpoints", "list").splitlines()) >= 2


@pytest.mark.external
@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="sqlite3 is missing: apt-get install sqlite3")
def test_a_backup_is_taken_and_restored(tmp_path: Path, run: Run) -> None:
    install(tmp_path, "pigeon", "backup_pigeon", SCRIPTED)
    (tmp_path / "fanout.toml").write_text('storage = "sqlite:fanout.db"\n[apps.default.transports.pigeon]\n')
    run("endpoints", "add", "--user", "alice", "--transport", "pigeon", "phone")
    id = run("send", "--to", "user:alice", "--title", "Kept")

    def shell(name: str) -> str:
        lines = [line for line in EXAMPLES[name].splitlines() if not line.startswith("fanout ")]
        return subprocess.run(["sh", "-ec", "\n".join(lines)], capture_output=True, text=True, check=True).stdout

    assert shell("backup").strip() == "ok"
    run("cancel", id)
    shell("restore")
    assert re.search(r"\b1\b", run("status")), "the delivery waits again"
    run("work", "--drain")
    assert "done" in run("status", id)


def test_each_configuration_of_the_guides_is_one(tmp_path: Path) -> None:
    """PostgreSQL's URL, which is not connected to."""
    (block,) = blocks("toml", section("Past one machine"))
    (tmp_path / "fanout.toml").write_text(block + "[apps.default]\n")
    assert load(tmp_path / "fanout.toml", Registry().settings_type, {}).storage.startswith("postgresql://")
