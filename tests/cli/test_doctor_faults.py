"""`doctor` lists all faults of a file at once, each with its line, and what each plugin lacks; a worker logs the same
beside its work."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fanout.cli.checkup import look_around
from fanout.cli.doctor import examine
from fanout.cli.findings import Finding
from fanout.registry import Registry

MANY = """\
storage = "fanout.db"
storrage = "x"

[policy]
attempts = 0
attempt = 3
lease = "soon"

[backlog]
wait = -1

[apps.default.transports.apns]
key_file = "absent.p8"
key_idd = "ABCDEFGHIJ"
team_id = "short"
topic = "com.example.app"
streams = 0

[apps.default.transports.apns-old]
type = "apns"
cert_file = "broken.pem"
topic = "not a topic"

[apps.default.transports.doves]
type = "dove"

[apps.default.transports.fcm]
service_account_file = "broken.json"
rate_per_minute = "many"
ca_file = "broken.pem"

[apps.default.transports.fcm-eu]
type = "fcm"
auth = "application_default"
credentials_file = "broken.json"

[apps.default.transports.webpush]
vapid_private_key_file = "broken.pem"
vapid_subject = "me"

[apps.default.transports.wns]
client_id = "x"

[addresses]
key_file = "absent.key"

[service]
orgins = []
origins = ["http://example.com/"]
trusted_proxies = ["10.0.0.1/8", "nonsense"]

[[service.keys]]
id = "0123456789ab"
hash = "sha256:plain"
app = "default"
role = "king"

[[service.user_keys]]
id = "short"
secret_file = "absent.key"

[service.limits]
depth = 1000
headers = 0
"""

EXPECTED = [
    (1, "storage names no scheme"),
    (2, "storrage is no setting: did you mean storage"),
    (5, "policy.attempts is 0"),
    (6, "policy.attempt is no setting: did you mean attempts"),
    (7, "policy.lease"),
    (10, "backlog.wait is -1"),
    (13, "apns.key_file: the file"),
    (14, "apns.key_idd is no setting: did you mean key_id"),
    (15, "team_id is 'short'"),
    (12, "key_id is ''"),
    (17, "streams is 0"),
    (21, "cert_file"),
    (22, "topic is 'not a topic'"),
    (24, "no transport called 'dove'"),
    (28, "service_account"),
    (29, "fcm.rate_per_minute must be a whole number"),
    (30, "fcm.ca_file: the file"),
    (32, "project_id is missing"),
    (35, "is of type unknown"),
    (38, "vapid_private_key"),
    (39, "vapid_subject is 'me'"),
    (42, "client_id is 'x'"),
    (41, "wns.client_secret is missing"),
    (41, "tenant_id is ''"),
    (45, "addresses.key_file"),
    (48, "service.orgins is no setting: did you mean origins"),
    (49, "origins: 'http://example.com/'"),
    (50, "'10.0.0.1/8'"),
    (50, "'nonsense'"),
    (54, "service.keys[0].hash"),
    (56, "service.keys[0].role"),
    (59, "service.user_keys[0].id"),
    (60, "service.user_keys[0].secret_file"),
    (63, "service.limits.depth is 1000"),
    (64, "service.limits.headers is 0"),
]


def test_every_fault_of_a_file_is_listed_at_once_with_its_line(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.config.write_text(MANY)
    (shell.folder / "broken.pem").write_text("-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5\n-----END PRIVATE KEY-----\n")
    (shell.folder / "broken.json").write_text("{}")
    monkeypatch.setenv("FANOUT_STORGE", "x")
    monkeypatch.setenv("FANOUT_DEFAULT_APNS_KEYS", "x")
    result = shell("doctor", "--json")
    assert result.code == 2
    found = [(line["line"], line["problem"]) for line in result.lines if line["problem"]]
    for line, words in EXPECTED:
        assert [at for at, said in found if words in str(said)][:1] == [line], (line, words, found)
    assert all(len([1 for _, other in found if other == said]) == 1 for _, said in found)
    environment = [str(line["problem"]) for line in result.lines if line["kind"] == "environment"]
    assert any("FANOUT_STORGE" in said for said in environment)
    assert any("FANOUT_DEFAULT_APNS_KEYS" in said for said in environment)
    plain = shell("doctor").out
    assert "default/apns  line 13" in plain
    for _, words in EXPECTED:
        assert words in plain
    # What nothing is wrong with is looked at all the same; and the first fault is what every other command says.
    assert "storrage is no setting" in shell("work").err


def test_what_is_no_toml_is_told_with_its_line(shell: Any) -> None:
    shell.config.write_text('storage = "sqlite:a.db"\n[apps.default\n')
    (wrong,) = [line for line in shell("doctor", "--json").lines if line["problem"]]
    assert wrong["line"] == 2


def test_a_variable_that_is_not_set_and_one_that_goes_nowhere_are_listed_too(
    shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.config.write_text('storage = "${NOT_SET_A}"\n[apps.default.transports.pigeon]\nlimit = "${NOT_SET_B}"\n')
    monkeypatch.setenv("FANOUT_POLICY", "{")
    found = "\n".join(str(line["problem"]) for line in shell("doctor", "--json").lines)
    assert "NOT_SET_A" in found
    assert "NOT_SET_B" in found
    assert "FANOUT_POLICY" in found


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("postgresql", "asyncpg", "postgres"), ("sqlite", "apsw", "")],
)
def test_what_a_plugin_lacks_is_said(
    shell: Any, monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    for loaded in [each for each in sys.modules if each.split(".")[0] == module or each.startswith("fanout.storage.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    result = shell("doctor", "--json")
    found = {(line["kind"], line["name"]): line for line in result.lines}
    plugin = found["storage plugin", name]
    assert f"{name}: {module} is not installed" in plugin["warning"]
    assert extra in plugin["warning"]
    # One that is not used harms nothing; the one that is used is wrong.
    assert result.code == (0 if name == "postgresql" else 2)


@pytest.mark.anyio
async def test_a_worker_logs_each_fault_once_and_stands_still_for_none(
    shell: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the thread waits for (a database that does not answer, say) keeps neither the loop nor the process."""
    monkeypatch.setattr("fanout.cli.checkup._AFTER", 0.0)
    shell.config.write_text(shell.config.read_text() + '[apps.default.transports.doves]\ntype = "dove"\n')
    os.chmod(shell.config, 0o644)
    with caplog.at_level(logging.INFO, "fanout.doctor"):
        await look_around(shell.config)
    told = [record.message for record in caplog.records if record.name == "fanout.doctor"]
    assert len([text for text in told if "'dove'" in text]) == 1
    assert len(told) == len(set(told))

    began, release = threading.Event(), threading.Event()
    ended: list[bool] = []

    def stuck(*words: Any) -> Any:
        began.set()
        release.wait(60)
        ended.append(release.is_set())
        return {}

    monkeypatch.setattr("fanout.cli.doctor.exposed", stuck)
    looking = asyncio.ensure_future(look_around(shell.config))
    while not began.is_set():
        await asyncio.sleep(0.001)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert not ended  # the thread waits still, and nothing waits for it
    release.set()


@pytest.mark.anyio
async def test_a_failure_of_the_looking_around_stops_nothing_and_shows_nothing(
    shell: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: Any) -> Any:
        raise RuntimeError("the-secret-itself")

    monkeypatch.setattr("fanout.cli.checkup._AFTER", 0.0)
    monkeypatch.setattr("fanout.cli.doctor.exposed", fail)
    await look_around(shell.config)
    assert "RuntimeError" in caplog.text
    assert "the-secret-itself" not in caplog.text


def test_a_worker_starts_and_works_although_a_file_beside_it_is_wrong(
    shell: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`work` runs the whole look beside its work: a key that anybody may read is told in its log."""
    key = shell.folder / "user.key"
    key.write_text("fus_0123456789ab_" + "x" * 43)
    key.chmod(0o644)
    text = '[[service.user_keys]]\nid = "0123456789ab"\nsecret_file = "user.key"\n'
    shell.config.write_text(shell.config.read_text() + text)
    told = asyncio.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "chmod 0600" in record.getMessage():
                told.set()

    async def until_told(engine: Any) -> int:
        await told.wait()
        return 0

    handler = Told()
    logging.getLogger("fanout.doctor").addHandler(handler)
    monkeypatch.setattr("fanout.cli.checkup._AFTER", 0.0)
    monkeypatch.setattr("fanout.cli.work._failed", until_told)
    try:
        assert shell("work").code == 0
    finally:
        logging.getLogger("fanout.doctor").removeHandler(handler)


def test_of_several_processes_one_looks_around(monkeypatch: pytest.MonkeyPatch, shell: Any, tmp_path: Path) -> None:
    started: list[list[str]] = []

    async def parent(commands: list[list[str]], *, drain: bool) -> int:
        started.extend(commands)
        return 0

    monkeypatch.setattr("fanout.cli.work._parent", parent)
    assert shell("work", "--processes", "3").code == 0
    assert ["--sibling" in words for words in started] == [False, True, True]


REGISTRY = Registry()
_LEAF = st.one_of(
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.sampled_from(
        ["", " ", "x", "sqlite:a.db", "postgresql://[", "http://u:p@[", "1h", "${", "$X", "ä\n", "environment"]
    ),
)
_VALUES = st.recursive(
    _LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(["id", "host", "secret", "key_file", "apps", "x y", ""]), inner, max_size=2),
    ),
    max_leaves=4,
)
_PLACES = (
    *("storage", "proxy", "apps", "policy", "service", "addresses", "telemetry", "backlog", "retention", "other"),
    *("apps.default", "apps.default.transports", "apps.default.transports.apns", "apps.default.transports.fcm.type"),
    *(
        f"apps.default.transports.webpush.{key}"
        for key in ("vapid_subject", "vapid_private_key", "allowed_hosts", "ca_file")
    ),
    *(
        f"apps.default.transports.apns.{key}"
        for key in ("key", "key_file", "cert_file", "cert_passphrase", "environment")
    ),
    *(f"apps.default.transports.wns.{key}" for key in ("client_id", "client_secret", "proxy", "token_url")),
    *(
        f"apps.default.transports.fcm.{key}"
        for key in ("service_account", "credentials", "auth", "gateway", "project_id")
    ),
    *(f"service.{key}" for key in ("keys", "user_keys", "issuers", "limits", "host_names", "origins", "certificates")),
)


@given(st.dictionaries(st.sampled_from(_PLACES), _VALUES, min_size=1, max_size=4))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_says_it_is_told_in_sentences(tmp_path: Path, said: dict[str, Any]) -> None:
    tables: dict[str, Any] = {}
    for place, value in said.items():
        table: Any = tables
        *path, last = place.split(".")
        for key in path:
            table = table.setdefault(key, {}) if isinstance(table, dict) else {}
        if isinstance(table, dict):
            table[last] = value

    def written(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {written(part)}" for key, part in value.items()) + "}"
        if isinstance(value, list):
            return f"[{', '.join(map(written, value))}]"
        if isinstance(value, float) and not math.isfinite(value):
            return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        return json.dumps(value)

    config = tmp_path / "fanout.toml"
    config.write_text("".join(f"{json.dumps(key)} = {written(value)}\n" for key, value in tables.items()))

    async def found() -> list[Finding]:
        return [finding async for finding in examine(config, REGISTRY, beside=True)]

    wrong = [finding for finding in asyncio.run(found()) if finding.problem]
    assert wrong or tables
    for finding in wrong:
        assert "Traceback" not in finding.problem
        assert "object at 0x" not in finding.problem
        assert finding.line is None or finding.line >= 1
