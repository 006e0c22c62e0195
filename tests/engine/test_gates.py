"""What a worker's gate makes of its own answers and of other workers' notes together."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from fanout.core.outcome import Scope
from fanout.core.policy import Policy
from fanout.core.records import GateNote
from fanout.core.settlement import Park
from fanout.core.states import Waiting
from fanout.engine.gates import Gates
from fanout.engine.group import Group
from fanout.engine.live import Live
from fanout.engine.signal import Signal

NOW = 1_800_000_000.0


class Scene:
    """The gates of a binding, and one group."""

    def __init__(self) -> None:
        state: Any = SimpleNamespace(
            app="default",
            binding="push",
            policy=Policy(),
            groups={},
            signal=Signal(),
            settler=SimpleNamespace(wake=lambda: None),
            adjust=lambda group: None,
        )
        self.gates = Gates(state, random.Random(1), Live(), Signal())
        self.group = Group("g", state.policy, self.gates.binding)

    def told(self, now: float, after: float) -> None:
        """An answer closes the binding for so long."""
        self.gates.shut(Park(Scope.BINDING, after, "InvalidProviderToken", Waiting.BREAKER), self.group, "", now)

    def hears(self, now: float, *until: float) -> None:
        """The notes of other workers, as they are now."""
        notes = [GateNote("default", "push", "binding", "", "breaker", "x", each, True, True) for each in until]
        self.gates.follow(notes, now, 0.5)

    def admits(self, now: float) -> bool:
        return self.gates.binding.ready(now)


def test_a_note_that_goes_opens_what_only_it_had_closed() -> None:
    scene = Scene()
    scene.hears(NOW, NOW + 30)
    assert not scene.admits(NOW + 29)
    scene.hears(NOW + 5)
    assert scene.admits(NOW + 5)


@pytest.mark.parametrize("answer_first", [True, False])
def test_a_note_that_goes_leaves_what_an_answer_has_closed(answer_first: bool) -> None:
    scene = Scene()
    if answer_first:
        scene.told(NOW, 10.0)
    scene.hears(NOW, NOW + 30)
    if not answer_first:
        scene.told(NOW, 10.0)
    assert not scene.admits(NOW + 29)
    scene.hears(NOW + 5)
    assert not scene.admits(NOW + 9.9)
    assert scene.admits(NOW + 10)


def test_an_operator_opens_both() -> None:
    scene = Scene()
    scene.told(NOW, 10.0)
    scene.hears(NOW, NOW + 30)
    scene.gates.retry_now(NOW + 1)
    assert scene.admits(NOW + 1)
    scene.hears(NOW + 1, NOW + 30)
    assert not scene.admits(NOW + 2)
    scene.hears(NOW + 2)
    assert scene.admits(NOW + 2)


def test_a_gateway_that_is_away_is_in_the_log_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Its gate closes again with each probe, about once a second."""
    caplog.set_level("WARNING")
    scene = Scene()
    for second in range(121):
        reason = "connect" if second < 120 else "503"
        scene.gates.shut(Park(Scope.BINDING, 0.5, reason, Waiting.GATE), scene.group, "", NOW + second)
        assert scene.gates.binding.admits(NOW + second + 0.75)
    assert [line.rpartition(" ")[2] for line in caplog.messages] == ["connect", "connect", "503"]
