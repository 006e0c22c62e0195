"""Randomness that no two processes share, even where one is forked from the other: ids are drawn from it."""

from __future__ import annotations

import os
import random
import weakref

__all__ = ["fork_safe_random"]

_sources: weakref.WeakSet[random.Random] = weakref.WeakSet()


def fork_safe_random() -> random.Random:
    """A generator seeded by the system, and seeded anew in every process that is forked: two of them would draw the
    same ids.

    Asking the system for each id lets go of the interpreter, and beside storage's busy thread that is a wait.
    """
    made = random.Random()
    _sources.add(made)
    return made


def _seed_anew() -> None:
    for each in tuple(_sources):
        each.seed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_seed_anew)
