"""What is wrong is one sentence that names the key or value and the remedy; exit code 2, no traceback, nothing
stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

APNS = 'storage = "sqlite:fanout.db"\n[apps.default.transports.apns]\nteam_id = "TEAMID0000"\nkey_id = "KEYID00000"\ntopic = "com.example.app"\n'


def pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


def refused(shell: Any, *words: str, code: int = 2) -> str:
    result = shell(*words)
    assert result.code == code, (result.out, result.err)
    assert result.out == ""
    assert "Traceback" not in result.err
    (sentence,) = result.err.strip().splitlines()
    assert sentence.startswith("fanout: ")
    assert sentence.endswith((".", "?"))
    return sentence


def test_configuration(shell: Any) -> None:
    send = ("send", "--to", "user:alice", "--title", "T")
    shell.config.write_text(APNS.replace("team_id", "teem_id"))
    said = refused(shell, *send)
    assert "apps.default.transports.apns.teem_id" in said
    assert "did you mean team_id" in said

    shell.config.write_text(APNS + 'key_file = "AuthKey.p8"\n')
    said = refused(shell, *send, "--wait")  # without, nothing is sent and no key is needed
    assert "apps.default.transports.apns.key_file" in said
    assert "AuthKey.p8" in said

    (shell.folder / "AuthKey.p8").write_text("-----BEGIN PRIVATE KEY-----\nhush\n-----END PRIVATE KEY-----\n")
    said = refused(shell, *send, "--wait")
    assert "apps.default.transports.apns" in said
    assert "AuthKey.p8" in said
    assert ".p8 file" in said
    assert "hush" not in said

    shell.config.write_text(APNS.replace("transports.apns", "transports.apnz"))
    said = refused(shell, *send)
    assert "apps.default.transports.apnz" in said
    assert "apns" in said

    shell.config.write_text("storage = sqlite\n")
    assert "line 1" in refused(shell, *send)
    shell.config.write_text(APNS.replace("sqlite:", "floppy:"))
    (shell.folder / "AuthKey.p8").write_text(pem())
    shell.config.write_text(APNS.replace("sqlite:", "floppy:") + 'key_file = "AuthKey.p8"\n')
    said = refused(shell, *send)
    assert "'floppy'" in said
    assert "sqlite" in said
    shell.config.unlink()
    assert "--config" in refused(shell, *send)
    assert "absent.toml" in refused(shell, *send, "--config", "absent.toml")
    assert not list(shell.folder.glob("fanout.db*"))


def test_an_address_that_apple_never_gave(shell: Any) -> None:
    (shell.folder / "AuthKey.p8").write_text(pem())
    shell.config.write_text(APNS + 'key_file = "AuthKey.p8"\n')
    said = refused(shell, "endpoints", "add", "--user", "alice", "--transport", "apns", "not-a-device-token")
    assert "hex" in said
    assert "not-a-device-token" not in said
    assert shell("endpoints", "list", "--state", "any").out == ""
    said = refused(shell, "send", "--to", "user:alice", "--body", "x" * 5000)
    assert "4096" in said


def test_a_database_of_one_process(shell: Any) -> None:
    shell.config.write_text(shell.config.read_text().replace("sqlite:fanout.db", "memory:"))
    for words in (
        ("send", "--to", "user:a"),
        ("status", "x"),
        ("cancel", "x"),
        ("work",),
        ("work", "--processes", "2"),
        ("endpoints", "list"),
    ):
        said = refused(shell, *words)
        assert "one process only" in said
        assert "sqlite:fanout.db" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--to", "user:"], ["user"]),
        (["--to", ""], ["user:NAME, topic:NAME, endpoint:ID or all"]),
        (["--to", "alice"], ["'alice'", "user:NAME"]),
        (["--to", "endpoint:x"], ["'endpoint:x'"]),
        (["--to", "user:alice", "--ttl", "-1"], ["--ttl", "'-1'", "1h30m"]),
        (["--to", "user:alice", "--ttl", "soon"], ["--ttl", "'soon'"]),
        (["--to", "user:alice", "--ttl", "800d"], ["ttl", "31622400"]),
        (["--to", "user:alice", "--at", "noon"], ["--at", "'noon'", "+1h30m"]),
        (["--to", "user:alice", "--at", "2090-01-01"], ["at", "year"]),
        (["--to", "user:alice", "--lane", "fast"], ["'fast'", "urgent, normal, bulk"]),
        (["--to", "user:alice", "--data", "x"], ["--data", "'x'", "order=17"]),
        (["--to", "user:alice", "--data", "x:={"], ["--data x:=", "JSON"]),
        (["--to", "user:alice", "--collapse-key", ""], ["collapse_key", "256"]),
        (["--to", "user:alice", "--idempotency-key", ""], ["idempotency key", "255"]),
        (["--to", "user:alice", "--app", "shop"], ["'shop'", "default"]),
        (["--to", "user:alice", "--body", "x" * 600], ["bytes", "500", "Shorten"]),
    ],
)
def test_send(shell: Any, words: list[str], told: list[str]) -> None:
    shell.register(("alice", "phone"))
    said = refused(shell, "send", *words)
    for word in told:
        assert word in said
    import asyncio

    import fanout

    async def stored() -> int:
        async with fanout.open(shell.config, role="submit") as engine:
            return sum((await engine.storage.outstanding()).values())

    assert asyncio.run(stored()) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["add", "--user", "alice", "--transport", "pigeon", "###"], ["address"]),
        (["add", "--user", "alice", "--transport", "pigeon", "{broken"], ["ADDRESS", "JSON"]),
        (["add", "--user", "", "--transport", "pigeon", "phone"], ["user"]),
        (["add", "--user", "alice", "--transport", "dove", "phone"], ["'dove'", "pigeon"]),
        (["add", "--user", "alice", "--transport", "pigeon", "--app", "shop", "phone"], ["'shop'"]),
        (["list", "--state", "asleep"], ["--state", "'asleep'", "gone"]),
        (["list", "--app", "shop"], ["'shop'", "default"]),
        (["remove", "1", "--app", "shop"], ["'shop'", "default"]),
        (["show", "1", "--app", "shop"], ["'shop'", "default"]),
    ],
)
def test_endpoints(shell: Any, words: list[str], told: list[str]) -> None:
    said = refused(shell, "endpoints", *words)
    for word in told:
        assert word in said
    assert shell("endpoints", "list", "--state", "any").out == ""


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        ["send"],
        ["send", "--to", "all", "--colour", "red"],
        ["cancel"],
        ["work", "--processes", "0"],
        ["work", "--processes", "many"],
        ["endpoints", "show", "x"],
        ["endpoints", "list", "--limit", "-1"],
        ["demo", "--devices", "0"],
        ["demo", "--browser", "--port", "-1"],
        ["demo", "--browser=yes"],
        ["keys"],
        ["keys", "vapid", "more"],
        ["doctor", "--fix"],
    ],
)
def test_usage(shell: Any, words: list[str]) -> None:
    result = shell(*words)
    assert result.code == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    assert result.err


@pytest.mark.parametrize("damage", ["foreign", "truncated", "folder"])
def test_a_database_that_cannot_be_used(shell: Any, damage: str) -> None:
    database: Path = shell.folder / "fanout.db"
    shell.register(("alice", "phone"))
    if damage == "foreign":
        for file in shell.folder.glob("fanout.db*"):
            file.unlink()
        database.write_bytes(b"\x89PNG" + bytes(range(256)) * 64)
    elif damage == "truncated":
        database.write_bytes(database.read_bytes()[:5000])
    else:
        for file in shell.folder.glob("fanout.db*"):
            file.unlink()
        database.mkdir()
    for words in (("send", "--to", "user:alice", "--title", "T"), ("work", "--drain"), ("status", "x")):
        said = refused(shell, *words, code=1)
        assert "fanout.db" in said


def test_a_second_app_and_a_mistaken_folder_of_the_demo(shell: Any) -> None:
    for words in ([], ["--browser"]):
        for folder in (str(shell.folder), str(shell.config), str(shell.config / "below")):
            said = refused(shell, "demo", *words, "--folder", folder)
            assert "--folder" in said
    assert (shell.folder / "fanout.toml").exists()
    assert not (shell.folder / "vapid.pem").exists()


def test_every_command_and_flag_has_its_help(shell: Any) -> None:
    from typer.main import get_command

    from fanout.cli.commands import app

    def walk(command: Any, words: list[str]) -> None:
        shown = shell.ok(*words, "--help")
        assert command.help.splitlines()[0].rstrip(".")[:40] in " ".join(shown.split())
        for parameter in command.params:
            assert parameter.hidden or parameter.help, f"{words} has an argument {parameter.name} without help"
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, [*words, name])

    walk(get_command(app), [])
