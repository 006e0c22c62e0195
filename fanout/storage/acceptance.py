"""Which submissions of a batch are fresh, which are replays, and which must be refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fanout.core.records import Put, Submission

__all__ = ["MOST", "Keys", "Known", "answer_replays", "check_keys", "gathered", "refused_name"]

MOST = 500
"""Submissions of several callers' puts that are stored together."""
_NAMES = 16
"""Users or endpoints that a gathered submission may name: one that names more takes as long as many others."""


def gathered(submissions: Sequence[Submission], now: float) -> bool:
    """Whether these may be stored together with those of other callers: they can neither be refused, nor conflict, nor
    wait for a lock. Pure."""
    return len(submissions) <= MOST and all(
        sub.idempotency_key is None
        and sub.collapse_key is None
        and sub.feed is None
        and not (sub.follows or sub.refused or sub.optional or sub.joins)
        and sub.due_at <= now
        and sub.target.kind in ("user", "users", "endpoints")
        and len(sub.target.ids if sub.target.kind == "endpoints" else sub.target.names) <= _NAMES
        for sub in submissions
    )


Known = tuple[str, bytes, int | None]
"""(id, digest, total or None while it is to expand) of the notification that holds an idempotency key."""


@dataclass(slots=True)
class Keys:
    """The meaning of idempotency keys: the earlier id and total of each replay (-1 is "of this batch"), the fresh, and
    conflicts' ids."""

    replays: dict[int, tuple[str, int | None]] = field(default_factory=dict)
    fresh: list[int] = field(default_factory=list)
    conflicts: dict[int, str] = field(default_factory=dict)


def check_keys(submissions: Sequence[Submission], apps: Sequence[int], known: Mapping[tuple[int, str], Known]) -> Keys:
    """Sort submissions by their keys into replays, fresh ones and conflicts. The (app, key) in `known` are taken."""
    taken = dict(known)
    keys = Keys()
    for i, sub in enumerate(submissions):
        if sub.idempotency_key is None:
            keys.fresh.append(i)
            continue
        key = (apps[i], sub.idempotency_key)
        earlier = taken.get(key)
        if earlier is None:
            taken[key] = (sub.id, sub.digest, -1)
            keys.fresh.append(i)
        elif earlier[1] == sub.digest:
            keys.replays[i] = (earlier[0], earlier[2])
        else:
            keys.conflicts[i] = earlier[0]
    return keys


def refused_name(sub: Submission, bindings: Mapping[str, int], found: Mapping[int, Sequence[int]]) -> str:
    """The binding for which this submission must be refused, or "". `bindings` are the numbers of those that it had
    refused."""
    names = [name for name in sub.refused if bindings[name] in found]
    if sub.target.kind == "addresses" and sub.target.binding in sub.refused:
        names.append(sub.target.binding)
    return min(names, default="")


def answer_replays(answers: list[Put], replays: Mapping[int, tuple[str, int | None]], *, accepted: bool) -> None:
    """Fill in the answers of replays; where the batch was refused, only of those that were stored earlier."""
    for i, (id, total) in replays.items():
        if accepted:
            if total == -1:
                total = next(answer for answer in answers if answer.id == id and not answer.replayed).total
            answers[i] = Put(id=id, total=total, replayed=True)
        elif total != -1:
            answers[i] = Put(id=id, replayed=True)
