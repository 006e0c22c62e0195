"""What storage writes by number stands in one place: bytes of the state map, lanes, and what ends when a binding can
send again."""

from __future__ import annotations

import re

import pytest

from fanout.core.model import LANES
from fanout.core.statemap import UNSETTLED, count_open
from fanout.storage import lanes
from fanout.storage.decisions import ranges

from .code_lines import of_tree

STORAGE = {path: text for path, text in of_tree().items() if path.startswith("fanout/storage/")}
SCHEMA = re.compile(r"(schema|partitions)\.py$")
"""Released steps of a schema never change."""
RULES = {
    "a byte of the state map": (r"(?i)x'f[d-f]'|\\xf[d-f]|\b25[3-5]\b", r"^$"),
    "a lane of the paused": (r"~ ?lane|lane < 0|lane >= 0", r"storage/lanes\.py$"),
    "a lane in turn": (r"lane >= \d|lane = lane|lane \+ 4|\bWAITS\b", r"storage/(lanes|chunks)\.py$"),
    "all lanes": (r"lane IN \(", r"storage/lanes\.py$"),
    "what ends when a binding can send again": (r"'gate', ?'breaker'|Waiting\.GATE\.value, Waiting\.BREAKER", r"^$"),
}


@pytest.mark.parametrize("what", RULES)
def test_a_number_that_is_stored_has_one_name(what: str) -> None:
    pattern, home = RULES[what]
    found = {
        f"{path}: {line.strip()}"
        for path, text in STORAGE.items()
        if not SCHEMA.search(path) and not re.search(home, path)
        for line in text.splitlines()
        if re.search(pattern, line)
    }
    assert not found


def test_the_lanes_of_the_paused_mirror_those_of_workers() -> None:
    own = list(range(len(LANES)))
    assert eval(lanes.OF_WORKERS.removeprefix("lane IN ")) == tuple(own)
    assert sorted(eval(lanes.OF_WORKERS_OR_PAUSED.removeprefix("lane IN "))) == sorted([*own, *(~lane for lane in own)])
    for lane in own:
        assert not lanes.waits(lane)
        assert lanes.waits(lane + lanes.WAITS)
        # The four places of a row are four: in its lane or in turn, and paused in either.
        assert len({lane, ~lane, lane + lanes.WAITS, ~(lane + lanes.WAITS)} - set(own)) == 3
        assert ~lane < 0
        assert ~(lane + lanes.WAITS) < 0


def test_a_byte_has_ended_for_the_counts_and_for_the_ranges_alike() -> None:
    for byte in range(256):
        assert count_open(bytes((byte,))) == (byte in UNSETTLED) == bool(ranges(bytes((byte,))))
