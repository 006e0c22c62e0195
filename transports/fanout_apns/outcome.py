"""The meaning of Apple's answers. Pure: one table from (status, reason) to an outcome, and the transport's further
action.

From Apple's "Handling notification responses from APNs". A reason that is not here is still an answer: see `FALLBACK`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

import orjson

from fanout.plugin import (
    ACCEPTED,
    CERTIFICATE_ALERTS,
    Gone,
    Misconfigured,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
    parse_http_date,
    unanswered,
)

__all__ = [
    "FALLBACK",
    "TABLE",
    "UNCONNECTED",
    "Answer",
    "Effect",
    "Row",
    "by_our_clock",
    "of_answer",
    "of_failure",
    "parse_body",
]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of Apple's. `since` is when the token died (UNIX seconds), `after` the value of `Retry-After`
    (seconds)."""

    status: int
    reason: str = ""
    since: float | None = None
    after: float | None = None

    @property
    def word(self) -> str:
        """The reason, or the status where Apple gave none."""
        return self.reason or f"status {self.status}"


class Effect(StrEnum):
    """The duty of the transport besides returning the outcome."""

    NONE = ""
    RETIRE = "retire"  # leave the connections that exist: they are finished, or bound to something that changed
    RENEW = "renew"  # Apple calls our token expired
    HOLD = "hold"  # we changed tokens too often: no new one for a while


Factory = Callable[[Answer], Outcome]
Row = tuple[Factory, Effect]


def _gone(answer: Answer) -> Outcome:
    return Gone(answer.word, answer.since)


def _gone_or_ours(answer: Answer) -> Outcome:
    """Also the answer to every token when the environment or the topic is wrong: the purge guard watches it."""
    return Gone(answer.word, certain=False)


def _rejected(answer: Answer) -> Outcome:
    return Rejected(answer.word)


def _topic(answer: Answer) -> Outcome:
    return Misconfigured(answer.word, Scope.TOPIC)


def _credential(answer: Answer) -> Outcome:
    return Misconfigured(answer.word, Scope.BINDING)


def _throttled(answer: Answer) -> Outcome:
    return Throttled(answer.after, Scope.ENDPOINT, answer.word)


def _not_taken(answer: Answer) -> Outcome:
    return Unavailable("no", Scope.ENDPOINT, answer.word, answer.after)


def _failed(answer: Answer) -> Outcome:
    return Unavailable("unknown", Scope.ENDPOINT, answer.word, answer.after)


TABLE: dict[tuple[int, str], Row] = {
    (400, "BadDeviceToken"): (_gone_or_ours, Effect.NONE),
    (400, "DeviceTokenNotForTopic"): (_gone_or_ours, Effect.NONE),
    (400, "TopicDisallowed"): (_topic, Effect.NONE),
    (400, "BadTopic"): (_topic, Effect.NONE),
    (400, "MissingTopic"): (_topic, Effect.NONE),
    (400, "InvalidPushType"): (_rejected, Effect.NONE),
    (400, "BadPriority"): (_rejected, Effect.NONE),
    (400, "BadExpirationDate"): (_rejected, Effect.NONE),
    (400, "BadCollapseId"): (_rejected, Effect.NONE),
    (400, "BadMessageId"): (_rejected, Effect.NONE),
    (400, "PayloadEmpty"): (_rejected, Effect.NONE),
    (400, "DuplicateHeaders"): (_rejected, Effect.NONE),
    (400, "MissingDeviceToken"): (_rejected, Effect.NONE),
    (400, "IdleTimeout"): (_not_taken, Effect.RETIRE),
    (403, "ExpiredProviderToken"): (_not_taken, Effect.RENEW),
    (403, "InvalidProviderToken"): (_credential, Effect.NONE),
    (403, "MissingProviderToken"): (_credential, Effect.NONE),
    (403, "BadEnvironmentKeyIdInToken"): (_credential, Effect.NONE),
    (403, "BadEnvironmentKeyInToken"): (_credential, Effect.NONE),  # a spelling met in the wild
    (403, "BadCertificate"): (_credential, Effect.NONE),
    (403, "BadCertificateEnvironment"): (_credential, Effect.NONE),
    (403, "Forbidden"): (_credential, Effect.NONE),
    # Bound to another key of the team: of this connection, not of this key.
    (403, "UnrelatedKeyIdInToken"): (_not_taken, Effect.RETIRE),
    (404, "BadPath"): (_rejected, Effect.NONE),
    (405, "MethodNotAllowed"): (_rejected, Effect.NONE),
    (410, "Unregistered"): (_gone, Effect.NONE),
    (410, "ExpiredToken"): (_gone, Effect.NONE),
    (413, "PayloadTooLarge"): (_rejected, Effect.NONE),
    # Too many to one device: the others do not wait.
    (429, "TooManyRequests"): (_throttled, Effect.NONE),
    (429, "TooManyProviderTokenUpdates"): (_not_taken, Effect.HOLD),
    (500, "InternalServerError"): (_failed, Effect.NONE),
    (503, "ServiceUnavailable"): (_failed, Effect.NONE),
    (503, "Shutdown"): (_not_taken, Effect.RETIRE),
}

FALLBACK: dict[int, Row] = {
    # Apple adds reasons to 403 (three in 2025), all about credentials: parked, where a rejection would lose the
    # campaign.
    403: (_credential, Effect.NONE),
    407: (_credential, Effect.NONE),  # of a proxy between, about its own credentials
    408: (_failed, Effect.NONE),  # the request came too slowly (RFC 9110, section 15.5.9)
    410: (_gone_or_ours, Effect.NONE),
    429: (_throttled, Effect.NONE),
}
"""Rows for a status whose reason is not in the table. Any other 4xx is rejected. A redirect is of no gateway of
Apple's: `gateway` leads elsewhere, and the binding is parked. Everything else failed."""

UNCONNECTED = frozenset({"tls", "settings", "closed"})
"""The error of a refused certificate where the alert that said so was lost."""

_BY_REASON = {reason: (status, row) for (status, reason), row in TABLE.items()}


def of_answer(answer: Answer, *, own_topic: bool = True) -> tuple[Outcome, Effect]:
    """The outcome of an answer, and the transport's further action. `own_topic`: the topic was the binding's, not the
    notification's own.

    A topic that one notification chose for itself and Apple refuses is that notification's fault, and parks no other.
    """
    if 200 <= answer.status < 300:  # Apple has 200 alone; a proxy before it may have others
        return ACCEPTED, Effect.NONE
    row = TABLE.get((answer.status, answer.reason)) or FALLBACK.get(answer.status)
    if row is None:
        kind = answer.status // 100
        row = (_rejected if kind == 4 else _credential if kind == 3 else _failed, Effect.NONE)
    make, effect = row
    if make is _topic and not own_topic:
        make = _rejected
    return make(answer), effect


def of_failure(
    sent: Literal["no", "unknown"],
    reason: str,
    debug: bytes,
    *,
    own: bool = False,
    cause: str = "",
    connected: bool = True,
) -> tuple[Outcome, Effect]:
    """The outcome of a request without an answer. `debug` is the debug data of a GOAWAY, in which Apple names a reason.

    An authentication reason there is as good as the answer itself; any other only names the failure. The rest is as
    `unanswered` has it.
    """
    named = parse_body(debug)[0]
    status, row = _BY_REASON.get(named, (0, None))
    if status == 403 and row is not None:
        return row[0](Answer(status, named)), row[1]
    if reason in CERTIFICATE_ALERTS:
        return Misconfigured(reason, Scope.BINDING, named=False), Effect.NONE
    return unanswered(sent, named or reason, own=own, cause=cause, connected=connected), Effect.NONE


def by_our_clock(since: float | None, date: str | None, now: float) -> float | None:
    """When a token died (UNIX seconds by Apple's clock, of which `date` is the answer's own `Date` header), by the
    clock that says `now`.

    It was so long ago; and registrations, which it is compared with, are dated by ours.
    """
    said_at = parse_http_date(date) if date is not None else None
    return since if since is None or said_at is None else now - max(0.0, said_at - since)


def parse_body(body: bytes) -> tuple[str, float | None]:
    """(reason, UNIX seconds or None) of `{"reason": …, "timestamp": milliseconds}`; ("", None) for anything else."""
    if not body:
        return "", None
    try:
        values: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", None
    if not isinstance(values, dict):
        return "", None
    reason, since = values.get("reason"), values.get("timestamp")
    if not isinstance(reason, str) or not reason.isascii() or not reason.isprintable():
        reason = ""
    if isinstance(since, bool) or not isinstance(since, (int, float)):
        return reason[:64], None
    return reason[:64], since / 1000
