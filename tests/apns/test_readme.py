"""The transport's README says what is so."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import fanout_apns
from fanout.plugin import Context, Notification, Secret
from fanout.testing.clock import VirtualClock
from fanout_apns.payload import encode
from fanout_apns.settings import ApnsSettings

TEXT = (Path(fanout_apns.__file__).parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_configuration_is_valid() -> None:
    table: dict[str, Any] = tomllib.loads(blocks("toml")[0])["apps"]["default"]["transports"]["apns"]
    key = ec.generate_private_key(ec.SECP256R1())
    assert table.pop("key_file").endswith(".p8")
    table["key"] = Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    assert ApnsSettings(**table).url == "https://api.sandbox.push.apple.com"
    assert tomllib.loads(blocks("toml")[1])["apps"]["default"]["transports"]["apns_sandbox"]["type"] == "apns"


def test_the_live_activity_is_one() -> None:
    tree = ast.parse(blocks("python")[0].strip(), mode="eval").body
    assert isinstance(tree, ast.Call)
    given = ast.literal_eval(tree.keywords[0].value)
    notification = Notification(transports=given)
    message = encode(notification, "com.example.app", notification.override("apns"))
    assert message.headers.topic == "com.example.app.push-type.liveactivity"
    assert json.loads(message.payload)["aps"]["event"] == "update"


def test_the_address_of_the_example_is_taken(transport_to: Any, tmp_path: Path) -> None:
    import random

    from fanout_apns.transport import ApnsTransport

    ca = tmp_path / "cert.pem"
    ca.write_text("")
    context = Context(app="default", binding="apns", clock=VirtualClock(), rng=random.Random(1))
    transport = ApnsTransport(ApnsSettings(cert_file=ca, topic="com.example.app"), context)
    [command] = [line for line in TEXT.splitlines() if line.startswith("fanout endpoints add")]
    address = transport.parse_address(command.split()[-1])
    assert len(address.value) == 64


@pytest.mark.parametrize("word", ["pip install fanout", "TODO", "localhost:"])
def test_what_it_must_not_say(word: str) -> None:
    assert word not in TEXT
