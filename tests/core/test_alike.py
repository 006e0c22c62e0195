"""Endpoints column by column are a sequence of rows like any other."""

from __future__ import annotations

import gc
import weakref
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.alike import AlikeRows, ids_of, joined, written
from fanout.core.records import EndpointRow

PLACES = st.none() | st.integers(-8, 8)


def made(count: int) -> tuple[AlikeRows, list[EndpointRow]]:
    rows = [EndpointRow(7 * n + 3, f"a{n}", "k", "g", n + 0.125, n + 1, "active") for n in range(count)]
    more = written(",".join(str(1000 * n + 125) for n in range(count)), ",".join(str(n + 1) for n in range(count)))
    return AlikeRows(array("q", [row.id for row in rows]), [row.address for row in rows], "k", "g", more), rows


@given(st.integers(0, 7), PLACES, PLACES, st.sampled_from([None, 1, 2, -1, -3]))
def test_any_part_of_any_part_is_that_of_a_list(
    count: int, begin: int | None, end: int | None, step: int | None
) -> None:
    alike, rows = made(count)
    assert [*alike] == rows
    assert len(alike) == count
    part = alike[begin:end:step]
    assert [*part] == rows[begin:end:step]
    assert [*part[1:3]] == rows[begin:end:step][1:3]


@given(st.integers(0, 7), st.integers(-9, 9))
def test_a_place_is_that_of_a_list(count: int, place: int) -> None:
    alike, rows = made(count)
    if -count <= place < count:
        assert alike[place] == rows[place]
    else:
        with pytest.raises(IndexError):
            alike[place]


def test_numbers_are_read_when_one_is_asked_for_and_once() -> None:
    class Text(str):
        reads = 0

        def split(self, *arguments: object) -> list[str]:  # type: ignore[override]
            Text.reads += 1
            return super().split(",")

    more = written(Text("1500,2500"), Text("1,4"))
    assert Text.reads == 0
    assert (more(1), more(0)) == ((2.5, 4), (1.5, 1))
    assert Text.reads == 2


@given(st.lists(st.booleans(), min_size=1, max_size=4), st.integers(1, 7), st.integers(0, 29), st.integers(0, 29))
def test_parts_are_joined_whatever_they_are(as_lists: list[bool], last: int, begin: int, end: int) -> None:
    """A list among them, and a shorter last one."""
    sizes = [7] * (len(as_lists) - 1) + [last]
    parts, rows = zip(*map(made, sizes), strict=True)
    found = joined([own if as_list else part for part, own, as_list in zip(parts, rows, as_lists, strict=True)])
    assert [*found] == [row for own in rows for row in own]
    assert isinstance(found, AlikeRows) is not any(as_lists)
    assert ids_of(found).tolist() == [row.id for row in found]
    every = [*found]
    assert [*found[begin:end]] == every[begin:end]
    assert isinstance(found[:3], AlikeRows) is not as_lists[0]
    assert [*found[::-2]] == every[::-2]
    assert found[-1] == every[-1]


def test_a_slice_keeps_no_address_of_others() -> None:
    """A lease keeps its own chunk's, however long it waits."""

    class Text(str):
        """One that a weak reference may name."""

    parts = [
        AlikeRows(array("q", range(n, n + 2)), [Text(n), Text(n + 1)], "", "", written("1,2", "3,4")) for n in (0, 2)
    ]
    others = [weakref.ref(address) for address in parts[0].addresses]
    kept = joined(parts)[2:]
    del parts
    gc.collect()
    assert [*map(repr, kept)]
    assert [other() for other in others] == [None, None]
