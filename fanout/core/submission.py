"""From the arguments of `send` to the submission that is stored, as far as no transport is asked. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict, Unpack

from fanout.core import given
from fanout.core.codec import digest, encode
from fanout.core.feed import Audience, FeedPost
from fanout.core.ids import notification_id
from fanout.core.model import LANES, Notification, Target
from fanout.core.records import Submission
from fanout.errors import UsageError

__all__ = ["Aimed", "submission_of"]

_IDEMPOTENCY_KEY_LIMIT = 255
_FARTHEST = 366 * 86_400.0


class Aimed(TypedDict, total=False):
    """Fields of a `Submission` that a service sets besides those of its notification."""

    audience: Audience
    optional: bool
    feed: FeedPost | None
    follows: bool


def submission_of(
    notification: Notification,
    target: Target | str,
    *,
    app: str,
    at: float | datetime | None,
    idempotency_key: str | None,
    now: float,
    random: bytes,
    zero_ttl_grace: float,
    collapse_key: str | None = None,
    **aimed: Unpack[Aimed],
) -> Submission:
    """Validate, and stamp with id and times. `random` are ten bytes for the id; `zero_ttl_grace` is the policy's
    (seconds). `collapse_key`: the key in the queue, where it is not the notification's own, which is for the gateway.

    Raises `UsageError` for arguments that can never work.
    """
    if not isinstance(notification, Notification):
        raise UsageError(f"notification is a {type(notification).__name__}: make one by fanout.Notification(title=…).")
    if isinstance(target, str):
        target = Target.parse(target)
    elif not isinstance(target, Target):
        raise UsageError(
            f"target is a {type(target).__name__}: give fanout.Target.users([…]) or a text such as user:alice."
        )
    if idempotency_key is not None:
        given.text("an idempotency key (idempotency_key)", idempotency_key, _IDEMPOTENCY_KEY_LIMIT)
    if notification.collapse_key is not None:
        given.text("collapse_key", notification.collapse_key)
    if at is not None:
        at = given.instant("at", at, now + _FARTHEST, "within a year from now")
    due_at = now if at is None else max(at, now)
    content = encode(notification)
    return Submission(
        id=notification_id(now, random),
        app=app,
        target=target,
        content=content,
        lane=LANES.index(notification.lane),
        repeat=notification.repeat,
        accepted_at=now,
        due_at=due_at,
        expires_at=due_at + (notification.ttl or zero_ttl_grace),
        collapse_key=notification.collapse_key if collapse_key is None else collapse_key,
        idempotency_key=idempotency_key,
        digest=b"" if idempotency_key is None else digest(content, target, at),
        **aimed,
    )
