"""Credentials that are replaced while the program runs, and the bounds of `[backlog]`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fanout.config.binding import read_secret
from fanout.config.renew import renewed
from fanout.core.policy import BacklogLimits
from fanout.core.records import Backlog
from fanout.core.secret import Secret
from fanout.errors import ConfigurationError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    team: str = "T"
    key: Secret


def test_a_secret_from_a_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "key.p8"
    file.write_text("old\n")
    settings = Keys(key=read_secret(file, "key_file"))
    file.write_text("new\n")

    assert renewed(settings) == Keys(key=Secret("new"))
    assert settings.key.reveal() == "old"


def test_a_secret_that_was_written_down_stays() -> None:
    settings = Keys(key=Secret("in the configuration"))

    assert renewed(settings) is settings


def test_an_empty_file_is_no_credential(tmp_path: Path) -> None:
    file = tmp_path / "key.p8"
    file.write_text("old")
    settings = Keys(key=read_secret(file, "key_file"))
    file.write_text("\n")

    with pytest.raises(ConfigurationError, match="is empty"):
        renewed(settings)


@pytest.mark.parametrize(
    ("limits", "backlog", "said"),
    [
        (BacklogLimits(), Backlog(10**9, 10**12, 0.0), ""),
        (BacklogLimits(deliveries=10), Backlog(9), ""),
        (BacklogLimits(deliveries=10), Backlog(10), "10 deliveries wait"),
        (BacklogLimits(bytes=10), Backlog(1, 10), "10 bytes of content wait"),
        (BacklogLimits(age=60), Backlog(1, 1, 941.0), ""),
        (BacklogLimits(age=60), Backlog(1, 1, 940.0), "has waited 60 s"),
        (BacklogLimits(age=60), Backlog(), ""),
    ],
)
def test_the_bounds_of_a_backlog(limits: BacklogLimits, backlog: Backlog, said: str) -> None:
    assert said in limits.passed(backlog, 1000.0)
    assert bool(limits.passed(backlog, 1000.0)) == bool(said)


@pytest.mark.parametrize("bad", [{"deliveries": 0}, {"bytes": -1}, {"age": 0.0}, {"wait": -1.0}])
def test_bounds_that_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        BacklogLimits(**bad)  # type: ignore[arg-type]
