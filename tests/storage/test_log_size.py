"""When the write-ahead log's size is looked at, and when somebody is told."""

from __future__ import annotations

from fanout.storage.sqlite.logsize import LogSize

MB = 2**20


def test_it_is_looked_at_once_a_second() -> None:
    size = LogSize()
    assert [size.due(at) for at in (10.0, 10.5, 10.999, 11.0, 11.5, 14.0, 14.1)] == [
        True, False, False, True, False, True, False,
    ]  # fmt: skip


def test_it_is_told_at_each_doubling_and_anew_after_it_was_small() -> None:
    size = LogSize()
    sizes = (16, 255, 256, 300, 511, 512, 3000, 4095, 4096, 64, 255, 257)
    assert [each for each in sizes if size.grown(each * MB)] == [256, 512, 3000, 4096, 257]
