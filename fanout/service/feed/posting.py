"""From a post or a change to the submissions of one put: every part with its audience, and the feed write on the
first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Unpack

import orjson

from fanout.core.codec import digest, encode
from fanout.core.compact import compact
from fanout.core.feed import Audience, FeedBulk, FeedChange, FeedPost, Receive
from fanout.core.ids import notification_id
from fanout.core.model import LANES, Notification, Target
from fanout.core.records import Submission
from fanout.engine import Engine
from fanout.engine.intake import Asked, Request
from fanout.engine.randomness import fork_safe_random
from fanout.errors import MessageTooLarge, UsageError
from fanout.service.feed.errors import FeedError
from fanout.service.feed.plan import (
    SIGNAL_TTL,
    Fallback,
    NewItem,
    Platforms,
    PushPart,
    burst_key,
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

PUSH: frozenset[Receive] = frozenset(("push",))
SIGNAL: frozenset[Receive] = frozenset(("signal",))
BOTH = PUSH | SIGNAL
NOBODY = Audience(platforms=frozenset())
_LANE = LANES.index("normal")
_WEB = frozenset(("webpush",))
_IOS = frozenset(("ios",))
_SIGNAL_CONTENT = encode(signal())
_SLACK = 300.0
_UNFIT = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
_draw = fork_safe_random().randbytes
"""For ids, which are no secrets."""


def feed_post(item: NewItem, fallback: Fallback | None, settings: FeedSettings, now: float) -> FeedPost:
    """The item that enters the feed.

    Raises `UsageError` for a wrong item: content that is no JSON, a time that has passed or is too far away; and
    `FeedError` 413 for content that is too large.
    """
    try:
        # Sorted, so that the same post is known again in every order in which its sender's language keeps keys.
        content = compact(orjson.dumps(dict(item.content), option=orjson.OPT_SORT_KEYS))
    except TypeError as error:
        raise UsageError(f"The item's content must be plain JSON: {error}.") from None
    if len(content) > settings.content_bytes:
        raise FeedError(
            413,
            "content",
            f"The item's content has {len(content):,} bytes as JSON; at most {settings.content_bytes:,} are stored.",
        )
    expires_at = now + settings.expiry if item.expires_at is None else item.expires_at
    if not now < expires_at <= now + settings.longest_expiry + _SLACK:
        raise UsageError(
            f"expires_at must lie in the future, and at most {settings.longest_expiry / 86_400:g} days away."
        )
    if item.external_id is not None:
        _check_external(item.external_id)
    return FeedPost(
        content=content,
        expires_at=min(expires_at, now + settings.longest_expiry),
        external_id=item.external_id,
        group=item.group,
        priority=item.priority,
        display_until=None if item.display_ttl is None else now + item.display_ttl,
        fallback_at=None if fallback is None else now + fallback.delay,
    )


def _check_external(id: str) -> None:
    """Raise `UsageError` for a sender's id by which no client could read the item back."""
    if not 0 < len(id) <= 512:
        raise UsageError("external_id has 1 to 512 characters; leave it out if the sender has no id of its own.")
    if _UNFIT.search(id):
        raise UsageError(
            "external_id (appNotificationId) has a control character or a line separator: such an id cannot stand in a path. Take it out."
        )
    if id == "events" or {".", ".."} & set(id.split("/")):
        # RFC 3986, section 5.2.4: clients and proxies remove dot segments.
        raise UsageError(
            'external_id (appNotificationId) is no "events", and no part of it between "/" is "." or "..": use another id.'
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
    """The requests of a post, the first of which carries the item. Raises the exceptions of `Engine.request`."""
    requests: list[Request] = []
    due_at = now if at is None else max(at, now)
    for number, part in enumerate(parts):
        first = number == 0
        notification = with_feed(part.notification) if post is not None else part.notification
        key = idempotency_key if first else None
        request = _request(
            engine,
            notification,
            target,
            app=app,
            at=at,
            idempotency_key=key,
            shorten=post is not None,
            collapse_key=part_key(part.collapse_key or notification.collapse_key, number),
            audience=platforms.audience(part.platforms, PUSH, inverse=part.inverse),
            optional=not first,
            feed=post if first else None,
            follows=not first,
        )
        ttl = min(part.notification.ttl or SIGNAL_TTL, SIGNAL_TTL)
        if request is None:
            # It does not fit into a push: every device gets a signal to fetch it.
            chosen = platforms.audience(part.platforms, BOTH, inverse=part.inverse)
            requests.append(
                _signal(app, target, chosen, now, due_at, ttl, key=key, feed=post if first else None, follows=not first)
            )
            continue
        requests.append(Request(request.submission, request.refusals))
        chosen = platforms.audience(part.platforms, SIGNAL, inverse=part.inverse)
        requests.append(_signal(app, target, chosen, now, due_at, ttl, optional=True, follows=True))
    if not parts:
        # With a key it is stored, though it has no recipient: the key has to be remembered.
        alone = idempotency_key is None
        requests.append(
            _signal(app, target, NOBODY, now, now, SIGNAL_TTL, key=idempotency_key, feed=post, optional=alone)
        )
    if fallback is not None:
        requests.append(_fallback(engine, platforms, app, target, fallback, now))
    return requests if idempotency_key is None else _identified(requests, post)


def _request(
    engine: Engine,
    notification: Notification,
    target: Target,
    *,
    app: str,
    **more: Unpack[Asked],
) -> Request | None:
    """The request, with less text for a gateway that takes no more; None for a request that is too large for one all
    the same."""
    shorten = more.get("shorten", False)
    try:
        request = engine.request(notification, target, app=app, **more)
    except MessageTooLarge:
        if not shorten and notification.visible:
            raise
        return None
    kept = shorten or not notification.visible
    return None if kept and too_large(request.refusals.values()) else request


def _identified(requests: list[Request], post: FeedPost | None) -> list[Request]:
    """The requests, the first with a digest of all that was asked: for its idempotency key stands for all."""
    head = requests[0].submission
    whole = blake2b(digest(b"", head.target, None), digest_size=16)
    for request in requests:
        whole.update(request.submission.digest)
        whole.update(request.submission.content)
    if post is not None:
        whole.update(orjson.dumps([post.content.decode(), post.external_id, post.group, post.priority]))
    return [replace(requests[0], submission=replace(head, digest=whole.digest())), *requests[1:]]


def _signal(
    app: str,
    target: Target,
    audience: Audience,
    now: float,
    due_at: float,
    ttl: float,
    *,
    key: str | None = None,
    writer: str = "",
    feed: FeedPost | FeedChange | None = None,
    follows: bool = False,
    optional: bool = False,
) -> Request:
    """A submission that fits into every gateway's message: it is not prepared beforehand."""
    return Request(
        Submission(
            id=notification_id(now, _draw(10)),
            app=app,
            target=target,
            content=_SIGNAL_CONTENT,
            lane=_LANE,
            repeat="prefer_delivery",
            accepted_at=now,
            due_at=due_at,
            expires_at=due_at + ttl,
            collapse_key=signal_key(audience, writer),
            idempotency_key=key,
            feed=feed,
            follows=follows,
            audience=audience,
            optional=optional,
        ),
        {},
    )


def _fallback(
    engine: Engine, platforms: Platforms, app: str, target: Target, fallback: Fallback, now: float
) -> Request:
    """A visible notification at its time, for the devices that have not fetched the item by then."""
    if target.kind != "user":
        raise UsageError("A fallback goes with a post to one user: leave it out, or post to each user.")
    shown = with_feed(Notification(title=fallback.title, body=fallback.body, lane="urgent"))
    request = engine.request(
        shown,
        target,
        app=app,
        at=now + fallback.delay,
        shorten=True,
        audience=platforms.audience(_IOS, BOTH, unseen=True),
        optional=True,
        follows=True,
    )
    return Request(request.submission, request.refusals)


def change_requests(
    platforms: Platforms, app: str, user: str, change: FeedChange | FeedBulk, now: float, burst: float = 0.0
) -> list[Request]:
    """The requests of a change: for the devices that take content, and a bare signal for those that do not. Never to
    the web, whose browsers show something for every push.

    A change within `burst` seconds after a first one of the writer's joins it, and is pushed with it as one signal.
    """
    pushed = platforms.audience(_WEB, PUSH, inverse=True)
    said = change_notification(change) if isinstance(change, FeedChange) else signal()
    head = Submission(
        id=notification_id(now, _draw(10)),
        app=app,
        target=Target.user(user),
        content=encode(said),
        lane=_LANE,
        repeat="prefer_delivery",
        accepted_at=now,
        due_at=now,
        expires_at=now + SIGNAL_TTL,
        collapse_key=change_key(change) if isinstance(change, FeedChange) else burst_key(pushed, change.writer),
        feed=change,
        audience=pushed,
        optional=True,
    )
    chosen = platforms.audience(_WEB, SIGNAL, inverse=True)
    signalled = _signal(
        app, head.target, chosen, now, now, SIGNAL_TTL, writer=change.writer, optional=True, follows=True
    ).submission
    return [Request(_gathered(sub, change.writer, burst) if burst else sub, {}) for sub in (head, signalled)]


def _gathered(sub: Submission, writer: str, burst: float) -> Submission:
    assert sub.audience is not None
    return replace(
        sub,
        due_at=sub.due_at + burst,
        expires_at=sub.expires_at + burst,
        collapse_key=burst_key(sub.audience, writer),
        joins=_SIGNAL_CONTENT,
    )
