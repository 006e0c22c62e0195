"""A notification and its target as JSON, there and back. The form of a notification that `put` stores and every process
prepares anew."""

from __future__ import annotations

from dataclasses import fields
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import orjson

from fanout.core.compact import compact
from fanout.core.model import LANES, Action, Notification, Target
from fanout.core.records import Submission
from fanout.errors import UsageError

__all__ = ["decode", "decode_envelope", "digest", "encode", "encode_envelope", "json_object"]

_ENVELOPE = ("id", "accepted_at", "expires_at")
_NAMES = tuple(f.name for f in fields(Notification) if f.name not in _ENVELOPE)
_DEFAULTS = tuple(f.default for f in fields(Notification) if f.name not in _ENVELOPE)
_VALUES = attrgetter(*_NAMES)
_NOTHING: tuple[object, ...] = ({}, ())


def encode(notification: Notification) -> bytes:
    """The notification's content as JSON, without the fields that acceptance adds. Raises `UsageError` where `data` is
    not JSON."""
    content = {
        name: value
        for name, default, value in zip(_NAMES, _DEFAULTS, _VALUES(notification))  # noqa: B905 - of one length
        if value is not default and value != default and value not in _NOTHING
    }
    try:
        encoded = compact(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
    except (TypeError, ValueError) as error:
        notification.check_json()
        notification.check_texts()
        raise UsageError(f"data and transports must be plain JSON: {error}.") from None
    if b"null" in encoded:  # perhaps a NaN, which has come into a dict since the notification was made
        notification.check_json()
    return encoded


def decode(content: bytes, *, id: str, accepted_at: float, expires_at: float) -> Notification:
    """The notification that `encode` made into `content`, with the envelope of its acceptance."""
    values = orjson.loads(content)
    if "actions" in values:
        values["actions"] = tuple(Action(**action) for action in values["actions"])
    return Notification(**values, id=id, accepted_at=accepted_at, expires_at=expires_at)


def digest(content: bytes, target: Target, due_at: float | None) -> bytes:
    """16 bytes that identify a request to `send`: the same key with another digest is another request."""
    addresses = [address.digest for address in target.addresses]
    to = orjson.dumps([target.kind, target.names, target.ids, target.binding, addresses, due_at])
    return blake2b(content + b"\0" + to, digest_size=16).digest()


def encode_envelope(submission: Submission) -> str:
    """Lane, repeat policy, collapse key and target of a submission as JSON: the fields outside of its content. Raises
    `UsageError`.

    Explicit addresses are left to the directory: intern them first, and name their ids.
    """
    target = submission.target
    if target.kind == "addresses":
        raise UsageError("Explicit addresses cannot be enqueued: register them, or name their endpoints by id.")
    return orjson.dumps(
        {
            "lane": LANES[submission.lane],
            "repeat": submission.repeat,
            "collapse_key": submission.collapse_key,
            "target": [target.kind, target.ids if target.kind == "endpoints" else target.names],
        }
    ).decode()


def decode_envelope(
    envelope: str,
    content: bytes,
    *,
    id: str,
    app: str,
    accepted_at: float,
    due_at: float,
    expires_at: float,
    idempotency_key: str | None,
    digest: bytes,
) -> Submission:
    """The submission of that envelope, as it was before any transport was asked. Raises `UsageError` for a text that is
    none."""
    try:
        values = orjson.loads(envelope)
        kind, names = values["target"]
        return Submission(
            id=id,
            app=app,
            target=Target(kind, ids=tuple(names)) if kind == "endpoints" else Target(kind, tuple(names)),
            content=content,
            lane=LANES.index(values["lane"]),
            repeat=values["repeat"],
            accepted_at=accepted_at,
            due_at=due_at,
            expires_at=expires_at,
            collapse_key=values["collapse_key"],
            idempotency_key=idempotency_key,
            digest=digest,
        )
    except (ValueError, KeyError, TypeError):
        raise UsageError(
            f"The envelope of {id} cannot be read: it was written by a newer fanout, or by hand. Install the newer one again."
        ) from None


def json_object(text: bytes) -> dict[str, Any]:
    """The JSON object that `text` is; an empty one where it is another value, or no JSON."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
