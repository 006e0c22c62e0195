"""`doctor` against a simulator of each gateway: right credentials are proved, wrong ones told in a sentence, and nobody
is pushed to."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fanout.cli.gateways import toml
from fanout.testing.simulator import Simulator
from fanout_apns.simulator import ApnsSimulator
from fanout_fcm.simulator import FcmSimulator
from fanout_webpush.simulator import WebPushSimulator
from fanout_wns.simulator import WnsSimulator

pytestmark = pytest.mark.anyio

MAKERS: dict[str, type[Any]] = {
    "apns": ApnsSimulator,
    "fcm": FcmSimulator,
    "wns": WnsSimulator,
    "webpush": WebPushSimulator,
}


@pytest.fixture
async def gateways(tmp_path: Path) -> AsyncIterator[dict[str, Simulator]]:
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(make(folder=tmp_path / name, ledger=tmp_path / f"{name}.ledger"))
            for name, make in MAKERS.items()
        }


async def examine(folder: Path, bindings: dict[str, dict[str, Any]]) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Exit code, what was found of each binding, and everything that was printed in either form."""
    (folder / "fanout.toml").write_text(toml("sqlite:fanout.db", bindings, {}))
    shown, codes = [], []
    for words in (["--json"], []):
        child = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "fanout", "doctor", "--config", "fanout.toml", *words],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("FANOUT_")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await child.communicate()
        shown.append((out + err).decode())
        codes.append(child.returncode)
    return judged(codes, shown)


def judged(codes: list[int | None], shown: list[str]) -> tuple[int, dict[str, dict[str, Any]], str]:
    """The same of what was printed as JSON and as text."""
    assert codes[0] == codes[1]
    assert "Traceback" not in shown[0] + shown[1]
    found = [json.loads(line) for line in shown[0].splitlines()]
    of_bindings = {one["name"].removeprefix("default/"): one for one in found if one["kind"] == "binding"}
    for one in of_bindings.values():
        assert one["problem"] in shown[1]
        assert one["problem"].count("\n") == 0
        assert bool(one["problem"]) != one["ok"]
    return codes[0] or 0, of_bindings, shown[0] + shown[1]


def settings_of(gateways: dict[str, Simulator]) -> dict[str, dict[str, Any]]:
    return {name: dict(gateway.settings()) for name, gateway in gateways.items()}


def secrets_of(table: dict[str, Any]) -> list[str]:
    whole = "".join(
        str(table.get(name, "")) for name in ("key", "service_account", "client_secret", "vapid_private_key")
    )
    parts = whole.replace("\\n", "\n").splitlines()
    return [part for part in parts if len(part) > 20 and not part.startswith(("-----", "{"))] or [whole]


@pytest.mark.long("wrong credentials are told apart, which proves that they are looked at")
async def test_right_credentials_are_proved_and_nobody_hears_of_it(
    gateways: dict[str, Simulator], tmp_path: Path
) -> None:
    bindings = settings_of(gateways)
    code, found, shown = await examine(tmp_path, bindings)
    assert code == 0, shown
    assert set(found) == set(MAKERS)
    assert all(one["ok"] and one["detail"] for one in found.values())
    for name, gateway in gateways.items():
        assert gateway.counters.accepted == 0, name
        assert not (tmp_path / f"{name}.ledger").read_bytes(), name
    for name in ("apns", "fcm", "wns"):
        assert gateways[name].counters.connections > 0, f"{name} was not asked at all"
    assert gateways["webpush"].counters.connections == 0, "there is nothing of Web Push that could be asked"
    for table in bindings.values():
        assert not [secret for secret in secrets_of(table) if secret in shown]


def pem_of(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def foreign_account(text: str) -> str:
    """The same account with a key that Google does not have."""
    account = json.loads(text)
    return json.dumps(account | {"private_key": pem_of(rsa.generate_private_key(public_exponent=65537, key_size=2048))})


async def test_wrong_credentials_are_told_from_one_another(gateways: dict[str, Simulator], tmp_path: Path) -> None:
    right = settings_of(gateways)
    cases: dict[str, tuple[str, dict[str, Any], list[str]]] = {
        "apns_team": ("apns", {"team_id": "OTHERTEAM1"}, ["team_id"]),
        "apns_key": ("apns", {"key": pem_of(ec.generate_private_key(ec.SECP256R1()))}, ["key_id", "key"]),
        "apns_topic": ("apns", {"topic": "org.example.other"}, ["org.example.other"]),
        "apns_certificate": ("apns", {"ca_file": None}, ["check", "ca_file"]),
        "fcm_key": ("fcm", {"service_account": foreign_account(right["fcm"]["service_account"])}, ["service_account"]),
        "fcm_project": ("fcm", {"project_id": "somebody-elses"}, ["somebody-elses", "project"]),
        "wns_secret": ("wns", {"client_secret": "not-the-secret-value"}, ["client_secret"]),
        "wns_client": ("wns", {"client_id": "99999999-0000-0000-0000-000000000000"}, ["client_id"]),
        "wns_certificate": ("wns", {"ca_file": None}, ["check", "ca_file"]),
    }
    bindings = {name: {"type": kind, **right[kind], **changes} for name, (kind, changes, _) in cases.items()} | {
        "apns": right["apns"]
    }
    code, found, shown = await examine(tmp_path, bindings)
    assert code == 1, shown
    assert found.pop("apns")["ok"], "one wrong binding spoils no other"
    for name, (_, _, told) in cases.items():
        for word in told:
            assert word in found[name]["problem"], (name, found[name])
        assert found[name]["problem"].endswith(".")
    assert all(gateway.counters.accepted == 0 for gateway in gateways.values())
    for table in bindings.values():
        assert not [secret for secret in secrets_of(table) if secret in shown]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"vapid_subject": "mailto:me@host.local"}, ["vapid_subject", "Apple", "public DNS"]),
        ({"vapid_subject": "me@example.com"}, ["vapid_subject", "mailto:"]),
        (
            {"vapid_private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
            ["fanout keys vapid"],
        ),
    ],
)
def test_what_of_web_push_can_be_wrong_is_in_the_configuration(
    shell: Any, changes: dict[str, Any], told: list[str]
) -> None:
    """No gateway is asked, so that the commands run in this process."""

    async def right() -> dict[str, Any]:
        async with WebPushSimulator(folder=shell.folder / "webpush") as gateway:
            return dict(gateway.settings())

    shell.config.write_text(toml("sqlite:fanout.db", {"webpush": {**asyncio.run(right()), **changes}}, {}))
    results = [shell("doctor", *words) for words in (["--json"], [])]
    code, found, shown = judged([result.code for result in results], [result.out + result.err for result in results])
    assert code == 2, shown
    for word in told:
        assert word in found["webpush"]["problem"]


@pytest.mark.long("each transport's own tests have a gateway that is not there")
async def test_gateways_that_are_not_there(gateways: dict[str, Simulator], tmp_path: Path) -> None:
    right = settings_of(gateways)
    for gateway in gateways.values():
        await gateway.__aexit__(None, None, None)
    del right["webpush"]
    for table in right.values():
        table["request_timeout"] = 3.0
    code, found, shown = await examine(tmp_path, right)
    assert code == 1, shown
    for name in right:
        assert "check" in found[name]["problem"], found[name]
        assert "network" in found[name]["problem"], found[name]


async def test_a_certificate_near_its_end_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.testing.simulator.certificates._VALID", timedelta(days=20, hours=1))
    async with ApnsSimulator(auth="certificate", folder=tmp_path / "apple") as apple:
        code, found, shown = await examine(tmp_path, {"apns": apple.settings()})
    assert (code, found["apns"]["ok"]) == (0, True)
    assert "in 20 days" in found["apns"]["warning"]
    assert "warn   binding          default/apns" in shown
