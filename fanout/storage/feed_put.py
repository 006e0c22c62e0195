"""A put that writes into the feed: which of its submissions are passed on to the ordinary put, and with which values in
their slots."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fanout.core.cursor import Cursor
from fanout.core.feed import CURSOR_SLOT, ITEM_SLOT, Audience, FeedPost, FeedWritten
from fanout.core.records import Put, Submission

__all__ = ["Parts", "excluding", "pass_on", "posts_of", "problem", "pushes_of", "refused", "with_written"]

_CURSOR = CURSOR_SLOT.encode()
_ITEM = ITEM_SLOT.encode()


@dataclass(slots=True)
class Parts:
    """Of a put with posts: the submissions that are passed on, and where they stood. `fallbacks` are (notification,
    item's number, seq): which item, as it was posted, each scheduled fallback goes with."""

    kept: list[int] = field(default_factory=list)
    passed: list[Submission] = field(default_factory=list)
    fallbacks: list[tuple[str, int, int]] = field(default_factory=list)


def pass_on(
    submissions: Sequence[Submission],
    again: Collection[int],
    written: Mapping[int, FeedWritten],
    identity: int,
    same: Collection[int] = (),
) -> Parts:
    """Each, with the `written` form of its post. Left out are the parts of a post that was stored `again`, and all of a
    post in which nothing is new."""
    parts = Parts()
    head = -1
    for i, sub in enumerate(submissions):
        head = head if sub.follows else i
        if head in same or (sub.follows and head in again):
            continue
        parts.kept.append(i)
        tell = written.get(head)
        parts.passed.append(sub if tell is None else with_written(sub, tell, identity))
        if tell is not None and tell.item is not None and sub.audience is not None and sub.audience.unseen:
            parts.fallbacks.append((sub.id, tell.item.number, tell.seq))
    return parts


def with_written(sub: Submission, written: FeedWritten, identity: int) -> Submission:
    """The submission with its slots filled."""
    cursor = str(Cursor(identity, written.seq)).encode()
    content, joins = [
        text.replace(_CURSOR, cursor).replace(_ITEM, written.id.encode()) for text in (sub.content, sub.joins)
    ]
    same = (content, joins) == (sub.content, sub.joins)
    return sub if same else replace(sub, content=content, joins=joins)


def excluding(sub: Submission, endpoint: int) -> Submission:
    """The submission without the writer's endpoint, 0 for none."""
    return sub if not endpoint else replace(sub, audience=replace(sub.audience or Audience(), exclude=endpoint))


def refused(answers: Sequence[Put]) -> bool:
    """Whether nothing was stored."""
    return any(answer.refused or answer.conflict for answer in answers)


def problem(submissions: Sequence[Submission], written: FeedWritten) -> list[Put] | None:
    """The answers to a change that is not made, or None for one that is."""
    if written.problem:
        return [Put(feed=written), *(Put() for _ in submissions[1:])]
    if not written.changed:
        return [Put(dropped=True, feed=written), *(Put(dropped=True) for _ in submissions[1:])]
    return None


def pushes_of(submissions: Sequence[Submission], heads: Sequence[int]) -> list[list[str]]:
    """The notifications of each of these posts."""
    found: dict[int, list[str]] = {}
    head = -1
    for i, sub in enumerate(submissions):
        head = head if sub.follows else i
        found.setdefault(head, []).append(sub.id)
    return [found[head] for head in heads]


def posts_of(submissions: Sequence[Submission], again: Collection[int]) -> list[int]:
    """Which of them post something that is not there yet."""
    return [i for i, sub in enumerate(submissions) if isinstance(sub.feed, FeedPost) and i not in again]
