"""`fanout keys`: the pair is real, what is printed can be pasted, and no key is ever overwritten or shown where it
should not be."""

from __future__ import annotations

import base64
import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

STORAGE = 'storage = "sqlite:fanout.db"\n'


def public_of(pem: str) -> str:
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return base64.urlsafe_b64encode(point).rstrip(b"=").decode()


def test_a_pair_in_a_file(shell: Any) -> None:
    result = shell("keys", "vapid", "--out", "vapid.pem")
    assert result.code == 0
    file = shell.folder / "vapid.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    pem = file.read_text()
    first, *config = result.out.splitlines()
    assert first.endswith(" " + public_of(pem))
    assert "applicationServerKey" in first
    table = tomllib.loads("\n".join(config))["apps"]["default"]["transports"]["webpush"]
    assert table == {"vapid_private_key_file": "vapid.pem", "vapid_subject": "mailto:you@example.com"}
    assert "PRIVATE" not in result.out + result.err
    assert "readable by you alone" in result.err


def test_what_is_printed_is_a_configuration_that_the_doctor_finds_right(shell: Any) -> None:
    for words in (["--out", "vapid.pem"], []):
        shell.config.write_text(STORAGE + shell("keys", "vapid", *words).out)
        result = shell("doctor", "--json")
        assert result.code == 0, result.out
        (binding,) = [line for line in result.lines if line["kind"] == "binding"]
        assert (binding["name"], binding["ok"]) == ("default/webpush", True)


def test_the_json_form(shell: Any) -> None:
    (said,) = shell("keys", "vapid", "--out", "v.pem", "--json").lines
    pem = (shell.folder / "v.pem").read_text()
    assert said == {
        "kind": "vapid",
        "transport": "webpush",
        "applicationServerKey": public_of(pem),
        "settings": {"vapid_private_key_file": "v.pem", "vapid_subject": "mailto:you@example.com"},
    }
    (loose,) = shell("keys", "vapid", "--json").lines
    assert loose["applicationServerKey"] == public_of(loose["settings"]["vapid_private_key"])
    assert loose["applicationServerKey"] != said["applicationServerKey"]


def test_the_path_is_the_one_that_the_configuration_needs(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (shell.folder / "etc").mkdir()

    def named(out: str) -> Any:
        (said,) = shell("keys", "vapid", "--out", out, "--json").lines
        return said["settings"]["vapid_private_key_file"]

    assert named("etc/a.pem") == "etc/a.pem"
    monkeypatch.setenv("FANOUT_CONFIG", "etc/fanout.toml")
    assert named("etc/b.pem") == "b.pem"
    assert named("c.pem") == str(shell.folder / "c.pem")
    assert named("etc/../d.pem") == "../d.pem"
    assert named("etc/~root") == "./~root"


@pytest.mark.parametrize("kind", ["vapid", "address", "signer"])
def test_the_configuration_may_be_named_and_reads_what_is_printed(shell: Any, kind: str) -> None:
    """What is pasted into the file that `--config` names is read by it, wherever the key was put and the program is
    started."""
    config = shell.folder / "etc" / "here.toml"
    config.parent.mkdir()
    words = ["api", "--kind", "signer"] if kind == "signer" else [kind]
    for out in ("etc/in.key", "beside.key"):
        said = shell("keys", *words, "--out", out, "--config", "etc/here.toml").out
        config.write_text(STORAGE + ("[apps.default]\n" if kind != "vapid" else "") + said)
        assert shell("doctor", "--config", "etc/here.toml").code == 0


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_nothing_is_overwritten(shell: Any, there: str) -> None:
    file: Path = shell.folder / "vapid.pem"
    if there == "file":
        file.write_text("mine")
    elif there == "folder":
        file.mkdir()
    else:
        os.symlink(shell.folder / "elsewhere.pem", file)
    result = shell("keys", "vapid", "--out", "vapid.pem")
    assert (result.code, result.out) == (2, "")
    assert "--out vapid.pem exists already" in result.err
    assert not (shell.folder / "elsewhere.pem").exists()
    assert there != "file" or file.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], ["'nothing'", "vapid"]),
        (["VAPID"], ["'VAPID'", "vapid"]),
        (["vapid", "--out", "no/such/folder/v.pem"], ["--out no/such/folder/v.pem", "No such file or directory"]),
        (["vapid", "--out", "fanout.toml/v.pem"], ["--out fanout.toml/v.pem", "Not a directory"]),
        (["vapid", "--out", "x" * 300], ["--out x", "File name too long"]),
        (["vapid", "--out", ""], ["--out ."]),
    ],
)
def test_bad_input(shell: Any, words: list[str], told: list[str]) -> None:
    result = shell("keys", *words)
    assert (result.code, result.out) == (2, "")
    (sentence,) = result.err.strip().splitlines()
    for word in ("fanout: ", *told):
        assert word in sentence


def test_a_disk_that_fills_up_leaves_no_half_a_key(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = shell("keys", "vapid", "--out", "vapid.pem")
    assert (result.code, result.out) == (2, "")
    assert "No space left on device" in result.err
    assert not (shell.folder / "vapid.pem").exists()


def test_a_strangers_transport_may_make_keys_too(shell: Any) -> None:
    module = shell.folder / "site" / "pigeon_post_cli.py"
    module.write_text(
        module.read_text()
        + "\nfrom fanout.plugin import KeyPair, Secret\n"
        + "def ring():\n    return KeyPair(private=Secret('hush'), setting='ring', public='ring-7', public_name='ringNumber')\n"
        + 'plugin = TransportPlugin(name="pigeon", settings=ScriptedSettings, factory=make, keys={"ring": ring})\n'
    )
    result = shell("keys", "ring", "--out", "ring.txt")
    assert (result.code, (shell.folder / "ring.txt").read_text()) == (0, "hush")
    assert result.out.splitlines() == [
        "# ringNumber, for the clients: ring-7",
        "[apps.default.transports.pigeon]",
        'ring_file = "ring.txt"',
    ]
    assert "ring, vapid" in shell("keys", "wing").err
