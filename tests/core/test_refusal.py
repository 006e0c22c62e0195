"""Halving a settlement: nothing is lost and nothing happens twice, whatever is refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanout.core.records import EndpointGone, Release, RetryRow, Settlement
from fanout.core.refusal import UNSTORABLE, condemned, halves, joined
from fanout.core.statemap import Codes, apply

SIZE = 12
IDS = [100 + position for position in range(SIZE)]


@st.composite
def settlements(draw: st.DrawFn) -> Settlement:
    made = Settlement(1, 7, attempts=draw(st.integers(0, 3)))
    for position in range(SIZE):
        match draw(st.sampled_from(["open", "accepted", "rejected", "gone", "retry", "mark"])):
            case "accepted":
                made.results.setdefault(("accepted", ""), []).append(position)
            case "rejected":
                made.results.setdefault(("rejected", draw(st.sampled_from(["a", "b"]))), []).append(position)
            case "gone":
                made.results.setdefault(("gone", "gone"), []).append(position)
                made.changes.append(EndpointGone(IDS[position], 1, 0.0, "gone"))
            case "retry":
                made.retries.append(RetryRow(position, 5.0, 2, "backoff", "busy"))
            case "mark":
                made.marks.append(position)
            case _:
                pass
    if draw(st.booleans()):
        made.release = Release(9.0, "gate", "shut")
    return made


def refused(settlement: Settlement, bad: set[int]) -> bool:
    """As a database would that cannot hold what belongs to these positions, except that they are dead for being so."""
    guilty = {
        position
        for (state, reason), positions in settlement.results.items()
        for position in positions
        if (state, reason) != ("dead", UNSTORABLE)
    }
    guilty.update(row.position for row in settlement.retries)
    guilty.update(settlement.marks)
    guilty.update(IDS.index(change.endpoint) for change in settlement.changes)
    if settlement.release is not None and settlement.release.reason and -1 in bad:
        return True
    return bool(guilty & bad)


def store(settlement: Settlement, bad: set[int], states: bytes, codes: Codes) -> tuple[bytes, list[Settlement]]:
    """The way of the settler, on a chunk without a database."""
    if not refused(settlement, bad):
        return apply(states, settlement, codes).states, [settlement]
    parts = halves(settlement, IDS)
    if parts is None:
        instead = condemned(settlement)
        assert instead is not None
        return store(instead, bad, states, codes)
    done: list[Settlement] = []
    for part in parts:
        states, more = store(part, bad, states, codes)
        done += more
    return states, done


@given(settlements(), st.sets(st.integers(-1, SIZE - 1)))
def test_only_what_is_refused_ends_as_dead(settlement: Settlement, bad: set[int]) -> None:
    whole = apply(bytes(SIZE), settlement, Codes())
    codes = Codes()
    states, done = store(settlement, bad, bytes(SIZE), codes)
    touched = {p for positions in settlement.results.values() for p in positions}
    touched |= {row.position for row in settlement.retries} | set(settlement.marks)
    for position in range(SIZE):
        if position in bad and position in touched:
            assert codes.pair(states[position]) == ("dead", UNSTORABLE)
        else:
            assert (states[position] in (0, 253, 255)) == (whole.states[position] in (0, 253, 255))
    told = joined(done)
    assert told.attempts == settlement.attempts
    assert (told.release is None) == (settlement.release is None)
    assert [change for change in settlement.changes if IDS.index(change.endpoint) not in bad] == told.changes
    assert sorted(row for row in settlement.retries if row.position not in bad) == sorted(told.retries)
    assert all(part.release is None for part in done[:-1]), "the lease ends with the last part"


@given(settlements())
def test_halves_come_to_the_whole(settlement: Settlement) -> None:
    parts = halves(settlement, IDS)
    if parts is None:
        return
    again = joined(parts)
    assert {pair: sorted(positions) for pair, positions in again.results.items()} == {
        pair: sorted(positions) for pair, positions in settlement.results.items()
    }
    assert sorted(again.retries) == sorted(settlement.retries)
    assert again.changes == settlement.changes
    assert (again.attempts, again.release) == (settlement.attempts, settlement.release)


def test_where_nothing_is_left_to_try_it_says_so() -> None:
    dead = Settlement(1, 7, results={("dead", UNSTORABLE): [3]}, attempts=1)
    assert condemned(dead) is None
    assert condemned(Settlement(1, 7)) is None
    assert condemned(Settlement(1, 7, release=Release(1.0, "gate", ""))) is None
