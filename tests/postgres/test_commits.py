"""What others have committed is never missed, wherever the answers to our own commits are meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanout.storage.postgres.commits import Commits

STEPS = st.lists(
    st.sampled_from(["send", "count", "answer", "lose", "other", "ask", "read", "say"]), min_size=100, max_size=200
)


class World:
    """A process with one look at a time, and the database's count. The steps of a commit and of a look come one by one:
    sent, carried out, answered."""

    def __init__(self) -> None:
        self.commits = Commits()
        self.number = self.others = 0
        self.sent = self.counted = 0
        """Commits of ours that are under way, and how many of them the database has counted."""
        self.own: int | None = None
        self.found: tuple[int, int] | None = None
        self.known = -1
        """Others' commits at the last look."""
        self.said = -1

    def send(self) -> None:
        self.commits.begin()
        self.sent += 1

    def count(self) -> None:
        if self.counted < self.sent:
            self.counted += 1
            self.number += 1

    def answer(self) -> None:
        if self.counted:
            self.commits.end(counted=True)
            self.sent -= 1
            self.counted -= 1

    def lose(self) -> None:
        """The process does not learn whether it was counted. It is none of others, and may be taken for one."""
        if self.sent:
            self.commits.end(counted=False)
            self.sent -= 1
            self.counted = min(self.counted, self.sent)

    def other(self) -> None:
        self.number += 1
        self.others += 1

    def ask(self) -> None:
        if self.own is None:
            self.own = self.commits.own

    def read(self) -> None:
        if self.own is not None and self.found is None:
            self.found = self.number, self.others

    def say(self) -> None:
        if self.own is not None and self.found is not None:
            self.commits.looked(self.found[0], self.own)
            others, self.own, self.found = self.found[1], None, None
            if others > self.known:
                assert self.commits.others != self.said, "there are more of others than at the last look"
            self.known, self.said = others, self.commits.others


@given(STEPS)
def test_no_commit_of_others_is_taken_for_one_of_ours(steps: list[str]) -> None:
    world = World()
    for step in steps:
        getattr(world, step)()


@given(st.integers(0, 20), st.integers(1, 20))
def test_a_look_while_nothing_is_under_way_knows_ours(before: int, looks: int) -> None:
    world = World()
    for _ in range(before):
        world.send()
        world.count()
        world.answer()
    for _ in range(looks):
        world.ask()
        world.read()
        world.say()
    assert world.commits.others == 1
