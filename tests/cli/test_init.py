"""`fanout init`: what it writes is a configuration that works, nothing is overwritten, and no secret can be read by
others."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fanout.cli.gateways import toml_value
from fanout.registry import Registry
from fanout.service.auth import user_token

KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+hRANCAAR6WTB/\n-----END PRIVATE KEY-----\n"
APNS = ("key_file=AuthKey.p8", "key_id=ABCDE12345", "team_id=TEAM123456", "topic=com.example.app")


@pytest.fixture
def bare(shell: Any) -> Any:
    """A folder without a configuration."""
    shell.config.unlink()
    return shell


def answer(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}


def test_with_defaults_alone_there_is_a_configuration_that_works(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch)  # nothing is asked
    out = bare.ok("init", "--yes", "--no-push")
    assert modes(bare.folder / "secrets") == {"api-key": 0o600, "user-key": 0o600, "webpush-vapid_private_key": 0o600}
    text = bare.config.read_text()
    for secret in (bare.folder / "secrets").iterdir():
        assert secret.read_text().strip() not in text + out
        assert str(secret) in out
    doctor = bare("doctor", "--json")
    assert doctor.code == 0
    assert not [line for line in doctor.lines if line["problem"] or line["warning"]]
    assert bare("work", "--drain").code == 0
    key = tomllib.loads(text)["service"]["user_keys"][0]
    assert user_token((bare.folder / key["secret_file"]).read_text().strip(), "default", "alice")
    assert text.count("\n#") > 10
    for command in ("doctor", "serve", "work", "endpoints add", "send --to user:alice"):
        assert command in out.split("Next:")[1]


def test_answers_come_from_standard_input(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare.folder / "AuthKey.p8").write_text(KEY)
    answer(
        monkeypatch,
        "postgresql://fanout:hush@127.0.0.1:1/fanout",
        "apns, webpush",
        *["AuthKey.p8", "short", "TEAM123456", "com.example.app", "sandbox"],
        *["", "ABCDE12345", "", "", ""],  # the key's id was wrong, and the others are as they were
        "https://example.com/contact",
    )
    result = bare("init", "--no-push")
    assert result.code == 1, result.err  # nothing answers there, which is what the look at it says
    assert "key_id is 'short'" in result.err
    written = tomllib.loads(bare.config.read_text())
    assert "hush" not in bare.config.read_text() + result.out
    assert (bare.folder / written["storage_file"]).read_text().strip() == "postgresql://fanout:hush@127.0.0.1:1/fanout"
    assert modes(bare.folder / "secrets")["storage"] == 0o600
    assert written["apps"]["default"]["transports"]["apns"] == {
        "key_file": "AuthKey.p8",
        "key_id": "ABCDE12345",
        "team_id": "TEAM123456",
        "topic": "com.example.app",
        "environment": "sandbox",
    }
    assert written["apps"]["default"]["transports"]["webpush"]["vapid_subject"] == "https://example.com/contact"


def test_input_that_ends_leaves_nothing(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(bare.folder.iterdir())
    answer(monkeypatch, "sqlite:fanout.db")
    assert bare("init").code == 1
    assert sorted(bare.folder.iterdir()) == before


def test_nothing_is_overwritten_without_being_told_to(bare: Any) -> None:
    bare.ok("init", "--yes", "--no-push")
    first = {path: path.read_text() for path in (bare.config, *(bare.folder / "secrets").iterdir())}
    refused = bare("init", "--yes", "--no-push")
    assert refused.code == 2
    assert "--force" in refused.err
    bare.config.unlink()
    refused = bare("init", "--yes", "--no-push")
    assert refused.code == 2
    assert "secrets" in refused.err
    assert not bare.config.exists()
    bare.config.write_text(first[bare.config])
    assert {path: path.read_text() for path in first} == first

    forced = bare("init", "--yes", "--no-push", "--force")
    assert forced.code == 0, forced.err
    for path, text in first.items():
        assert path.read_text() != text
        kept = path.with_name(f"{path.name}.1")
        assert kept.read_text() == text
        assert str(kept) in forced.err
    assert modes(bare.folder / "secrets")["api-key.1"] == 0o600
    assert bare("doctor").code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--transport", "doves"], ["'doves'", "webpush"]),
        (["--transport", "apns"], ["key is missing"]),
        (["--transport", "apns", "--set", "apns.key_idd=x"], ["key_idd", "did you mean key_id"]),
        (["--transport", "webpush", "--set", "apns.key_id=x"], ["apns", "none of those chosen"]),
        (["--transport", "webpush", "--set", "webpush.streams=many"], ["webpush.streams", "whole number"]),
        (["--set", "vapid_subject"], ["PLATFORM.KEY=VALUE"]),
        (["--storage", "memory:"], ["memory:", "sqlite:fanout.db"]),
        (["--storage", "fanout.db"], ["storage names no scheme"]),
        (["--storage", "dovecote:x"], ["dovecote"]),
        (["--device", "apns=00"], ["--device", "webpush"]),
        (["--device", "webpush={"], ["JSON"]),
        (["--config", "absent/folder/fanout.toml"], []),
    ],
)
def test_what_cannot_be_is_a_sentence_and_leaves_nothing(bare: Any, words: list[str], told: list[str]) -> None:
    before = sorted(bare.folder.iterdir())
    result = bare("init", "--yes", "--no-push", *words)
    if told:
        assert (result.code, result.out) == (2, "")
        assert all(word in result.err for word in told), result.err
        assert sorted(bare.folder.iterdir()) == before
    else:
        assert result.code == 0, result.err
        assert (bare.folder / words[1]).exists()
        assert f"--config {bare.folder / words[1]}" in result.out


def test_a_folder_that_cannot_be_written_to_is_left_as_it_was(bare: Any) -> None:
    (bare.folder / "secrets").write_text("a file")
    result = bare("init", "--yes", "--no-push")
    assert result.code == 2
    assert "cannot be" in result.err
    assert not bare.config.exists()
    (bare.folder / "secrets").unlink()
    (bare.folder / "secrets").mkdir()
    (bare.folder / "secrets" / "user-key").mkdir()  # it is in the way, and --force moves it
    assert bare("init", "--yes", "--no-push").code == 2
    assert not bare.config.exists()
    assert bare("init", "--yes", "--no-push", "--force").code == 0


def test_another_app_and_a_strangers_transport_and_a_device(bare: Any) -> None:
    result = bare(
        *["init", "--yes", "--app", "my shop".replace(" ", "-"), "--transport", "pigeon", "--set", "pigeon.limit=400"],
        *["--device", "pigeon=alice-phone"],
    )
    assert result.code == 0, result.err
    assert "pigeon: accepted by the gateway" in result.out
    assert "--app my-shop" in result.out
    written = tomllib.loads(bare.config.read_text())
    assert written["apps"]["my-shop"]["transports"]["pigeon"] == {"limit": 400}
    assert {each["app"] for each in written["service"]["keys"]} == {"my-shop"}
    assert bare("doctor").code == 0
    refused = bare("init", "--yes", "--force", "--transport", "pigeon", "--device", "dead-phone")
    assert refused.code == 1
    assert "gone" in refused.out
    assert bare.config.exists()


def test_what_is_asked_is_a_setting() -> None:
    """A question names a key of its transport's table, and everything that is asked can be answered."""
    from fanout.config import check_setting

    registry = Registry()
    for name in ("apns", "fcm", "wns", "webpush"):
        plugin = registry.transport(name)
        assert plugin.questions
        for question in plugin.questions:
            check_setting(plugin.settings, name, question.setting, question.default or "x")
            assert len(question.ask) < 110


def test_tables_and_arrays_are_written_as_toml() -> None:
    value = {"hosts": ["a.lan", {"host": "b.lan:5443", "private": True, "ca_file": None}], "n": 1}
    assert tomllib.loads(f"v = {toml_value(value)}")["v"] == {
        "hosts": ["a.lan", {"host": "b.lan:5443", "private": True}],
        "n": 1,
    }


def test_a_secret_of_the_command_line_goes_into_a_file(bare: Any) -> None:
    bare.ok(
        *["init", "--yes", "--no-push", "--transport", "wns", "--set", "wns.tenant_id=example.com"],
        *["--set", "wns.client_id=01234567-89ab-cdef-0123-456789abcdef", "--set", "wns.client_secret=hush$hush"],
        *["--set", 'wns.allowed_hosts=["notify.windows.com", {"host": "wns.lan:5443", "private": true}]'],
    )
    assert "hush" not in bare.config.read_text()
    assert (bare.folder / "secrets" / "wns-client_secret").read_text() == "hush$hush\n"
    wns = tomllib.loads(bare.config.read_text())["apps"]["default"]["transports"]["wns"]
    assert wns["allowed_hosts"][1] == {"host": "wns.lan:5443", "private": True}


# -- as a user does it


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, words: list[str], folder: Path) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(sys.executable, [sys.executable, "-m", "fanout", *words], {**os.environ, "TERM": "dumb"})
        self.said = ""

    def until(self, words: str) -> None:
        while words not in self.said:
            assert select.select([self._fd], [], [], 120)[0], self.said
            try:
                read = os.read(self._fd, 4096).decode(errors="replace")
            except OSError:
                read = ""
            assert read, self.said
            self.said += read

    def answer(self, question: str, text: str) -> None:
        self.until(question)
        os.write(self._fd, f"{text}\n".encode())
        self.said = ""

    def end(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.long("the same by options and standard input, without a push")
@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
def test_a_user_on_a_terminal_has_a_push_and_a_service(tmp_path: Path) -> None:
    terminal = Terminal(["init"], tmp_path)
    terminal.answer("Where is the queue?", "")
    terminal.answer("Which platforms", "webpush")
    terminal.answer("How push services reach you", "mailto:ops@example.com")
    terminal.answer("first test push", "")
    terminal.until("accepted by a simulated gateway")
    terminal.until("Next:")
    terminal.until("--title Hello")
    assert terminal.end() == 0
    assert not (tmp_path / "fanout.db").exists()
    for words, ready in ((["work"], "Working on"), (["serve", "--port", "0"], r"Serving .* at http://")):
        child = subprocess.Popen(
            [sys.executable, "-m", "fanout", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        try:
            assert child.stderr is not None
            line = child.stderr.readline()
            assert re.match(ready, line), line
            child.send_signal(signal.SIGTERM)
            assert child.wait(60) == 0
        finally:
            child.kill()
            child.communicate()
