"""A run: each index is answered once, whatever a transport says and when; ids made together are those made one by
one."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from fanout.core.alike import AlikeRows, written
from fanout.core.delivery import Message
from fanout.core.ids import DeliveryIds
from fanout.core.outcome import Outcome, Rejected
from fanout.core.records import EndpointRow
from fanout.core.run import Run

_IDS = DeliveryIds("01890a5d-ac96-774b-bcce-b302099a8057")


def _run(count: int, taken: list[tuple[list[int], list[int]]]) -> Run:
    def hear(run: Run, accepted: list[int], others: list[tuple[int, Outcome]]) -> None:
        taken.append((accepted, [index for index, _ in others]))

    rows = [EndpointRow(n, f"a{n}", "", "g", 5.0, 1, "active") for n in range(count)]
    return Run(Message(1), _IDS, rows, hear, attempt=2, ttl=60, fresh=True)


_INDEX = st.integers(0, 7)
_STEP = st.one_of(
    st.tuples(st.just("accept"), st.lists(_INDEX, max_size=5)),
    st.tuples(st.just("answer"), _INDEX),
    st.tuples(st.just("give_up"), st.lists(_INDEX, max_size=3)),
    st.tuples(st.just("release"), st.none()),
)


@given(st.lists(_STEP, max_size=20))
def test_each_index_is_handed_over_once_and_nothing_before_the_release(steps: list[tuple[str, object]]) -> None:
    taken: list[tuple[list[int], list[int]]] = []
    run, given_up, said, released = _run(8, taken), set[int](), 0, False
    for name, value in steps:
        if name == "accept":
            run.accept(value)  # type: ignore[arg-type]
            said += len(value)  # type: ignore[arg-type]
        elif name == "answer":
            run.answer(value, Rejected("no"))  # type: ignore[arg-type]
            said += 1
        elif name == "give_up":
            given_up |= set(run.give_up(value))  # type: ignore[arg-type]
        else:
            run.release()
            released = True
        assert released or not taken
    run.release()
    heard = [index for accepted, others in taken for index in (*accepted, *others)]
    assert len(heard) == len(set(heard))
    assert not given_up & set(heard)
    assert run.late == said - len(heard)
    assert set(run.pending()) == set(range(8)) - given_up - set(heard)
    run.give_up(run.pending())
    assert run.ended
    assert all(run.over(index) for index in range(8))


def test_a_part_answers_for_the_run() -> None:
    taken: list[tuple[list[int], list[int]]] = []
    run = _run(6, taken)
    part = run.part([5, 1, 2])
    assert part.addresses == ["a5", "a1", "a2"]
    assert part.delivery(0).id == run.delivery(5).id
    run.give_up([1])
    run.release()
    assert [part.over(index) for index in range(3)] == [False, True, False]
    part.accept([0, 1])
    part.answer(2, Rejected("no"))
    assert taken == [([5], []), ([], [2])]
    assert run.late == 1


def test_a_run_is_what_its_deliveries_are() -> None:
    run = _run(3, [])
    assert len(run) == 3
    assert run.group == "g"
    assert run.addresses == ["a0", "a1", "a2"]
    deliveries = [run.delivery(index) for index in range(3)]
    assert [each.id.encode() for each in deliveries] == run.ids()
    assert {(each.attempt, each.ttl, each.fresh, each.group, each.registered_at) for each in deliveries} == {
        (2, 60, True, "g", 5.0)
    }
    assert "a0" not in repr(run)


@given(st.lists(st.integers(-(2**70), 2**70), max_size=40))
def test_ids_made_together_are_those_made_one_by_one(endpoints: list[int]) -> None:
    assert _IDS.many(endpoints) == [_IDS(endpoint).encode() for endpoint in endpoints]


def test_a_run_of_endpoints_that_are_alike_is_the_same_run() -> None:
    """A transport that changes the list of addresses changes no delivery."""
    alike = AlikeRows(array("q", range(3)), ["a0", "a1", "a2"], "", "g", written("5000,5000,5000", "1,1,1"))
    run, other = _run(3, []), Run(Message(1), _IDS, alike, lambda *_: None, attempt=2, ttl=60, fresh=True)
    other.addresses.reverse()
    assert (other.addresses, other.kinds, other.group) == (run.addresses, run.kinds, run.group)
    assert other.ids() == run.ids()
    for index in range(3):
        mine, its = run.delivery(index), other.delivery(index)
        assert (mine.id, mine.address, mine.registered_at) == (its.id, its.address, its.registered_at)
