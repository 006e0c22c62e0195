"""That a seed is a run: the same in every interpreter and after any other, and replayed by the command that a failure
prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from fanout_kit.simulation import BUGS, draw, simulate
from fanout_kit.simulation.__main__ import main

pytestmark = pytest.mark.timeout(600)

SEEDS = (3, 14)
DIGESTS = (
    "import sys; from fanout_kit.simulation import simulate; print([simulate(int(s)).digest for s in sys.argv[1:]])"
)


def fresh(hash_seed: str, *seeds: int) -> list[str]:
    """The traces' hashes, made by an interpreter of their own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DIGESTS, *map(str, seeds)],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return re.findall(r"[0-9a-f]{32}", done.stdout)


def test_a_seed_is_the_same_run_in_another_interpreter() -> None:
    assert fresh("4711", SEEDS[0]) == [simulate(SEEDS[0], keep=True).digest]


@pytest.mark.long("one seed is run in one other interpreter")
def test_a_seed_is_the_same_run_in_every_interpreter() -> None:
    first = fresh("0", *SEEDS)
    assert len(set(first)) == len(SEEDS)
    assert fresh("1", *SEEDS) == first
    assert fresh("4711", *reversed(SEEDS)) == first[::-1]
    assert [simulate(seed, keep=True).digest for seed in SEEDS] == first


def test_every_seed_is_another_plan_and_every_kind_of_step_occurs() -> None:
    plans = [draw(seed) for seed in range(200)]
    assert len({plan.spelt() for plan in plans}) == 200
    kinds = {step.what for plan in plans for step in plan.steps}
    assert kinds >= {
        "send",
        "cancel",
        "pause",
        "resume",
        "pause_binding",
        "takeover",
        "remove",
        "erase",
        "die",
        "refresh",
    }
    assert kinds >= {"crash", "freeze", "restart", "jump", "full", "outage", "swallow", "nameless", "hang", "partition"}
    assert kinds >= {"power", "goaway", "shrink", "storm"}


def test_the_printed_command_replays_the_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "0..20", "--bug", "lose-retry"]) == 1
    said = capsys.readouterr().out
    command = re.search(r"replay: python -m fanout_kit\.simulation (.*)", said)
    assert command is not None
    verdict = re.search(r"seed \d+: .*", said)
    assert verdict is not None
    assert main(command.group(1).split()) == 1
    replayed = capsys.readouterr().out
    assert verdict.group() in replayed
    assert re.search(r"^ +\d+\.\d+ w\d\.\d +send ", replayed, re.MULTILINE), "no readable trace"
    assert "policy: " in replayed


def test_the_command_says_what_is_wrong_with_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--seeds", "9..1"], ["--seeds", "x"], ["--seeds", "0..1", "--trace"], []):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    assert main(["--bugs"]) == 0
    assert all(name in capsys.readouterr().out for name in [next(iter(BUGS))])


def test_a_bug_is_taken_out_again() -> None:
    for bug in BUGS.values():
        with bug.planted():
            pass
    assert simulate(SEEDS[0]).digest == fresh("0", SEEDS[0])[0]
