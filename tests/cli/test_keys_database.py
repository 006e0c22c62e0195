"""`fanout keys add | list | revoke`: keys and host names in the database, from the shell."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import stat
from typing import Any

import pytest

import fanout
from fanout.service.auth.api_key import matches


def grants(shell: Any) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        async with fanout.open(shell.config, role="submit") as engine:
            return {grant.id: grant for grant in await engine.storage.access.grants()}

    return asyncio.run(read())


def test_a_key_is_made_shown_once_listed_and_revoked(shell: Any) -> None:
    key = shell.ok("keys", "add", "--name", "billing", "--role", "send", "--expires", "2100-01-31")
    ((id, grant),) = grants(shell).items()
    assert matches(key, grant.proof)
    assert (grant.role, grant.name, grant.kind) == ("send", "billing", "caller")
    listed = shell("keys", "list")
    assert id in listed.out
    assert "billing" in listed.out
    assert "2100-02-01" in listed.out, "the end of that day"
    assert key.rpartition("_")[2] not in listed.out + listed.err
    (told,) = shell("keys", "list", "--json").lines
    assert told["role"] == "send"
    assert set(told) == {"id", "app", "kind", "name", "role", "expires_at", "made_at", "used_at"}
    assert shell("keys", "revoke", id).code == 0
    assert grants(shell) == {}
    assert shell("keys", "revoke", id).code == 1


def test_an_expiry_beyond_the_calendar_is_listed(shell: Any) -> None:
    shell.ok("keys", "add", "--name", "old")
    (file,) = shell.folder.glob("*.db")
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE access SET expires_at = 1e15")
    listed = shell("keys", "list")
    assert (listed.code, "9999-12-31 23:59" in listed.out) == (0, True)


def test_a_signer_and_a_host_name(shell: Any) -> None:
    out = shell.folder / "signer.key"
    id = shell.ok("keys", "add", "--kind", "signer", "--out", str(out))
    assert out.read_text().startswith(f"fsk_{id}_")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert shell.ok("keys", "add", "--kind", "host", "--name", "Push.Example.com") == "push.example.com"
    taken = shell("keys", "add", "--kind", "host", "--name", "push.example.com")
    assert taken.code != 0
    assert "stands already" in taken.err
    assert grants(shell).keys() == {id, "push.example.com"}
    assert shell("keys", "revoke", "push.example.com").code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("add", "--role", "user"), "--kind signer"),
        (("add", "--kind", "robot"), "signer"),
        (("add", "--kind", "host"), "--name"),
        (("add", "--app", "nobody"), "nobody"),
        (("add", "--expires", "2001-01-01"), "past"),
        (("list", "--role", "send"), "--role"),
        (("revoke",), "revoke ID"),
        (("list", "x"), "revoke ID"),
        (("api", "--name", "x"), "--name"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(shell: Any, words: tuple[str, ...], says: str) -> None:
    result = shell("keys", *words)
    assert result.code not in (0, None)
    assert says in result.err
