"""Address keys from the shell: made, configured, checked, and a database sealed with them."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

TOKENS = ("bird-of-paradise", "bird-of-prey")


def database(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir() if file.name.startswith("fanout.db"))


@pytest.fixture
def filled(shell: Any) -> Any:
    for token in TOKENS:
        assert shell("endpoints", "add", "--user", "alice", "--transport", "pigeon", token).code == 0
    assert all(token.encode() in database(shell.folder) for token in TOKENS)
    return shell


def configure(shell: Any, name: str = "address.key") -> Any:
    made = shell("keys", "address", "--out", name)
    assert made.code == 0
    if "[addresses]" not in shell.config.read_text():
        shell.config.write_text(shell.config.read_text() + "\n" + made.out)
    return made


def test_a_key_is_made_and_named(shell: Any) -> None:
    made = configure(shell)
    file = shell.folder / "address.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert tomllib.loads(made.out) == {"addresses": {"key_file": "address.key"}}
    assert file.read_text().strip() not in made.out + made.err
    (said,) = shell("keys", "address", "--json").lines
    assert said["settings"]["key"].startswith("fsk_")
    (found,) = [line for line in shell("doctor", "--json").lines if line["kind"] == "addresses"]
    assert found["ok"] is True


def test_a_database_in_clear_is_refused_and_then_sealed(filled: Any) -> None:
    shell = filled
    configure(shell)
    for words in (["endpoints", "list"], ["doctor"]):
        result = shell(*words)
        assert result.code != 0
        assert "fanout endpoints seal" in result.out + result.err
    result = shell("endpoints", "seal", "--json")
    assert (result.code, result.lines) == (0, [{"sealed": 2}])
    assert not any(token.encode() in database(shell.folder) for token in TOKENS)
    assert len(shell("endpoints", "list", "--json").lines) == 2
    assert shell("send", "--to", "user:alice", "--title", "x", "--wait").code == 0
    assert shell("endpoints", "seal").out == "0 addresses sealed\n"


def test_a_key_is_replaced(filled: Any) -> None:
    shell = filled
    configure(shell)
    shell("endpoints", "seal")
    file = shell.folder / "address.key"
    old = file.read_text()
    configure(shell, "new.key")
    new = (shell.folder / "new.key").read_text()
    file.write_text(f"# the new one\n{new}{old}")
    assert len(shell("endpoints", "list", "--json").lines) == 2
    assert shell("endpoints", "seal").out == "2 addresses sealed\n"
    file.write_text(new)
    assert len(shell("endpoints", "list", "--json").lines) == 2
    file.write_text(old)
    result = shell("endpoints", "list")
    assert result.code == 1
    assert "put the missing line back" in result.err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fsk_AAAA", "line 1 is no address key"),
        ("hunter2", "line 1 is no address key"),
        ("# nothing", "there must be one"),
        ("", "is empty"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(shell: Any, text: str, sentence: str) -> None:
    configure(shell)
    (shell.folder / "address.key").write_text(text)
    result = shell("endpoints", "list")
    assert result.code == 2
    assert sentence in result.err
    assert "hunter2" not in result.err
    assert sentence in shell("doctor").out


def test_there_is_nothing_to_seal_without_a_key(shell: Any) -> None:
    result = shell("endpoints", "seal")
    assert result.code == 2
    assert "fanout keys address" in result.err


def test_the_key_from_the_environment(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = shell("keys", "address", "--json").lines
    monkeypatch.setenv("FANOUT_ADDRESSES_KEY", said["settings"]["key"])
    assert shell("endpoints", "add", "--user", "alice", "--transport", "pigeon", TOKENS[0]).code == 0
    assert TOKENS[0].encode() not in database(shell.folder)
    monkeypatch.delenv("FANOUT_ADDRESSES_KEY")
    assert "addresses.key_file" in shell("endpoints", "list").err
