"""What is in the inbox and cannot be put, or is to be cancelled: an end with a reason, and nobody else is held up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from fanout.core.model import Target
from fanout.core.records import Submission
from fanout.errors import NotFound, UsageError
from fanout.storage.postgres.store import PostgresStorage
from fanout.testing.storage_kit import T0, device, post, standing, submission
from tests.postgres.conftest import Databases
from tests.postgres.hosts import begin
from tests.postgres.places import Place, keyed, lent

pytestmark = [pytest.mark.anyio, pytest.mark.external]


@pytest.fixture
async def place(databases: Databases, open_storage: Callable[..., PostgresStorage]) -> AsyncIterator[Place]:
    async with lent(databases, open_storage) as found:
        yield found


async def test_what_is_refused_holds_no_other_up(place: Place) -> None:
    first = keyed("k")
    bad, good = keyed("k", body=b'{"title":"another"}'), submission()
    async with begin("asyncpg", place.url) as one, begin("psycopg-async", place.url) as two:
        await one.put(first)
        await two.put(bad)
        await two.put(good)
    broken, unfit = submission(), submission()
    async with begin("asyncpg", place.url) as transaction:
        for sub in (broken, unfit):
            await transaction.put(sub)
        await transaction.sql(f"UPDATE fanout.inbox SET envelope = '{{}}' WHERE uuid = '{broken.id}'")

    def judge(sub: Submission) -> tuple[Submission, dict[str, str]]:
        if sub.id == unfit.id:
            return replace(sub, refused=frozenset({"apns"})), {"apns": "5000 bytes are too many"}
        return sub, {}

    taken = await place.storage.inbox.take(["default"], judge, T0 + 1, limit=100)
    refused = {each.submission.id: each.refused for each in taken if each.refused}
    assert refused.keys() in ({bad.id, broken.id, unfit.id}, {first.id, broken.id, unfit.id})
    (conflict,) = refused.keys() & {bad.id, first.id}
    assert "belongs to" in refused[conflict]
    assert "cannot be read" in refused[broken.id]
    assert refused[unfit.id] == "5000 bytes are too many"
    assert (await standing(place.storage, good.id)).total == 1
    for id, reason in refused.items():
        status = await standing(place.storage, id)
        assert (status.state, status.total, status.finished_at) == ("cancelled", 0, T0 + 1)
        assert status.reasons == {"cancelled": {reason: 0}}
    assert await place.storage.finished(list(refused)) == set(refused)
    events = {event.data["notification"]: event.data["reason"] for event in await place.storage.events()}
    assert events == refused
    assert not await place.due()
    assert await place.storage.cancel("default", broken.id, T0) == 0
    assert await place.storage.prune(T0 + 2, limit=100) == 0
    while await place.storage.prune(T0 + 8 * 86_400, limit=100):
        pass
    assert await place.storage.status(broken.id, T0) is None


async def test_a_put_that_fails_is_told_from_the_rest(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from fanout.storage.postgres import inbox

    subs = [submission() for _ in range(9)]
    async with begin("asyncpg", place.url) as transaction:
        for sub in subs:
            await transaction.put(sub)
    put = inbox.put

    async def failing(db: Any, batch: list[Submission], now: float) -> Any:
        answers = await put(db, batch, now)
        if any(sub.id == subs[4].id for sub in batch):
            await db.value("SELECT 1 / 0")
        return answers

    monkeypatch.setattr(inbox, "put", failing)
    taken = await place.take()
    assert [each.refused for each in taken if each.refused] == ["it cannot be stored (DivisionByZeroError)"]
    assert {row["uuid"] for row in await place.sql("SELECT uuid FROM notification")} == {
        sub.id for sub in subs if sub is not subs[4]
    }


async def test_an_app_that_nobody_serves_waits_until_its_time_is_over(place: Place) -> None:
    strange = submission(app="elsewhere", ttl=60.0)
    async with begin("asyncpg", place.url) as transaction:
        await transaction.put(strange)
    assert not await place.due()
    assert await place.take() == []
    assert (await standing(place.storage, strange.id)).state == "expanding"
    assert await place.storage.inbox.due(["default"], T0 + 60)
    (taken,) = await place.take(now=T0 + 60)
    assert "before a worker" in taken.refused


async def test_it_is_cancelled_before_anybody_took_it(place: Place) -> None:
    sub = submission()
    async with begin("asyncpg", place.url) as transaction:
        await transaction.put(sub)
    assert await place.storage.explain(sub.id, 1) == []
    with pytest.raises(NotFound, match="no worker has taken it yet"):
        await place.storage.pause("default", sub.id, T0)
    assert await place.storage.cancel("default", sub.id, T0 + 1) == 0
    status = await standing(place.storage, sub.id)
    assert (status.state, status.total, status.finished_at) == ("cancelled", 0, T0 + 1)
    assert await place.take() == []
    assert [event.kind for event in await place.storage.events()] == ["notification.finished"]
    with pytest.raises(NotFound):
        await place.storage.cancel("other", submission().id, T0)


async def test_explicit_addresses_are_interned(place: Place) -> None:
    addresses = (device("", "phone").address, device("", "new").address)
    sub = submission(Target("addresses", binding="apns", addresses=addresses))
    with pytest.raises(UsageError, match="Explicit addresses"):
        async with begin("asyncpg", place.url) as transaction:
            await transaction.put(sub)
    async with begin("asyncpg", place.url) as transaction:
        await place.storage.inbox.enqueue(transaction.connection, sub, T0)
        await post(place.storage, submission())
    (taken,) = await place.take()
    assert taken.put.total == 2
