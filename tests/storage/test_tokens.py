"""Shared tokens in a SQLite file: in clear without an address key, sealed with one, and never in the way of another."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from fanout.core.fleet import SharedToken
from fanout.plugin import Sealer, StorageContext
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.storage.tokens import kept_token, opened_token
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0

pytestmark = pytest.mark.anyio

CLEAR = StorageContext(clock=VirtualClock(T0))
SEALED = dataclasses.replace(CLEAR, sealer=Sealer([bytes(range(32))]))
TOKEN = SharedToken("very-secret-token", T0, T0 + 3600)


def bytes_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


@pytest.mark.parametrize("context", [CLEAR, SEALED], ids=["clear", "sealed"])
async def test_a_token_is_sealed_where_addresses_are(context: StorageContext, tmp_path: Path) -> None:
    async with SqliteStorage(str(tmp_path / "x.db"), context, offload=Inline) as storage:
        assert await storage.fleet.token("apns", T0, offer=TOKEN) == TOKEN
    async with SqliteStorage(str(tmp_path / "x.db"), context, offload=Inline) as storage:
        assert await storage.fleet.token("apns", T0) == TOKEN
        assert (b"very-secret" in bytes_of(tmp_path)) is (context is CLEAR)


def test_what_does_not_open_is_no_token() -> None:
    sealer, other = Sealer([bytes(range(32))]), Sealer([bytes(32)])
    seal = sealer.open(sealer.begin(complete=True), "x")
    text = kept_token(seal, "apns", TOKEN)
    assert opened_token(seal, "apns", text, TOKEN.made_at, TOKEN.expires_at) == TOKEN
    assert opened_token(seal, "fcm", text, TOKEN.made_at, TOKEN.expires_at) is None, "another name's"
    assert opened_token(seal, "apns", TOKEN.text, TOKEN.made_at, TOKEN.expires_at) is None, "one in clear"
    assert opened_token(other.open(other.begin(complete=True), "x"), "apns", text, 0.0, 1.0) is None, "another key's"
