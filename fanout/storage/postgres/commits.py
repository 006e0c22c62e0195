"""The number of other processes' commits, by the database's count of all commits."""

from __future__ import annotations

__all__ = ["Commits"]


class Commits:
    """The commits of this process by its own count, and others' by the database's count of all.

    The database counts a commit of ours before its answer is here. A look meanwhile cannot tell whether the number has
    that commit. `others` grows wherever there may be one more of others. A commit of ours may be taken for another
    process's, and another process's never for ours.
    """

    __slots__ = ("_least", "_under_way", "others", "own")

    def __init__(self) -> None:
        self.own = 0
        """Commits of this process whose answers are here."""
        self.others = 0
        """How often a look may have found more commits of others than the look before."""
        self._under_way = 0
        self._least = float("-inf")
        """Others had made so many at the last look, or more."""

    def begin(self, *, counts: bool = True) -> None:
        """A commit is about to be sent. `counts`: the database will count it."""
        self._under_way += counts

    def end(self, *, counted: bool, counts: bool = True) -> None:
        """The answer is here (`counted`), or never comes: such a commit is taken for another process's."""
        self._under_way -= counts
        self.own += counted

    def looked(self, number: int, own: int) -> None:
        """The database has counted `number`; `own` is the count of ours from before the question."""
        if number - own > self._least:
            self.others += 1
        self._least = max(self._least, number - self.own - self._under_way)

    def forget(self) -> None:
        """The database is another, with another number."""
        self._least = float("-inf")
