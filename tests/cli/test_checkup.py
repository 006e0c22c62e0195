"""A worker examines its bindings beside its work, and says what it finds in the log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from fanout.cli.checkup import check_up
from fanout.plugin import Diagnosis

pytestmark = pytest.mark.anyio


class Engine:
    def __init__(self, found: dict[str, Diagnosis] | Exception) -> None:
        self.found = found

    async def check(self) -> dict[str, Diagnosis]:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fanout.cli.checkup._AFTER", 0.0)


async def test_problems_and_warnings_are_logged_and_what_is_well_is_not(caplog: pytest.LogCaptureFixture) -> None:
    found = {
        "shop/apns": Diagnosis("Apple does not accept the token."),
        "shop/fcm": Diagnosis(detail="well", warning="It ends in 3 days."),
        "shop/wns": Diagnosis(detail="well"),
    }
    engine: Any = Engine(found)
    with caplog.at_level(logging.INFO, "fanout.doctor"):
        await check_up(engine)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "shop/apns: Apple does not accept the token."),
        ("WARNING", "shop/fcm: It ends in 3 days."),
    ]


async def test_a_failure_of_the_examination_stops_nothing_and_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    engine: Any = Engine(RuntimeError("the-secret-itself"))
    await check_up(engine)
    assert "RuntimeError" in caplog.text
    assert "the-secret-itself" not in caplog.text


def test_a_worker_does_it_and_ends_while_it_waits(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`work` without --drain, ended from within: the examination has been made, and a hanging one holds up nothing."""
    asked: list[str] = []

    async def check(self: Any) -> dict[str, Diagnosis]:
        asked.append("check")
        await asyncio.Event().wait()
        raise AssertionError

    async def until_asked(engine: Any) -> int:
        while not asked:
            await asyncio.sleep(0.001)
        return 0

    monkeypatch.setattr("fanout.engine.Engine.check", check)
    monkeypatch.setattr("fanout.cli.work._failed", until_asked)
    assert shell("work").code == 0
    assert asked == ["check"]
