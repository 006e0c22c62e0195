"""Poison: which delivery kills its worker, found by halving, without harm to its neighbours.

A crash tells only that something under way may be to blame. So nothing is suspected before a chunk has been in a
worker's hands at two crashes; from then on it is sent in groups, each marked durably before it is sent, and a crash
implicates the marked deliveries:

    crash of a chunk          what follows
    ------------------------  -------------------------------------------------------------------
    first                     nothing
    second                    sent in two halves, each marked first
    between two groups        nothing: none was marked
    with a group marked       the group moves to a chunk of its own, to be sent in halves of it
    with one marked alone     counted; at the third such crash it ends as (dead, poison)

A crash is a killed process. A graceful stop is none: it gives its leases back.
"""

from __future__ import annotations

from dataclasses import dataclass

from fanout.core.statemap import MARKED, count_open

__all__ = ["POISON", "AfterCrash", "after_crash"]

POISON = ("dead", "poison")
"""How a delivery ends that was alone in its group at three crashes."""

_SUSPECTED_AT = 2
_DEAD_AT = 3


@dataclass(frozen=True, slots=True)
class AfterCrash:
    """The fate of a chunk whose worker was lost. `crashes` and `part` are those of the deliveries that remain in it.

    The positions `moved` go to a chunk of their own, with `moved_crashes` and `moved_part`; `dead` end as `POISON`.
    `part` is how many deliveries may be under way together, 0 for all.
    """

    crashes: int
    part: int
    moved: tuple[int, ...] = ()
    moved_crashes: int = 0
    moved_part: int = 0
    dead: tuple[int, ...] = ()


def after_crash(states: bytes, crashes: int, part: int) -> AfterCrash:
    """The consequence of a crash of the worker that held the chunk with the map `states`. Pure.

    `crashes` counts the earlier ones: while the chunk is sent as a whole (`part` 0), those of the chunk; in a chunk
    that is one suspected delivery, those at which it was marked.
    """
    if part == 0:
        if crashes + 1 < _SUSPECTED_AT:
            return AfterCrash(crashes + 1, 0)
        return AfterCrash(0, _half(count_open(states)))
    marked = tuple(position for position, state in enumerate(states) if state == MARKED)
    if not marked:
        return AfterCrash(crashes, part)
    if len(marked) > 1:
        return AfterCrash(crashes, part, marked, 0, _half(len(marked)))
    alone = crashes + 1 if len(states) == 1 else 1
    if alone >= _DEAD_AT:
        return AfterCrash(crashes, part, dead=marked)
    return AfterCrash(crashes, part, marked, alone, 1)


def _half(count: int) -> int:
    return max(1, (count + 1) // 2)
