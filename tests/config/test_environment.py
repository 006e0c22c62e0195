"""Settings from the environment: beside a file, in a file's values, and alone; and names that are no setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.cli.gateways import toml
from fanout.config import Settings, load
from fanout.config.environment import expanded
from fanout.core.policy import Policy, Retention
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError


@dataclass(frozen=True)
class Shape:
    """Every type of field that a transport's settings may have."""

    team_id: str = ""
    key: Secret | None = None
    mode: Literal["production", "sandbox"] = "production"
    port: int = 443
    share: float = 0.5
    lean: bool = False
    ca_file: Path | None = None
    hosts: tuple[str, ...] = ()
    either: str | tuple[str, ...] = ""
    extra: dict[str, str] = field(default_factory=dict)


def settings_type(name: str, place: str) -> type:
    if name not in ("apns", "fcm"):
        raise ConfigurationError(f"{place}: no transport called {name!r} is installed.")
    return Shape


APNS = "FANOUT_APPS__DEFAULT__TRANSPORTS__APNS"
ALONE = {"FANOUT_STORAGE": "sqlite:/data/fanout.db", f"{APNS}__TEAM_ID": "T"}


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """The configuration of these variables, in a folder without a file."""
    monkeypatch.chdir(tmp_path)

    def read(**environ: str) -> Settings:
        return load(None, settings_type, ALONE | environ)

    return read


@pytest.fixture
def beside(tmp_path: Path) -> Callable[..., Settings]:
    def read(text: str, **environ: str) -> Settings:
        file = tmp_path / "fanout.toml"
        file.write_text(text)
        return load(file, settings_type, environ)

    return read


FILE = """
storage = "sqlite:fanout.db"
[apps.default.transports.apns]
team_id = "T"
key = "K"
[apps.Shop.transports.apns-eu]
type = "apns"
[policy]
attempts = 3
lease = "1m"
"""


def shape(settings: Settings, app: str = "default", binding: str = "apns") -> Shape:
    found = settings.apps[app][binding].settings
    assert isinstance(found, Shape)
    return found


def refused(call: Callable[..., object], *arguments: Any, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        call(*arguments, **environ)
    said = str(raised.value)
    assert said.endswith((".", "?"))
    return said


# -- alone


def test_a_whole_configuration_without_a_file(alone: Callable[..., Settings], tmp_path: Path) -> None:
    settings = alone(
        **{
            f"{APNS}__KEY": "-----KEY-----\n",
            f"{APNS}__MODE": "sandbox",
            f"{APNS}__PORT": "8443",
            f"{APNS}__SHARE": "1",
            f"{APNS}__LEAN": "true",
            f"{APNS}__CA_FILE": "/etc/ca.pem",
            f"{APNS}__HOSTS": '["a", "b"]',
            f"{APNS}__EITHER": '["c"]',
            f"{APNS}__EXTRA": '{"Deep.Key": "v"}',
            "FANOUT_APPS__SHOP__TRANSPORTS__APNS_EU__TYPE": "apns",
            "FANOUT_APPS__SHOP__TRANSPORTS__APNS_EU__TEAM_ID": "12345",
            "FANOUT_POLICY__ATTEMPTS": "4",
            "FANOUT_POLICY__LEASE": "1m30s",
            "FANOUT_POLICY__BACKOFF_CAP": "60",
            "FANOUT_RETENTION__EVENTS": "2d",
            "FANOUT_BACKLOG__DELIVERIES": "1000",
            "FANOUT_TELEMETRY__TRACES": "0.25",
            "FANOUT_SERVICE__HOST_NAMES": '{"app.example.com": "default"}',
            "FANOUT_SERVICE__ORIGINS": '["https://a.example"]',
            "FANOUT_SERVICE__KEYS": '[{"id": "0123456789ab", "hash": "sha256:' + "0" * 64 + '", "app": "shop"}]',
            "FANOUT_SERVICE__LIMITS__HEADERS": "50",
        }
    )
    assert settings.storage == "sqlite:/data/fanout.db"
    assert (settings.origin, settings.folder) == ("", Path())
    assert shape(settings) == Shape(
        "T",
        Secret("-----KEY-----"),
        "sandbox",
        8443,
        1.0,
        True,
        Path("/etc/ca.pem"),
        ("a", "b"),
        ("c",),
        {"Deep.Key": "v"},
    )
    assert shape(settings, "shop", "apns_eu").team_id == "12345"  # a text is wanted, so it is one
    assert settings.policy == Policy(attempts=4, lease=90.0, backoff_cap=60.0)
    assert settings.retention == Retention(events=172_800.0)
    assert (settings.backlog.deliveries, settings.telemetry.traces) == (1000, 0.25)
    assert settings.service.host_names == {"app.example.com": "default"}
    assert settings.service.keys[0].app == "shop"
    assert settings.service.limits.headers == 50
    assert settings.again is not None
    assert settings.again() == settings


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("FANOUT_APPS", '{"default": {"transports": {"apns": {"team_id": "T"}}}}'),
        ("FANOUT_APPS__DEFAULT", '{"transports": {"apns": {"team_id": "T"}}}'),
        (APNS, '{"team_id": "T", "port": 8443, "key": "$K"}'),
        ("FANOUT_POLICY", '{"attempts": 10}'),
        ("FANOUT_SERVICE", '{"limits": {"headers": 100}}'),
    ],
)
def test_a_table_is_json_and_more_may_be_said_of_it(alone: Callable[..., Settings], variable: str, text: str) -> None:
    settings = alone(**{variable: text, f"{APNS}__MODE": "sandbox", "FANOUT_POLICY__LEASE": "1m"})
    assert (shape(settings).team_id, shape(settings).mode, settings.policy.lease) == ("T", "sandbox", 60.0)
    for bad in ("{", "[", "nonsense"):
        said = refused(alone, **{variable: bad})
        assert variable in said
        assert "JSON" in said


def test_without_file_and_variables_both_ways_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for environ in ({}, {"FANOUT_SERVICE_HOST": "10.0.0.1", "FANOUT_LOG_FORMAT": "json", "HOME": "/"}):
        with pytest.raises(ConfigurationError, match=r"create ./fanout\.toml.*FANOUT_STORAGE"):
            load(None, settings_type, environ)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (f"{APNS}__PORT", "many", ["apns.port must be a whole number"]),
        (f"{APNS}__PORT", "1.5", ["apns.port must be a whole number"]),
        (f"{APNS}__PORT", '"8443"', ["apns.port must be a whole number"]),
        (f"{APNS}__LEAN", "yes", ["apns.lean must be true or false"]),
        (f"{APNS}__LEAN", "1", ["apns.lean must be true or false"]),
        (f"{APNS}__MODE", "staging", ["apns.mode must be one of"]),
        (f"{APNS}__HOSTS", "a,b", ["apns.hosts must be an array"]),
        (f"{APNS}__PORTT", "1", ["apns.portt is no setting", "port"]),
        ("FANOUT_POLICY__ATEMPTS", "1", ["policy.atempts is no setting", "attempts"]),
        ("FANOUT_POLICY__ATTEMPTS__X", "1", ["policy.attempts"]),
        ("FANOUT_SERVICE__LIMIT__HEADERS", "1", ["service.limit", "limits"]),
        ("FANOUT_SERVICE__KEYS", "{}", ["service.keys must be an array"]),
        ("FANOUT_SERVICE__KEYS", "[1]", ["service.keys[0] must be a table"]),
        ("FANOUT_APPS__DEFAULT__TRANSPORT__APNS__PORT", "1", ["apps.default.transport is no setting", "transports"]),
    ],
)
def test_what_a_variable_says_is_held_to_the_same_types(
    alone: Callable[..., Settings], name: str, text: str, words: list[str]
) -> None:
    said = refused(alone, **{name: text})
    for word in words:
        assert word in said


# -- names that are no setting


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("FANOUT_STORGE", "FANOUT_STORAGE"),
        ("FANOUT_POLLICY__ATTEMPTS", ""),
        ("FANOUT_DEFAULT_APNS_KEI", "FANOUT_DEFAULT_APNS_KEY"),
        ("FANOUT_ADDRESSES_KEYS", "FANOUT_ADDRESSES_KEY"),
        ("FANOUT_SHOP_APNS_KEY", ""),
        ("FANOUT_CONFIGURATION", ""),
        ("FANOUT_SERVE_PORT", ""),
        ("FANOUT_PORT_", ""),
        ("FANOUT_PORTS", ""),
        ("FANOUT_", ""),
        ("FANOUT_WEB_SERVICE_PORT", ""),
        (f"{APNS}____X", ""),
        ("FANOUT_apps__default__transports__apns__port", ""),
        ("FANOUT_APPS__default__TRANSPORTS__APNS__PORT", ""),
    ],
)
def test_an_unknown_name_is_refused(
    alone: Callable[..., Settings], beside: Callable[..., Settings], name: str, near: str
) -> None:
    for read in (alone, lambda **environ: beside(FILE.replace('key = "K"\n', ""), **environ)):
        said = refused(read, **{name: "x"})
        assert name in said
        assert near in said


def test_what_kubernetes_and_docker_make_by_themselves_is_let_pass(alone: Callable[..., Settings]) -> None:
    made = {
        "FANOUT_SERVICE_HOST": "10.96.0.11",
        "FANOUT_SERVICE_PORT": "8080",
        "FANOUT_SERVICE_PORT_HTTP": "8080",
        "FANOUT_SERVICE_PORT_METRICS": "9464",
        "FANOUT_PORT": "tcp://10.96.0.11:8080",
        "FANOUT_PORT_8080_TCP": "tcp://10.96.0.11:8080",
        "FANOUT_PORT_8080_TCP_ADDR": "10.96.0.11",
        "FANOUT_PORT_8080_TCP_PORT": "8080",
        "FANOUT_PORT_8080_TCP_PROTO": "tcp",
        "FANOUT_PORT_53_UDP": "udp://10.96.0.11:53",
        "FANOUT_NAME": "/app/fanout",
        "FANOUT_ENV_PATH": "/usr/bin",
        # Of services called fanout-web and fanout-db: each has its address beside the rest.
        "FANOUT_WEB_SERVICE_HOST": "10.96.0.12",
        "FANOUT_WEB_SERVICE_PORT": "80",
        "FANOUT_WEB_PORT": "tcp://10.96.0.12:80",
        "FANOUT_WEB_PORT_80_TCP_ADDR": "10.96.0.12",
        "FANOUT_DB_SERVICE_HOST": "10.96.0.13",
        "FANOUT_DB_SERVICE_PORT_POSTGRES": "5432",
        "FANOUT_CONFIG": "",
        "FANOUT_LOG_FORMAT": "json",
    }
    assert alone(**made) == alone()


def test_settings_given_in_a_program_are_not_changed_by_the_environment() -> None:
    tables = {"storage": "memory:", "apps": {"default": {"transports": {"apns": {"team_id": "T$$"}}}}}
    environ = {f"{APNS}__TEAM_ID": "U", "FANOUT_STORAGE": "sqlite:x", "FANOUT_ANYTHING": "1"}
    settings = load(tables, settings_type, environ)
    assert (settings.storage, shape(settings).team_id) == ("memory:", "T$$")


# -- beside a file


def test_the_environment_has_the_last_word(beside: Callable[..., Settings], tmp_path: Path) -> None:
    settings = beside(
        FILE,
        **{
            f"{APNS}__TEAM_ID": "U",
            f"{APNS}__CA_FILE": "ca.pem",
            "FANOUT_APPS__SHOP__TRANSPORTS__APNS_EU__PORT": "8443",
            "FANOUT_APPS__SHOP__TRANSPORTS__FCM__TEAM_ID": "V",
            "FANOUT_POLICY__LEASE": "2m",
            "FANOUT_STORAGE": "memory:",
        },
    )
    assert (shape(settings).team_id, shape(settings).key, shape(settings).ca_file) == (
        "U",
        Secret("K"),
        tmp_path / "ca.pem",
    )
    assert shape(settings, "Shop", "apns-eu").port == 8443  # the file's own names, however they are written
    assert shape(settings, "Shop", "fcm").team_id == "V"
    assert (settings.policy.attempts, settings.policy.lease) == (3, 120.0)
    assert settings.storage == "memory:"


def test_a_name_that_would_be_two_keys_is_refused(beside: Callable[..., Settings]) -> None:
    two = FILE + '[apps.default.transports.apns_x]\ntype = "apns"\n[apps.default.transports.apns-x]\ntype = "apns"\n'
    said = refused(beside, two, **{f"{APNS}_X__PORT": "1"})
    assert "at once" in said


def test_a_reread_asks_file_and_environment_again(beside: Callable[..., Settings], tmp_path: Path) -> None:
    settings = beside(FILE, **{f"{APNS}__PORT": "8443"})
    (tmp_path / "fanout.toml").write_text(FILE.replace('"T"', '"U"'))
    assert settings.again is not None
    assert (shape(settings.again()).team_id, shape(settings.again()).port) == ("U", 8443)


# -- ${NAME}


def test_a_files_values_may_name_variables(beside: Callable[..., Settings]) -> None:
    text = """
storage = "postgresql://fanout:${DB_PASSWORD}@db/fanout"
[apps.default.transports.apns]
team_id = "${TEAM}"
port = "${PORT}"
lean = "${LEAN}"
hosts = ["${HOST}.example", "$$plain", "a$b"]
extra = { a = "${FANOUT_OWN}" }
key = "x$${TEAM}"
[policy]
attempts = "${ATTEMPTS}"
lease = "${LEASE}"
"""
    settings = beside(
        text,
        DB_PASSWORD="p$$${w}",
        TEAM="T",
        PORT="8443",
        LEAN="true",
        HOST="h",
        FANOUT_OWN="named, so it is no stray",
        ATTEMPTS="7",
        LEASE="90s",
    )
    assert settings.storage == "postgresql://fanout:p$$${w}@db/fanout"  # what a variable holds is taken as it is
    found = shape(settings)
    assert (found.team_id, found.port, found.lean) == ("T", 8443, True)
    assert found.hosts == ("h.example", "$plain", "a$b")
    assert found.extra == {"a": "named, so it is no stray"}
    assert found.key == Secret("x${TEAM}")
    assert (settings.policy.attempts, settings.policy.lease) == (7, 90.0)


@pytest.mark.parametrize("written", ["${MISSING}", "${}", "${NO NAME}", "${NAME:-x}", "${NAME", "${1}"])
def test_what_names_no_variable_is_refused(beside: Callable[..., Settings], written: str) -> None:
    said = refused(beside, FILE.replace('"T"', f'"{written}"'), NAME="x")
    assert "apps.default.transports.apns.team_id" in said


@given(st.text())
def test_a_text_with_its_dollars_doubled_is_itself(text: str) -> None:
    assert expanded({"a": [text.replace("$", "$$")]}, {}) == {"a": [text]}


def test_what_the_program_writes_it_reads_again(beside: Callable[..., Settings]) -> None:
    text = toml("memory:", {"apns": {"team_id": "${HOME} $x $$", "hosts": ["$"]}}, {})
    assert (shape(beside(text)).team_id, shape(beside(text)).hosts) == ("${HOME} $x $$", ("$",))


# -- secrets


def test_a_secret_by_value_by_file_and_by_systemd(alone: Callable[..., Settings], tmp_path: Path) -> None:
    (tmp_path / "key.p8").write_text("K\n")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    ways: list[dict[str, str]] = [
        {"FANOUT_DEFAULT_APNS_KEY": "K"},
        {"FANOUT_DEFAULT_APNS_KEY_FILE": "key.p8"},
        {"FANOUT_DEFAULT_APNS_KEY_FILE": str(tmp_path / "key.p8")},
        {f"{APNS}__KEY": "K"},
        {f"{APNS}__KEY_FILE": "key.p8"},
    ]
    for way in ways:
        assert shape(alone(**way)).key == Secret("K")
    (credentials / "fanout_default_apns_key").write_text("K\n")
    found = shape(alone(CREDENTIALS_DIRECTORY=str(credentials))).key
    assert found == Secret("K")
    assert found.path == str(credentials / "fanout_default_apns_key")  # looked at again when it is replaced
    for way in ways:
        said = refused(alone, CREDENTIALS_DIRECTORY=str(credentials), **way)
        assert "more than once" in said
        assert "credential fanout_default_apns_key" in said
    assert "more than once" in refused(alone, **(ways[0] | ways[1]))
    assert "more than once" in refused(alone, **(ways[0] | ways[3]))
    with pytest.raises(ConfigurationError, match=r"FANOUT_DEFAULT_APNS_KEY_FILE.*does not exist"):
        shape(alone(FANOUT_DEFAULT_APNS_KEY_FILE="absent")).key.reveal()  # only now: what never sends needs no file


def test_a_credential_that_is_no_setting_is_refused_and_others_are_not_ours(
    alone: Callable[..., Settings], tmp_path: Path
) -> None:
    (tmp_path / "somebody.elses").write_text("x")
    assert alone(CREDENTIALS_DIRECTORY=str(tmp_path)) == alone()
    assert alone(CREDENTIALS_DIRECTORY=str(tmp_path / "absent")) == alone()
    (tmp_path / "fanout_default_apns_kei").write_text("x")
    said = refused(alone, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert "credential fanout_default_apns_kei" in said
    assert "did you mean fanout_default_apns_key?" in said


def test_the_database_may_stand_in_a_file_or_a_credential(
    alone: Callable[..., Settings], beside: Callable[..., Settings], tmp_path: Path
) -> None:
    """Its URL may hold a password."""
    (tmp_path / "db").write_text("postgresql://u:p@h/d\n")
    (tmp_path / "fanout_storage").write_text("postgresql://c\n")
    rest = {f"{APNS}__TEAM_ID": "T"}

    def only(**environ: str) -> Settings:
        return load(None, settings_type, rest | environ)

    alone()  # in its folder
    assert only(FANOUT_STORAGE_FILE="db").storage == "postgresql://u:p@h/d"
    assert only(CREDENTIALS_DIRECTORY=str(tmp_path)).storage == "postgresql://c"
    assert "more than once" in refused(
        only, FANOUT_STORAGE="memory:", FANOUT_STORAGE_FILE="db", CREDENTIALS_DIRECTORY=str(tmp_path)
    )
    in_file = FILE.replace('storage = "sqlite:fanout.db"', 'storage_file = "db"')
    assert beside(in_file).storage == "postgresql://u:p@h/d"
    assert beside(in_file, FANOUT_STORAGE="memory:").storage == "memory:"
    assert beside(FILE, FANOUT_STORAGE_FILE="db").storage == "postgresql://u:p@h/d"
    assert "more than once" in refused(beside, FILE.replace("[apps", 'storage_file = "db"\n[apps', 1))


def test_secrets_of_other_tables(alone: Callable[..., Settings], tmp_path: Path) -> None:
    secret = "fus_0123456789ab_" + "x" * 43
    record = {"FANOUT_SERVICE__USER_KEYS": '[{"id": "0123456789ab"}]'}
    settings = alone(**record, FANOUT_SERVICE_0123456789AB_SECRET=secret, FANOUT_ADDRESSES_KEY="A")
    assert settings.service.user_keys[0].secret == Secret(secret)
    assert settings.addresses.key == Secret("A")
    (tmp_path / "fanout_addresses_key").write_text("B")
    (tmp_path / "fanout_service_0123456789ab_secret").write_text(secret)
    settings = alone(**record, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert settings.service.user_keys[0].secret == Secret(secret)
    assert settings.addresses.key == Secret("B")


def test_no_value_is_repeated(alone: Callable[..., Settings]) -> None:
    for name in ("FANOUT_DEFAULT_APNS_KEI", f"{APNS}__PORT", "FANOUT_POLICY", "FANOUT_SERVICE__KEYS", "FANOUT_STORAGE"):
        assert "hunter2" not in refused(alone, **{name: "hunter2"})
