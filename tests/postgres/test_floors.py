"""From where on due chunks are looked for, as an old transaction makes the looks slow."""

from __future__ import annotations

from fanout.storage.postgres.floors import BEGINNING, Floors

NOW = 1_800_000_000.0


def test_quick_looks_always_begin_at_the_beginning() -> None:
    floors = Floors()
    for clock in range(10):
        assert floors.floor(1, 0, NOW, clock) == BEGINNING
        floors.looked(1, 0, clock, 0.001)


def test_after_three_slow_ones_most_begin_a_minute_ago_and_some_at_the_beginning() -> None:
    floors = Floors()
    for clock in (0.0, 1.0, 2.0):
        assert floors.floor(1, 0, NOW, clock) == BEGINNING, "one or two may have other reasons"
        floors.looked(1, 0, clock, 0.1)
    assert floors.floor(1, 0, NOW, 2.1) == NOW - 60
    assert floors.floor(1, 1, NOW, 2.1) == BEGINNING, "another lane is another index"
    assert floors.floor(1, 0, NOW, 6.9) == NOW - 60
    assert floors.floor(1, 0, NOW, 7.0) == BEGINNING, (
        "what is older is not forgotten: a look takes a fiftieth of the time"
    )
    floors.looked(1, 0, 7.1, 0.1)
    assert floors.floor(1, 0, NOW, 7.2) == NOW - 60
    floors.looked(1, 0, 13.0, 0.001)
    assert floors.floor(1, 0, NOW, 13.1) == BEGINNING, "and when looks are quick again, all of them are whole"
