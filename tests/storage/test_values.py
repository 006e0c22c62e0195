"""Odd values: what can be stored comes back as it was, what cannot is refused, and no message shows an address."""

from __future__ import annotations

from array import array
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fanout.core.address import Address
from fanout.core.endpoint import Registration
from fanout.core.model import Target
from fanout.core.records import EndpointFilter
from fanout.errors import StorageError, UsageError
from fanout.plugin import StorageContext
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.operations import Operation
from fanout.storage.sqlite.store import Inline, SqliteStorage
from fanout.testing.clock import VirtualClock
from fanout.testing.storage_kit import T0, device, submission

pytestmark = pytest.mark.anyio

CONTEXT = StorageContext(clock=VirtualClock(T0))

TEXTS = [
    "",
    "'; DROP TABLE endpoint; --",
    '"\\/\b\f\n\r\t',
    "ⅷ 漢字 🙂",
    "null",
    "1e5",
    "[1]",
    "{}",
    "0x1",
    "%_*?",
]


def at(folder: Path) -> SqliteStorage:
    return SqliteStorage(str(folder / "x.db"), CONTEXT, offload=Inline)


@pytest.mark.parametrize("text", TEXTS)
async def test_any_text_comes_back(tmp_path: Path, text: str) -> None:
    async with at(tmp_path) as storage:
        new = Registration(
            user=f"u{text}",
            binding=f"b{text}",
            app=f"a{text}",
            address=Address(f"v{text}", kind=text, group=text, identity=f"i{text}"),
            platform=text,
            tags=(text or "a tag", "other"),
            expires_at=T0 + 0.1 + 0.2,
        )
        (entered,) = await storage.register([new], T0 + 0.1)
        assert await storage.get_endpoint(new.app, entered.id) == entered
        assert await storage.list_endpoints(EndpointFilter(app=new.app, user=new.user, tag=text or "a tag")) == [
            entered
        ]
        (row,) = await storage.resolve(array("q", [entered.id]), 0.0)
        assert (row.address, row.kind, row.group) == (new.address.value, text, text)
        sub = replace(
            submission(Target("topic", (text or "other",)), app=new.app), content=text.encode(), collapse_key=f"c{text}"
        )
        (put,) = await storage.put([sub], T0)
        assert put.total is None
        stored = await storage.notification(sub.id)
        assert stored is not None
        assert stored.content == text.encode()


@pytest.mark.parametrize(
    "change",
    [
        {"user": "\ud800"},
        {"user": "a\x00b"},
        {"tags": ("",)},
        {"app": "\ud800"},
        {"binding": "\ud800"},
        {"tags": ("\ud800",)},
    ],
)
async def test_what_is_no_text_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Where the registration is made, so that storage never sees it."""
    async with at(tmp_path) as storage:
        with pytest.raises(UsageError, match="must be a text"):
            await storage.register([device("bob", "2"), replace(device("alice", "1"), **change)], T0)
        assert await storage.list_endpoints(EndpointFilter(state=None)) == []


async def test_numbers_beyond_reason_are_refused(tmp_path: Path) -> None:
    async with at(tmp_path) as storage:
        with pytest.raises(UsageError, match="cannot be stored"):
            await storage.get_endpoint("default", 2**70)
        with pytest.raises(UsageError, match="whole number"):
            await storage.put([submission(Target.endpoints([2**70]))], T0)
        with pytest.raises(StorageError, match="NOT NULL"):
            await storage.put([replace(submission(), due_at=float("nan"))], T0)


async def test_no_message_shows_an_address(tmp_path: Path) -> None:
    async with at(tmp_path) as storage:
        secret = "token-canary"
        (entered,) = await storage.register([device("alice", "canary")], T0)
        assert storage._database is not None
        for statement in (
            "INSERT INTO endpoint SELECT * FROM endpoint",
            "INSERT INTO endpoint SELECT id + 1, app, binding, usr, digest, kind, grp, platform, tags, generation, "
            "registered_at, expires_at, state, state_at, reason, address, identity FROM endpoint",
        ):
            with pytest.raises(StorageError) as caught:
                await storage._do(Operation(partial(Db.run, sql=statement), write=True))
            assert secret not in str(caught.value)
            assert secret not in repr(caught.value.__cause__)
        assert secret not in repr(entered)
        assert secret not in repr(device("alice", "canary"))
        assert secret not in repr(submission(Target("addresses", binding="apns", addresses=(entered.address,))))
