"""`fanout work` that is started while the database is away."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fanout_kit.postgres import MISSING, PostgresServer, find_programs

pytestmark = [pytest.mark.anyio, pytest.mark.external]


async def test_a_worker_waits_for_the_database_and_ends_when_told(tmp_path: Path) -> None:
    if find_programs() is None:
        pytest.skip(MISSING)
    with PostgresServer.start() as server:
        name = server.fresh()
        await asyncio.to_thread(server.stop)
        (tmp_path / "vapid.pem").write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        (tmp_path / "vapid.pem").chmod(0o600)
        (tmp_path / "fanout.toml").write_text(
            f'storage = "{server.url(name)}"\n[apps.default.transports.webpush]\nvapid_private_key_file = "vapid.pem"\n'
            'vapid_subject = "mailto:ops@example.com"\n'
        )
        command = [sys.executable, "-m", "fanout", "work", "--config", str(tmp_path / "fanout.toml")]
        worker = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        assert worker.stderr is not None
        try:
            first = (await worker.stderr.readline()).decode()
            assert "waits for the database" in first, first
            assert server.password not in first
            await asyncio.to_thread(server.up)
            while "Working on" not in (line := (await worker.stderr.readline()).decode()):
                assert line, "it goes on"
            worker.terminate()
            assert await worker.wait() == 0
        finally:
            if worker.returncode is None:
                worker.kill()
                await worker.wait()
