"""What a binding may be configured with, and what is said of the rest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fanout.plugin import ConfigurationError, Secret, TransportPlugin
from fanout_apns import certificate, plugin
from fanout_apns.auth import ProviderToken
from fanout_apns.settings import ApnsSettings


def pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return str(key.private_bytes(Encoding.PEM, form, NoEncryption()).decode())


P256 = pem(ec.generate_private_key(ec.SECP256R1()))
GOOD: dict[str, Any] = {
    "topic": "com.example.app",
    "team_id": "ABCDE12345",
    "key_id": "KEY1234567",
    "key": Secret(P256, "AuthKey.p8"),
}


def changed(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (GOOD | changes).items() if value is not None}


def test_the_usual_settings() -> None:
    settings = ApnsSettings(**GOOD)
    assert settings.url == "https://api.push.apple.com"
    assert ApnsSettings(**changed(environment="sandbox")).url == "https://api.sandbox.push.apple.com"
    assert ApnsSettings(**changed(gateway="https://api.push.apple.com:2197")).url.endswith(":2197")
    assert ApnsSettings(**changed(gateway="https://[::1]:8443")).url == "https://[::1]:8443"


def test_an_older_form_of_key_is_taken_too() -> None:
    old = pem(ec.generate_private_key(ec.SECP256R1()), PrivateFormat.TraditionalOpenSSL)
    settings = ApnsSettings(**changed(key=Secret(old)))
    assert settings.key is not None
    assert ProviderToken("T", "K", settings.key).refresh(1_800_000_000, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": None, "team_id": None, "key_id": None}, ["key is missing", "key_file", "cert_file"]),
        ({"cert_file": Path(__file__)}, ["key and cert_file are both set"]),
        ({"team_id": None}, ["team_id is ''", "Membership details"]),
        ({"team_id": "abcde12345"}, ["team_id is 'abcde12345'", "10 capital"]),
        ({"key_id": "AuthKey_K"}, ["key_id is 'AuthKey_K'", "Keys"]),
        ({"topic": None}, ["topic is missing", "bundle id"]),
        ({"topic": "com example"}, ["topic is 'com example'"]),
        ({"environment": "development"}, ["environment is 'development'", "sandbox"]),
        ({"gateway": "http://localhost"}, ["gateway is 'http://localhost'", "https://HOST"]),
        ({"gateway": "https://user@host"}, ["gateway"]),
        ({"gateway": "https://host/path"}, ["gateway", "without a path"]),
        ({"client": "httpx"}, ["client is 'httpx'", "fanout or aioapns"]),
        ({"connections": 0}, ["connections is 0"]),
        ({"streams": 100_000}, ["streams is 100000"]),
        ({"request_timeout": 0.0}, ["request_timeout is 0.0"]),
        ({"ca_file": Path("/nowhere/ca.pem")}, ["ca_file names no file", "/nowhere/ca.pem"]),
        ({"cert_key_file": Path(__file__)}, ["cert_key_file is set without cert_file"]),
        ({"key": Secret("hello", "AuthKey.p8")}, ["key (AuthKey.p8)", "P-256", "as Apple gave it"]),
        ({"key": Secret(P256.replace("\n", "", 3)[:-40])}, ["P-256"]),
        ({"key": Secret(pem(rsa.generate_private_key(65537, 2048)))}, ["P-256"]),
        ({"key": Secret(pem(ec.generate_private_key(ec.SECP384R1())))}, ["P-256"]),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ApnsSettings(**changed(**changes))
    for word in words:
        assert word in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)


def test_team_and_key_belong_to_a_token(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="remove them, or set key_file"):
        ApnsSettings(team_id="ABCDE12345", cert_file=Path(__file__))
    with pytest.raises(ConfigurationError, match="cert_file or cert_key_file cannot be read"):
        certificate.load(tmp_path / "absent.pem", None, None)


def test_a_key_damaged_inside_is_found_when_it_is_loaded() -> None:
    body = P256.splitlines()
    damaged = "\n".join([body[0], body[1][:-8] + "AAAAAAAA", *body[2:]])
    settings = ApnsSettings(**changed(key=Secret(damaged, "AuthKey.p8")))
    assert settings.key is not None
    with pytest.raises(ConfigurationError, match=r"AuthKey\.p8.*P-256"):
        ProviderToken("T", "K", settings.key)


def test_the_descriptor_is_light() -> None:
    assert isinstance(plugin, TransportPlugin)
    code = (
        "import sys, fanout_apns; print([m for m in ('aiohttp', 'cryptography', 'hpack', 'ssl') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_nothing_shows_the_key() -> None:
    line = P256.splitlines()[1]
    assert line not in repr(ApnsSettings(**GOOD))
    token = ProviderToken("ABCDE12345", "KEY1234567", GOOD["key"])
    token.refresh(1_800_000_000, 0)
    assert token.text not in repr(token)


def test_files_that_are_no_certificates(tmp_path: Path, transport_to: Callable[..., Any]) -> None:
    from fanout_apns.certificate import load
    from fanout_apns.transport import tls

    bad = tmp_path / "push.pem"
    bad.write_text("nonsense")
    with pytest.raises(ConfigurationError, match="cert_file is neither PEM nor"):
        load(bad, None, None)
    with pytest.raises(ConfigurationError, match="ca_file cannot be loaded"):
        tls(ApnsSettings(**changed(ca_file=bad)), None)
