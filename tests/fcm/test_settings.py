"""What a binding may be configured with, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from fanout.plugin import ConfigurationError, Secret
from fanout_fcm.auth import Signer
from fanout_fcm.credential import GOOGLE_TOKEN_URL
from fanout_fcm.settings import GATEWAY, FcmSettings


@pytest.fixture
def account(pem: str) -> dict[str, Any]:
    return {
        "type": "service_account",
        "project_id": "shop-1234",
        "private_key_id": "k1",
        "private_key": pem,
        "client_email": "sender@shop-1234.iam.gserviceaccount.com",
        "token_uri": GOOGLE_TOKEN_URL,
    }


def made(values: object, **settings: Any) -> FcmSettings:
    return FcmSettings(service_account=Secret(orjson.dumps(values).decode(), "sa.json"), **settings)


def test_the_file_says_everything_that_is_needed(account: dict[str, Any]) -> None:
    settings = made(account)
    assert (settings.project, settings.gateway, settings.token_endpoint) == ("shop-1234", GATEWAY, GOOGLE_TOKEN_URL)
    assert settings.account.email == account["client_email"]
    assert (settings.rate_per_minute, settings.ramp) == (600_000, 60.0)


def test_what_is_set_replaces_the_file(account: dict[str, Any]) -> None:
    settings = made(account, project_id="other", token_url="https://127.0.0.1:8443/token")
    assert (settings.project, settings.token_endpoint) == ("other", "https://127.0.0.1:8443/token")


def test_nothing_shows_the_key(account: dict[str, Any], pem: str) -> None:
    settings = made(account)
    shown = f"{settings!r} {settings.account!r} {Signer(settings.account)!r}"
    assert not [line for line in pem.splitlines()[1:-1] if line in shown]


def test_the_old_form_of_key_is_taken(account: dict[str, Any], pem: str) -> None:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key(pem.encode(), None)
    old = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    assert "BEGIN RSA PRIVATE KEY" in old
    Signer(made(account | {"private_key": old}).account)


def test_a_token_uri_elsewhere_is_refused_unless_another_is_set(account: dict[str, Any]) -> None:
    stray = account | {"token_uri": "https://oauth2.googleapis.com.example.net/token"}
    with pytest.raises(ConfigurationError, match="token_uri other than"):
        made(stray)
    assert made(stray, token_url="https://localhost/token").token_endpoint == "https://localhost/token"
    del stray["token_uri"]
    assert made(stray).token_endpoint == GOOGLE_TOKEN_URL


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"type": "external_account"}, "external_account"),
        ({"type": "authorized_user"}, "not of type service_account"),
        ({"type": None}, "not of type service_account"),
        ({"client_email": ""}, "client_email"),
        ({"client_email": "no at sign"}, "client_email"),
        ({"client_email": 5}, "client_email"),
        ({"private_key_id": "a b"}, "private_key_id"),
        ({"private_key": ""}, "private_key"),
        ({"private_key": None}, "private_key"),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}, "private_key"),
        ({"project_id": ""}, "project_id"),
        ({"project_id": "Sho/p"}, "project_id"),
        ({"project_id": 5}, "project_id"),
    ],
)
def test_a_wrong_file_is_named_with_the_remedy(account: dict[str, Any], change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        made(account | change)
    assert "sa.json" in str(caught.value) or "project_id" in str(caught.value)


def test_a_cut_off_key_is_noticed(account: dict[str, Any], pem: str) -> None:
    lines = pem.splitlines()
    with pytest.raises(ConfigurationError, match="private_key"):
        made(account | {"private_key": "\n".join([*lines[:10], lines[-1]])})


def test_a_key_of_the_right_form_that_is_none_is_noticed_when_it_is_loaded(account: dict[str, Any], pem: str) -> None:
    lines = pem.splitlines()
    lines[5] = lines[5][::-1]
    with pytest.raises(ConfigurationError, match="private_key") as caught:
        Signer(made(account | {"private_key": "\n".join(lines)}).account)
    assert lines[5] not in str(caught.value)


@pytest.mark.parametrize("text", ["", "no json", "[]", '"text"'])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="service_account"):
        FcmSettings(service_account=Secret(text))


@pytest.mark.parametrize(
    "settings",
    [
        {"project_id": "Sho/p"},
        {"project_id": "../x"},
        {"gateway": "http://fcm.googleapis.com"},
        {"gateway": "https://fcm.googleapis.com/v1"},
        {"token_url": "https://localhost"},
        {"token_url": "http://localhost/token"},
        {"ca_file": Path("/nowhere/ca.pem")},
        {"connections": 0},
        {"streams": 100_000},
        {"rate_per_minute": -1},
        {"ramp": -1.0},
        {"request_timeout": 0.0},
    ],
)
def test_a_wrong_setting_is_named(account: dict[str, Any], settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        made(account, **settings)
    assert next(iter(settings)) in str(caught.value)


def test_settings_import_no_crypto() -> None:
    import subprocess
    import sys

    code = "import sys, fanout_fcm; sys.exit(any(m in sys.modules for m in ('cryptography', 'aiohttp', 'fanout.http.pool')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
