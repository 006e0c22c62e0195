"""Configurations that work, and each way in which one can be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from fanout.config import BindingSettings, Settings, load
from fanout.core.policy import Policy, Retention
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError, UsageError


@dataclass(frozen=True)
class Shape:
    """Every type of field that a transport's settings may have."""

    team_id: str
    key: Secret
    environment: Literal["production", "sandbox"] = "production"
    port: int = 443
    share: float = 0.5
    lean: bool = False
    ca_file: Path | None = None
    hosts: tuple[str, ...] = ()
    password: Secret | None = None
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.port > 65535:
            raise UsageError(f"port is {self.port}: give one up to 65535.")


def settings_type(name: str, place: str) -> type:
    if name != "apns":
        raise ConfigurationError(f"{place}: no transport called {name!r} is installed.")
    return Shape


def read(text: str, folder: Path, **environ: str) -> Settings:
    file = folder / "fanout.toml"
    file.write_text(text)
    return load(file, settings_type, environ)


def binding(lines: str = 'team_id = "T"\nkey = "K"') -> str:
    return f'storage = "sqlite:fanout.db"\n[apps.default.transports.apns]\n{lines}\n'


def refusal(text: str, folder: Path, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        read(text, folder, **environ)
    said = str(raised.value)
    assert said.endswith((".", "?"))
    assert "\n" not in said
    return said


def shape(settings: Settings) -> Shape:
    (_, _, found) = next(settings.bindings())
    assert isinstance(found.settings, Shape)
    return found.settings


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "key.p8").write_text("-----KEY-----\n")
    settings = read(
        binding(
            'team_id = "T"\nkey_file = "key.p8"\nenvironment = "sandbox"\nport = 8443\nshare = 1\nlean = true\n'
            'ca_file = "ca.pem"\nhosts = ["a", "b"]\nextra = { a = "b" }\n'
            '[apps.shop.transports.apns_eu]\ntype = "apns"\nteam_id = "U"\nkey = "L"\n'
            '[policy]\nattempts = 3\nlease = "1m30s"\nbackoff_cap = 60\n[retention]\nevents = "2d"'
        ),
        tmp_path,
    )
    assert settings.storage == f"sqlite:{tmp_path / 'fanout.db'}"
    assert settings.policy == Policy(attempts=3, lease=90.0, backoff_cap=60.0)
    assert settings.retention == Retention(events=172_800.0)
    assert settings.apps["shop"]["apns_eu"] == BindingSettings("apns", Shape("U", Secret("L")))
    assert shape(settings) == Shape(
        "T",
        Secret("-----KEY-----"),
        "sandbox",
        8443,
        1.0,
        True,
        tmp_path / "ca.pem",
        ("a", "b"),
        extra={"a": "b"},
    )


def test_a_mapping_has_the_same_shape() -> None:
    tables: dict[str, Any] = {
        "storage": "memory:",
        "apps": {"default": {"transports": {"apns": {"team_id": "T", "key": Secret("K"), "hosts": ("a",)}}}},
    }
    settings = load(tables, settings_type, {})
    assert settings.storage == "memory:"
    assert shape(settings) == Shape("T", Secret("K"), hosts=("a",))


def test_settings_already_made_are_taken_as_they_are() -> None:
    made = Shape("T", Secret("K"))
    settings = load(
        {"storage": "memory:", "apps": {"default": {"transports": {"apns": made}}}},
        settings_type,
        {},
    )
    assert shape(settings) is made


def test_a_secret_from_the_environment(tmp_path: Path) -> None:
    assert shape(read(binding('team_id = "T"'), tmp_path, FANOUT_DEFAULT_APNS_KEY="K\n")).key == Secret("K")


def test_where_the_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"create ./fanout\.toml"):
        load(None, settings_type, {})
    (tmp_path / "fanout.toml").write_text(binding('team_id = "here"\nkey = "K"'))
    assert shape(load(None, settings_type, {})).team_id == "here"
    (tmp_path / "other.toml").write_text(binding('team_id = "named"\nkey = "K"'))
    assert shape(load(None, settings_type, {"FANOUT_CONFIG": "other.toml"})).team_id == "named"
    assert shape(load(tmp_path / "fanout.toml", settings_type, {"FANOUT_CONFIG": "other.toml"})).team_id == "here"


def test_urls_and_places_in_the_current_folder_are_left_as_they_are(tmp_path: Path) -> None:
    for storage in ("memory:", "postgresql://u:p@h/db"):
        assert read(binding().replace("sqlite:fanout.db", storage), tmp_path).storage == storage


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    settings = read(
        binding('team_id = "T"\nkey = "hush"').replace("sqlite:fanout.db", "postgresql://u:hush@h/db"), tmp_path
    )
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (binding('teem_id = "T"\nkey = "K"'), ["apps.default.transports.apns.teem_id", "team_id"]),
        (binding('zzz = 1\nteam_id = "T"'), ["apps.default.transports.apns.zzz", "key_file", "port"]),
        ("[aps]\n", ["aps", "apps"]),
        ("[apps.default.transport.apns]\n", ["storage"]),
        ('storage = "memory:"\n[apps.default.transport.apns]\n', ["apps.default.transport", "transports"]),
        ('storage = "memory:"\n', ["[apps.default.transports.NAME]"]),
        ('storage = "memory:"\napps = 3\n', ["apps must be a table"]),
        ('storage = "memory:"\n[apps.default.transports]\napns = 3\n', ["apps.default.transports.apns", "table"]),
        ('storage = "memory:"\n[apps."a b".transports.apns]\n', ["apps.a b", "letters"]),
        ('storage = "memory:"\n[apps.default.transports.x]\ntype = 3\n', ["apps.default.transports.x.type"]),
        ('storage = "memory:"\n[apps.default.transports.apnz]\n', ["apps.default.transports.apnz", "'apnz'"]),
        ('storage = "fanout.db"\n', ["storage names no scheme", "sqlite:fanout.db"]),
        ("storage = 3\n", ["storage must be a text"]),
        (binding('key = "K"'), ["apns.team_id is missing"]),
        (binding('team_id = "T"'), ["apns.key is missing", "key_file", "FANOUT_DEFAULT_APNS_KEY"]),
        (binding('team_id = 5\nkey = "K"'), ["apns.team_id must be a text in quotes", "it is 5"]),
        (binding('team_id = "T"\nkey = 5'), ["apns.key must be a text"]),
        (binding('team_id = "T"\nkey = " "'), ["apns.key is empty"]),
        (binding('team_id = "T"\nkey = "K"\nport = "443"'), ["apns.port must be a whole number"]),
        (binding('team_id = "T"\nkey = "K"\nport = true'), ["apns.port must be a whole number", "it is true"]),
        (binding('team_id = "T"\nkey = "K"\nport = 4.5'), ["apns.port must be a whole number", "4.5"]),
        (binding('team_id = "T"\nkey = "K"\nport = 70000'), ["apps.default.transports.apns", "port is 70000"]),
        (binding('team_id = "T"\nkey = "K"\nlean = 1'), ["apns.lean must be true or false"]),
        (binding('team_id = "T"\nkey = "K"\nshare = nan'), ["apns.share must be a number"]),
        (binding('team_id = "T"\nkey = "K"\nhosts = "a"'), ["apns.hosts must be an array"]),
        (binding('team_id = "T"\nkey = "K"\nca_file = 1'), ["apns.ca_file must be a path"]),
        (binding('team_id = "T"\nkey = "K"\nenvironment = "test"'), ["apns.environment", "'sandbox'"]),
        (binding('team_id = "T"\nkey = "K"\nkey_file = "x"'), ["apns.key is given more than once", "key_file"]),
        (binding() + "[policy]\nattempt = 3\n", ["policy.attempt", "attempts"]),
        (binding() + '[policy]\nlease = "soon"\n', ["policy.lease", "'soon'", "1h30m"]),
        (binding() + '[policy]\nattempts = "3s"\n', ["policy.attempts must be a whole number"]),
        (binding() + "[policy]\nattempts = 0\n", ["policy.attempts is 0"]),
        (binding() + "[policy]\nlease = -1\n", ["policy.lease is -1"]),
        (binding() + "[retention]\nevents = -1\n", ["retention.events is -1"]),
        ("storage = \n", ["not valid TOML", "line 1"]),
        ("a = " + "[" * 5000, ["fanout.toml"]),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_place(text: str, words: list[str], tmp_path: Path) -> None:
    said = refusal(text, tmp_path)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (binding('team_id = "T"\nkey_file = "absent.p8"'), ["apns.key_file", "absent.p8", "does not exist"]),
        (binding('team_id = "T"\nkey_file = "."'), ["apns.key_file", "cannot be read"]),
        (binding('team_id = "T"\nkey_file = "binary"'), ["apns.key_file", "is not text"]),
        (binding('team_id = "T"\nkey_file = "empty"'), ["apns.key_file", "is empty"]),
    ],
)
def test_a_secret_that_cannot_be_read_is_told_to_whoever_needs_it(text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "fanout.toml").write_text(text)
    settings = load(tmp_path / "fanout.toml", settings_type, {})
    with pytest.raises(ConfigurationError) as caught:
        shape(settings).key.reveal()
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_secret_under_the_wrong_key_is_not_repeated(tmp_path: Path) -> None:
    said = refusal(binding('team_id = "T"\nkey = "K"\nport = "hush-hush"'), tmp_path)
    assert "hush" not in said


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="There is no configuration file"):
        load(tmp_path / "absent.toml", settings_type, {})
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path, settings_type, {})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="UTF-8"):
        load(tmp_path / "binary.toml", settings_type, {})


def test_the_environment_is_held_to_the_same_care(tmp_path: Path) -> None:
    said = refusal(binding(), tmp_path, FANOUT_DEFAULT_APNS_KEY="K")
    assert "more than once" in said
    said = refusal(binding(), tmp_path, FANOUT_DEFAULT_APNS_KEI="K")
    assert "FANOUT_DEFAULT_APNS_KEI" in said
    assert "FANOUT_DEFAULT_APNS_KEY" in said
    said = refusal(binding('team_id = "T"'), tmp_path, FANOUT_DEFAULT_APNS_KEY=" ")
    assert "is empty" in said
    two = binding() + '[apps.default_apns.transports.x]\ntype = "apns"\nteam_id = "T"\n'
    two += '[apps.default.transports.apns_x]\ntype = "apns"\nteam_id = "T"\n'
    said = refusal(two, tmp_path, FANOUT_DEFAULT_APNS_X_KEY="K")
    assert "at once" in said
