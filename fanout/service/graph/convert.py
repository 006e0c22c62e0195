"""The item, the pushes and the answer that a posted notification leads to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any
from urllib.parse import quote

import orjson

from fanout.core.compact import compact
from fanout.core.feed import FeedItem, Priority
from fanout.core.model import Lane, Notification
from fanout.errors import UsageError
from fanout.service.feed import Fallback, NewItem, PushPart
from fanout.service.graph.resource import GraphNotification

__all__ = ["DEFAULT_EXPIRY", "LONGEST_EXPIRY", "Plan", "convert", "resource"]

DEFAULT_EXPIRY = 7 * 86_400.0
LONGEST_EXPIRY = 30 * 86_400.0
"""Seconds for which a notification is stored."""

_SKEW = 300.0
"""Seconds by which the sender's clock may be ahead when it asks for the longest time."""
_LANES: dict[Priority, Lane] = {"high": "urgent", "none": "normal", "low": "bulk"}
"""A raw notification's priority. The lane makes FCM's priority and Web Push's urgency; APNs takes 5 for every
background push."""
_KEY_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of a post: the item of the feed, the pushes by platform, and the alert of iOS where a push is not
    heard."""

    item: NewItem
    parts: tuple[PushPart, ...]
    fallback: Fallback | None


def convert(posted: GraphNotification, now: float) -> Plan:
    """The plan at `now` (UNIX seconds). Raises `UsageError` for an expiry in the past or too far away.

    A raw notification goes to every chosen platform as data. A visual one goes, in the form that the platform shows
    by itself and always with high priority, to all but web browsers, which get nothing of it; where there is raw
    content too, the web gets that, and the others find it in the data of the visual one.
    """
    raw, visual = posted.payload.rawContent, posted.payload.visualContent
    priority: Priority = (posted.priority or "None").lower()  # type: ignore[assignment]
    expires_at = _expiry(posted.expirationDateTime, now)
    ttl = expires_at - now
    if posted.displayTimeToLive is not None:
        # An item that is not shown any longer is not worth a push: the device finds it in the feed.
        ttl = min(ttl, float(posted.displayTimeToLive))
    data = {} if raw is None else {"rawContent": raw}
    chosen = None
    if posted.targetPolicy is not None and posted.targetPolicy.platformTypes is not None:
        chosen = frozenset(name.lower() for name in posted.targetPolicy.platformTypes)
    key = None if posted.appNotificationId is None else _collapse_key(posted.appNotificationId)
    parts: list[PushPart] = []
    if visual is not None:
        shown = Notification(
            title=visual.title,
            body=visual.body,
            data=data,
            thread=posted.groupName or None,
            ttl=ttl,
            lane="urgent",
            collapse_key=key,
        )
        _add(parts, shown, chosen, without_web=True)
    if raw is not None:
        silent = Notification(data=data, ttl=ttl, lane=_LANES[priority])
        _add(parts, silent, chosen if visual is None else (chosen or _ALL) & _WEB, without_web=False, key=key)
    content: dict[str, Any] = dict(data)
    if visual is not None:
        content |= {"title": visual.title} | ({} if visual.body is None else {"body": visual.body})
    item = NewItem(
        content=content,
        external_id=posted.appNotificationId,
        expires_at=expires_at,
        display_ttl=None if posted.displayTimeToLive is None else float(posted.displayTimeToLive),
        group=posted.groupName,
        priority=priority,
    )
    return Plan(item, tuple(parts), _fallback(posted))


_ALL = frozenset(("windows", "ios", "android", "webpush"))
_WEB = frozenset(("webpush",))


def _add(
    parts: list[PushPart],
    notification: Notification,
    platforms: frozenset[str] | None,
    *,
    without_web: bool,
    key: str | None = None,
) -> None:
    left = _WEB if platforms is None and without_web else platforms
    if platforms is not None and without_web:
        left = platforms - _WEB
    if left is None or left:
        inverse = platforms is None and without_web
        parts.append(PushPart(notification=notification, platforms=left, inverse=inverse, collapse_key=key))


def _fallback(posted: GraphNotification) -> Fallback | None:
    if posted.fallbackPolicy is None:
        return None
    wanted = posted.fallbackPolicy.endpointFallback
    return Fallback(
        delay=float(wanted.fallbackDelayInSeconds),
        title=wanted.visualContent.title,
        body=wanted.visualContent.body,
    )


def _expiry(text: str | None, now: float) -> float:
    if text is None:
        return now + DEFAULT_EXPIRY
    try:
        moment = datetime.fromisoformat(text)
        at = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise UsageError("expirationDateTime is no time: write it as 2030-01-31T23:59:00Z.") from None
    if at <= now:
        raise UsageError("expirationDateTime has passed: write a time to come.")
    if at > now + LONGEST_EXPIRY + _SKEW:
        raise UsageError("expirationDateTime is more than 30 days away: notifications are stored for 30 days at most.")
    return min(at, now + LONGEST_EXPIRY)


def _collapse_key(external_id: str) -> str:
    """The sender's id where it is short, else a hash of it: a notification that is replaced is replaced on the device
    too."""
    data = external_id.encode()
    return external_id if len(data) <= _KEY_LIMIT else blake2b(data, digest_size=24).hexdigest()


def first_form(posted: NewItem, id: str, tombstone: FeedItem | None, now: float) -> FeedItem:
    """The item as its post made it, for an item that has been deleted or has expired since."""
    return FeedItem(
        id=id,
        number=0,
        seq=0,
        external_id=posted.external_id,
        group=posted.group,
        priority=posted.priority,
        content=compact(orjson.dumps(dict(posted.content))),
        created_at=now if tombstone is None else tombstone.created_at,
        modified_at=None,
        expires_at=(posted.expires_at or now) if tombstone is None else tombstone.expires_at,
        display_until=None if posted.display_ttl is None else now + posted.display_ttl,
        fallback_at=None,
    )


def resource(item: FeedItem, *, user: str, root: str, now: float) -> dict[str, Any]:
    """How a stored notification is answered. `root` is the URL that the client knows the service by, with the version's
    path."""
    content = orjson.loads(item.content)
    visual = {name: content[name] for name in ("title", "body") if name in content}
    name = quote(user.replace("'", "''"), safe="")
    left = None if item.display_until is None else max(0, int(item.display_until - now))
    return {
        "@odata.context": f"{root}/$metadata#users('{name}')/notifications/$entity",
        "displayTimeToLive": left,
        "expirationDateTime": _iso(item.expires_at),
        "groupName": item.group,
        "id": item.id,
        "appNotificationId": item.external_id,
        "priority": item.priority.capitalize(),
        "payload": {"visualContent": visual} if visual else {},
    }


def _iso(moment: float) -> str:
    """UTC with milliseconds, as Graph writes it."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
