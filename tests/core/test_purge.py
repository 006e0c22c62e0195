"""The purge guard over every order of verdicts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanout.core.purge import PurgeGuard


@given(st.lists(st.sampled_from("agu"), max_size=600))
def test_it_counts_what_a_window_holds(verdicts: list[str]) -> None:
    guard = PurgeGuard(window=40, share=0.5, minimum=10, wave=20)
    seen: list[str] = []
    stopped = False
    for verdict in verdicts:
        seen = [*seen, verdict][-40:]
        if verdict == "a":
            guard.saw_alive()
            believed = True
        else:
            believed = guard.saw_death() if verdict == "g" else guard.saw_uncertain_death()
        deaths = len(seen) - seen.count("a")
        if len(seen) >= 20 and deaths > 0.5 * len(seen):
            stopped = True
        elif deaths <= 0.25 * len(seen):
            stopped = False
        tripped = len(seen) >= 10 and seen.count("u") > 0.5 * len(seen)
        assert (guard.stopped, guard.tripped) == (stopped, tripped)
        if verdict == "g":
            assert believed == (not stopped)
        elif verdict == "u":
            assert believed == (not stopped and not tripped)


def test_a_wave_of_certain_deaths_stops_removals_until_somebody_looked() -> None:
    guard = PurgeGuard()
    removed = sum(guard.saw_death() for _ in range(1000))

    assert removed == 49
    assert guard.stopped
    guard.reset()
    assert guard.saw_death()


def test_the_usual_share_of_dead_tokens_is_removed() -> None:
    guard = PurgeGuard()
    for _ in range(1000):
        guard.saw_alive(9)
        assert guard.saw_death()
