"""The conformance suite finds what is broken: storages that name a wrong time to come, or hide what was never
expanded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fanout.core.records import Expired
from fanout.plugin import StorageContext
from fanout.testing.storage import run_check
from tests.oracle.store import ModelStorage

pytestmark = pytest.mark.anyio

TIMES = "waiting_names_the_next_due_time"
RETIMED = "what_we_made_is_retimed"
UNEXPANDED = "what_expires_before_it_is_expanded_says_so"


class KnowsNoTime(ModelStorage):
    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        return (await super().waiting(app, binding, now))[0], None


class LooksEveryMinute(ModelStorage):
    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        ready, later = await super().waiting(app, binding, now)
        return ready, later and min(later, now + 60)


class ForgetsSchedules(ModelStorage):
    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        schedules, self._t.schedules = self._t.schedules, {}
        answer = await super().waiting(app, binding, now)
        self._t.schedules = schedules
        return answer


class SleepsBesideWork(ModelStorage):
    async def waiting(self, app: str, binding: str, now: float) -> tuple[list[bool], float | None]:
        ready, later = await super().waiting(app, binding, now)
        return ready, None if any(ready) else later


class EndsThemInSilence(ModelStorage):
    async def expire(self, now: float, *, limit: int) -> Expired:
        expired = await super().expire(now, limit=limit)
        for note in self._t.notes.values():
            note.unexpanded = False
        return expired


class CountsNone(ModelStorage):
    async def expire(self, now: float, *, limit: int) -> Expired:
        return Expired(await super().expire(now, limit=limit))


class LeavesItAhead(ModelStorage):
    async def retime(self, now: float, *, stepped: bool = False) -> bool:
        return False


class RetimesWishes(ModelStorage):
    async def retime(self, now: float, *, stepped: bool = False) -> bool:
        moved = await super().retime(now, stepped=stepped)
        for note in self._t.unfinished.values():
            note.sub = replace(note.sub, due_at=min(note.sub.due_at, now))
        return moved


class MakesItAllDue(ModelStorage):
    async def retime(self, now: float, *, stepped: bool = False) -> bool:
        for note in self._t.unfinished.values():
            for retry in note.retries.values():
                retry.due_at = min(retry.due_at, retry.since)
        return await super().retime(now, stepped=stepped)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (KnowsNoTime, TIMES),
        (LooksEveryMinute, TIMES),
        (ForgetsSchedules, TIMES),
        (SleepsBesideWork, TIMES),
        (EndsThemInSilence, UNEXPANDED),
        (CountsNone, UNEXPANDED),
        (LeavesItAhead, RETIMED),
        (RetimesWishes, RETIMED),
        (MakesItAllDue, RETIMED),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_a_broken_storage_is_caught(broken: type[ModelStorage], check: str) -> None:
    def make(context: StorageContext) -> ModelStorage:
        return broken("", context)

    with pytest.raises(AssertionError, match=check):
        await run_check(check, make)
