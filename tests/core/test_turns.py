"""Turns: one piece in each turn of the loop, whoever has work; and nothing of one waits for all of another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from fanout.core.turns import Turns

CALLER: ContextVar[str] = ContextVar("CALLER", default="nobody")


class Loop:
    """Runs what is called soon when it is told to."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[..., object], /, *args: object, context: object = None) -> None:
        assert context is not None
        self.soon.append(lambda: context.run(callback, *args))  # type: ignore[attr-defined]

    def turn(self) -> int:
        """Everything that was called soon before this turn; how much it was."""
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()
        return len(soon)


def work(log: list[str], name: str, pieces: int) -> Callable[[], bool]:
    left = [pieces]

    def piece() -> bool:
        left[0] -= 1
        log.append(name)
        return left[0] > 0

    return piece


def test_a_turn_of_the_loop_has_one_piece_and_each_has_its_turn() -> None:
    loop, log = Loop(), list[str]()
    turns = Turns()
    turns.add(loop, work(log, "reader", 3), reads=True)
    turns.add(loop, work(log, "binding a", 4))
    turns.add(loop, work(log, "binding b", 2))
    assert turns.reading == 1
    while loop.soon:
        before = len(log)
        assert loop.turn() == 1
        assert len(log) == before + 1
    assert log == ["reader", "binding a", "binding b"] * 2 + ["reader", "binding a", "binding a"]
    assert turns.reading == 0


def test_a_piece_that_fails_keeps_its_place_and_stops_no_other() -> None:
    loop, log = Loop(), list[str]()
    turns, failing = Turns(), [True]

    def broken() -> bool:
        log.append("broken")
        if failing[0]:
            failing[0] = False
            raise RuntimeError("as planted")
        return False

    turns.add(loop, broken)
    turns.add(loop, work(log, "other", 2))
    with pytest.raises(RuntimeError, match="as planted"):
        loop.turn()
    while loop.soon:
        loop.turn()
    assert log == ["broken", "other", "broken", "other"]


@pytest.mark.anyio
async def test_one_loop_has_one_line_and_no_context_of_its_callers() -> None:
    loop, seen, done = asyncio.get_running_loop(), list[str](), asyncio.Event()

    def piece() -> bool:
        seen.append(CALLER.get())
        done.set()
        return False

    CALLER.set("a request")
    assert Turns.on(loop) is Turns.on(loop)
    Turns.on(loop).add(loop, piece)
    await done.wait()
    assert seen == ["nobody"]
