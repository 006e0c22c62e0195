"""From a post or a change to the submissions of one put: every part with its audience, and the feed write on the first."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import orjson

from fanout.core.codec import digest, encode
from fanout.core.feed import Audience, FeedChange, FeedPost, Receive
from fanout.core.ids import notification_id
from fanout.core.model import LANES, Notification, Target
from fanout.core.records import Submission
from fanout.engine import Engine
from fanout.engine.intake import Request
from fanout.errors import MessageTooLarge, UsageError
from fanout.service.feed.plan import (
    SIGNAL_TTL,
    Fallback,
    NewItem,
    Platforms,
    PushPart,
    change_key,
    change_notification,
    part_key,
    signal,
    signal_key,
    too_large,
    with_feed,
)
from fanout.service.feed.settings import FeedSettings

__all__ = ["change_requests", "feed_post", "post_requests"]

_PUSH: frozenset[Receive] = frozenset(("push",))
_SIGNAL: frozenset[Receive] = frozenset(("signal",))
_BOTH = _PUSH | _SIGNAL
_WEB = frozenset(("webpush",))
_IOS = frozenset(("ios",))
_SIGNAL_CONTENT = encode(signal())
_SLACK = 300.0


def feed_post(item: NewItem, fallback: Fallback | None, settings: FeedSettings, now: float) -> FeedPost:
    """What enters the feed. Raises `UsageError` for what cannot: content that is no JSON, a time that has passed or is too far away."""
    try:
        content = orjson.dumps(dict(item.content))
    except TypeError as error:
        raise UsageError(f"The item's content must be plain JSON: {error}.") from None
    expires_at = now + settings.expiry if item.expires_at is None else item.expires_at
    if not now < expires_at <= now + settings.longest_expiry + _SLACK:
        raise UsageError(
            f"expires_at must lie in the future, and at most {settings.longest_expiry / 86_400:g} days away."
        )
    if item.external_id is not None and not 0 < len(item.external_id) <= 512:
        raise UsageError("external_id has 1 to 512 characters; leave it out if the sender has no id of its own.")
    return FeedPost(
        content=content,
        expires_at=min(expires_at, now + settings.longest_expiry),
        external_id=item.external_id,
        group=item.group,
        priority=item.priority,
        display_until=None if item.display_ttl is None else now + item.display_ttl,
        fallback_at=None if fallback is None else now + fallback.delay,
    )


def post_requests(
    engine: Engine,
    platforms: Platforms,
    app: str,
    target: Target,
    post: FeedPost | None,
    parts: Sequence[PushPart],
    *,
    fallback: Fallback | None,
    idempotency_key: str | None,
    at: float | None,
    now: float,
) -> list[Request]:
    """The requests of a post, the first of which carries the item. Raises what `Engine.request` raises."""
    requests: list[Request] = []
    for number, part in enumerate(parts):
        audience = platforms.audience(part.platforms, _PUSH, inverse=part.inverse)
        notification = with_feed(part.notification) if post is not None else part.notification
        key = idempotency_key if number == 0 else None
        request = _request(engine, notification, target, app=app, at=at, key=key)
        if request is None:
            # It does not fit into a push: everybody is told to come for it.
            first = replace(audience, receive=_BOTH)
            requests.append(_signal(app, target, first, part.notification.ttl, at, now, key))
            continue
        sub = replace(request.submission, collapse_key=part_key(request.submission.collapse_key, number))
        requests.append(replace(request, submission=replace(sub, audience=audience, optional=number > 0)))
        requests.append(
            _signal(
                app, target, replace(audience, receive=_SIGNAL), part.notification.ttl, at, now, None, optional=True
            )
        )
    if not parts:
        nobody = Audience(platforms=frozenset())
        # With a key it is stored, though it is for nobody: the key has to be remembered.
        alone = idempotency_key is None
        requests.append(_signal(app, target, nobody, SIGNAL_TTL, None, now, idempotency_key, optional=alone))
    if fallback is not None:
        requests.append(_fallback(engine, platforms, app, target, fallback, now))
    return _bound(requests, post)


def _request(
    engine: Engine, notification: Notification, target: Target, *, app: str, at: float | None, key: str | None
) -> Request | None:
    """The request, or None for a raw notification that is too large for a gateway. Raises for a visible one."""
    try:
        request = engine.request(notification, target, app=app, at=at, idempotency_key=key)
    except MessageTooLarge:
        if notification.visible:
            raise
        return None
    return None if not notification.visible and too_large(request.refusals.values()) else request


def _bound(requests: list[Request], post: FeedPost | None) -> list[Request]:
    """The parts as one: what follows goes with the first, whose idempotency key stands for all that was asked."""
    head = requests[0].submission
    if head.idempotency_key is not None:
        whole = blake2b(digest(b"", head.target, None), digest_size=16)
        for request in requests:
            whole.update(request.submission.digest)
            whole.update(request.submission.content)
        if post is not None:
            whole.update(orjson.dumps([post.content.decode(), post.external_id, post.group, post.priority]))
        head = replace(head, digest=whole.digest())
    bound = [replace(requests[0], submission=replace(head, feed=post))]
    bound += [replace(request, submission=replace(request.submission, follows=True)) for request in requests[1:]]
    return bound


def _signal(
    app: str,
    target: Target,
    audience: Audience,
    ttl: float,
    at: float | None,
    now: float,
    key: str | None,
    *,
    writer: str = "",
    optional: bool = False,
) -> Request:
    due_at = now if at is None else max(at, now)
    sub = _small(
        app, target, _SIGNAL_CONTENT, due_at, min(ttl or SIGNAL_TTL, SIGNAL_TTL), now, signal_key(audience, writer)
    )
    return Request(replace(sub, audience=audience, optional=optional, idempotency_key=key), {}, {})


def _small(
    app: str, target: Target, content: bytes, due_at: float, ttl: float, now: float, collapse_key: str | None
) -> Submission:
    """A submission of ours that fits into every gateway's message: it is not prepared beforehand."""
    return Submission(
        id=notification_id(now, secrets.token_bytes(10)),
        app=app,
        target=target,
        content=content,
        lane=LANES.index("normal"),
        repeat="prefer_delivery",
        accepted_at=now,
        due_at=due_at,
        expires_at=due_at + ttl,
        collapse_key=collapse_key,
    )


def _fallback(
    engine: Engine, platforms: Platforms, app: str, target: Target, fallback: Fallback, now: float
) -> Request:
    """A visible notification at its time, for the devices that have not fetched the item by then."""
    if target.kind != "user":
        raise UsageError("A fallback goes with a post to one user: leave it out, or post to each user.")
    shown = with_feed(Notification(title=fallback.title, body=fallback.body, lane="urgent"))
    request = engine.request(shown, target, app=app, at=now + fallback.delay)
    audience = platforms.audience(_IOS, _BOTH, unseen=True)
    return replace(request, submission=replace(request.submission, audience=audience, optional=True))


def change_requests(platforms: Platforms, app: str, user: str, change: FeedChange, now: float) -> list[Request]:
    """The requests of a change: for the devices that take content, and a bare signal for those that do not. Never to the web,
    whose browsers show something for every push."""
    target = Target.user(user)
    audience = platforms.audience(_WEB, _PUSH, inverse=True)
    content = encode(change_notification(change))
    head = _small(app, target, content, now, SIGNAL_TTL, now, change_key(change))
    told = _signal(
        app,
        target,
        replace(audience, receive=_SIGNAL),
        SIGNAL_TTL,
        None,
        now,
        None,
        writer=change.writer,
        optional=True,
    )
    return [
        Request(replace(head, feed=change, audience=audience, optional=True), {}, {}),
        replace(told, submission=replace(told.submission, follows=True)),
    ]
