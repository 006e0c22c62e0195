"""A key that Apple has revoked, and the new one with its own id: taken into use without a restart."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import fanout
from fanout_apns.simulator import ApnsSimulator

pytestmark = pytest.mark.anyio


def write(folder: Path, apple: ApnsSimulator, key_id: str) -> None:
    """As an editor or a deployment does it: the whole file in one step."""
    fresh = folder / "fresh"
    fresh.write_text(
        'storage = "memory:"\n[policy]\nprobe = 3600.0\n[apps.default.transports.apns]\n'
        f'team_id = "{apple.team_id}"\nkey_id = "{key_id}"\nkey_file = "AuthKey_{key_id}.p8"\ntopic = "{apple.topic}"\n'
        f'gateway = "{apple.url}"\nca_file = "{apple.ca_file}"\n'
    )
    os.replace(fresh, folder / "fanout.toml")


async def test_a_new_key_with_a_new_key_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.engine.renewal.EVERY", 0.01)
    async with ApnsSimulator() as apple:
        (tmp_path / f"AuthKey_{apple.key_id}.p8").write_text(apple.key)
        write(tmp_path, apple, apple.key_id)
        async with fanout.open(tmp_path / "fanout.toml") as engine:
            await engine.endpoints.register(user="alice", binding="apns", address=apple.address(1))
            receipt = await engine.send(fanout.Notification(title="one"), "user:alice")
            assert (await receipt.wait(60)).counts["accepted"] == 1

            key = ec.generate_private_key(ec.SECP256R1())
            apple.key_id = "SIMKEY0001"  # type: ignore[misc]
            apple._public_key = key.public_key()
            apple._verified.clear()
            receipt = await engine.send(fanout.Notification(title="two"), "user:alice")
            while not await engine.gates():
                await asyncio.sleep(0.005)

            write(tmp_path, apple, apple.key_id)
            while not engine.configuration.problem:
                await asyncio.sleep(0.005)
            assert "AuthKey_SIMKEY0001.p8 does not exist" in engine.configuration.problem
            (tmp_path / "AuthKey_SIMKEY0001.p8").write_bytes(
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
            assert (await receipt.wait(60)).counts["accepted"] == 1
            assert (engine.configuration.taken, engine.configuration.problem) == (1, "")
