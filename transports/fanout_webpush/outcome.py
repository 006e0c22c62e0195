"""The answers of the push services. Pure: one table from (vendor, status, code) to an outcome, and the transport's
further action.

The code is the part that a program can rely on: Mozilla's errno, Apple's reason, WNS's status header; Google has none,
so its sentences are searched for the words that have stood in them for years. Sources: RFC 8030, autopush-rs
docs/errors.md, Apple's "Sending web push notifications in web apps and browsers", and for Google and Edge the reports
of senders (no documentation exists).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import orjson

from fanout.plugin import (
    ACCEPTED,
    Gone,
    Misconfigured,
    Outcome,
    Rejected,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.plugin import unanswered as of_failure
from fanout_webpush.vendors import Vendor

__all__ = [
    "ANY",
    "FALLBACK",
    "TABLE",
    "Answer",
    "Crowd",
    "Effect",
    "Row",
    "code_of",
    "of_answer",
    "of_failure",
    "text_of",
]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `code` is the vendor's own, "" where it gave none; `after` the value of `Retry-After` (seconds);
    `attempt` from 1; `text` the answer's text, cleaned, for where there is no code."""

    vendor: Vendor
    status: int
    code: str = ""
    after: float | None = None
    attempt: int = 1
    text: str = ""

    @property
    def word(self) -> str:
        """The answer in a word or two, for reports."""
        if self.vendor is Vendor.MOZILLA and self.code:
            return f"errno {self.code}"
        said = f": {self.text}" if self.text else ""
        return self.code or f"status {self.status}{said}"


class Effect(StrEnum):
    """The duty of the transport besides returning the outcome."""

    NONE = ""
    RENEW = "renew"  # sign a new token, unless the last is young, and send once more; else the outcome stands
    FOLLOW = (
        "follow"  # the endpoint has moved to the URL in Location; the outcome stands where that is not to be trusted
    )
    RETIRE = "retire"  # leave this host's connections: they are finished


Factory = Callable[[Answer], Outcome]
Row = tuple[Factory, Effect]

ANY = 0
"""In a key of the table: any status, since sources disagree about it."""


def _gone(answer: Answer) -> Outcome:
    return Gone(answer.word)


def _rejected(answer: Answer) -> Outcome:
    return Rejected(answer.word)


def _not_our_key(answer: Answer) -> Outcome:
    """The gateway says in so many words that this endpoint was subscribed under another key; it may be ours that is
    wrong."""
    return Gone(answer.word, certain=False)


def _stop(answer: Answer) -> Outcome:
    """Of all endpoints: our key, token or clock is wrong, or something between refuses us. Of one: it may be bound to
    another key. Which it is, other endpoints show; the death of an endpoint it is not (RFC 8030, section 7.3: that is
    404 or 410).
    """
    return Misconfigured(answer.word, Scope.GROUP)


def _throttled(answer: Answer) -> Outcome:
    return Throttled(answer.after, Scope.ENDPOINT, answer.word)


def _all_throttled(answer: Answer) -> Outcome:
    return Throttled(answer.after, Scope.GROUP, answer.word)


def _failed(answer: Answer) -> Outcome:
    return Unavailable("unknown", Scope.ENDPOINT, answer.word, answer.after)


def _not_taken(answer: Answer) -> Outcome:
    return Unavailable("no", Scope.ENDPOINT, answer.word, answer.after)


def _passing(answer: Answer) -> Outcome:
    """Seen to pass by itself (zaru/webpush issue 89): tried twice more, and then given up."""
    return Throttled(answer.after, Scope.ENDPOINT, answer.word) if answer.attempt < 3 else Rejected(answer.word)


_M, _G, _A, _E = Vendor.MOZILLA, Vendor.GOOGLE, Vendor.APPLE, Vendor.EDGE

TABLE: dict[tuple[Vendor, int, str], Row] = {
    # Mozilla: errno
    (_M, 301, ""): (_rejected, Effect.FOLLOW),
    (_M, 400, "101"): (_rejected, Effect.NONE),  # encryption headers
    (_M, 400, "108"): (_rejected, Effect.NONE),  # router type: the URL is damaged
    (_M, 400, "110"): (_rejected, Effect.NONE),  # encryption
    (_M, 400, "111"): (_rejected, Effect.NONE),  # TTL or a header missing
    (_M, 400, "112"): (_rejected, Effect.NONE),  # TTL malformed
    (_M, 400, "113"): (_rejected, Effect.NONE),  # Topic malformed
    (_M, 400, "114"): (_rejected, Effect.NONE),  # TTL below zero
    (_M, 401, "109"): (_stop, Effect.RENEW),
    (_M, 404, "102"): (_gone, Effect.NONE),
    (_M, 410, "103"): (_gone, Effect.NONE),
    (_M, 410, "105"): (_gone, Effect.NONE),
    (_M, 410, "106"): (_gone, Effect.NONE),
    (_M, 413, "104"): (_rejected, Effect.NONE),
    (_M, 500, "999"): (_failed, Effect.NONE),
    (_M, 502, "900"): (_failed, Effect.NONE),
    (_M, 502, "901"): (_failed, Effect.NONE),
    (_M, 502, "902"): (_failed, Effect.NONE),
    (_M, 502, "903"): (_failed, Effect.NONE),
    (_M, 503, "201"): (_failed, Effect.NONE),
    (_M, 503, "202"): (_failed, Effect.NONE),
    # Google: a word for each sentence, see _SENTENCES
    (_G, 400, "UnauthorizedRegistration"): (_not_our_key, Effect.NONE),
    (_G, 403, "key mismatch"): (_not_our_key, Effect.NONE),
    (_G, 403, "MismatchSenderId"): (_not_our_key, Effect.NONE),
    (_G, 403, "aud claim"): (_stop, Effect.NONE),
    (_G, 403, "invalid endpoint"): (_passing, Effect.NONE),
    (_G, 404, "stale endpoint"): (_gone, Effect.NONE),
    (_G, 410, "unsubscribed"): (_gone, Effect.NONE),
    # Edge: X-WNS-Status, or a word for a sentence
    (_E, 201, "dropped"): (_rejected, Effect.NONE),
    (_E, 400, "ttl conflict"): (_rejected, Effect.NONE),
    (_E, 401, ""): (_stop, Effect.RENEW),
    (_E, 406, "appthrottled"): (_all_throttled, Effect.NONE),
    (_E, 406, "channelthrottled"): (_throttled, Effect.NONE),
    (_E, 406, ""): (_throttled, Effect.NONE),
    (_E, 429, "appthrottled"): (_all_throttled, Effect.NONE),
    (_E, 429, "channelthrottled"): (_throttled, Effect.NONE),
    (_E, 410, "Domain Blocked"): (_stop, Effect.NONE),  # we are blocked, the endpoints live
    # Apple: reason
    (_A, 400, "BadTtl"): (_rejected, Effect.NONE),
    (_A, 400, "BadUrgency"): (_rejected, Effect.NONE),
    (_A, 400, "BadWebPushTopic"): (_rejected, Effect.NONE),
    (_A, 400, "BadWebPushRequest"): (_rejected, Effect.NONE),
    (_A, ANY, "VapidPkHashMismatch"): (_not_our_key, Effect.NONE),  # 400 or 403
    (_A, 400, "BadAuthorizationHeader"): (_stop, Effect.NONE),
    (_A, 403, "BadJwtToken"): (_stop, Effect.RENEW),
    (_A, ANY, "BadVapidPublicKey"): (_stop, Effect.NONE),
    (_A, 404, "BadPath"): (_gone, Effect.NONE),
    (_A, 405, "MethodNotAllowed"): (_rejected, Effect.NONE),
    (_A, 413, "PayloadTooLarge"): (_rejected, Effect.NONE),
    (_A, 429, "TooManyRequests"): (_throttled, Effect.NONE),
    (_A, 500, "InternalServerError"): (_failed, Effect.NONE),
    (_A, 503, "ServiceUnavailable"): (_failed, Effect.NONE),
    (_A, 503, "Shutdown"): (_not_taken, Effect.RETIRE),
    (_A, ANY, "IdleTimeout"): (_not_taken, Effect.RETIRE),
    (_A, 403, ""): (_stop, Effect.NONE),
}
"""A row with the code "" holds for every code of that status that has no row of its own."""

FALLBACK: dict[int, Row] = {
    401: (_stop, Effect.RENEW),
    403: (_stop, Effect.NONE),
    404: (_gone, Effect.NONE),
    407: (_stop, Effect.NONE),  # of a proxy between, about its own credentials
    408: (_failed, Effect.NONE),
    410: (_gone, Effect.NONE),
    413: (_rejected, Effect.NONE),
    429: (_throttled, Effect.NONE),
}
"""RFC 8030 and 8292, for every vendor; only 404 and 410 mean for certain that an endpoint is gone. Any other 3xx and
4xx is rejected (redirects are not followed), everything else failed."""

_SENTENCES: dict[Vendor, tuple[tuple[str, str], ...]] = {
    Vendor.GOOGLE: (
        ("do not correspond to the credentials", "key mismatch"),
        ("aud claim", "aud claim"),
        ("mismatchsenderid", "MismatchSenderId"),
        ("unauthorizedregistration", "UnauthorizedRegistration"),
        ("a valid push subscription endpoint", "stale endpoint"),
        ("invalid push subscription endpoint", "invalid endpoint"),
        ("unsubscribed or expired", "unsubscribed"),
    ),
    Vendor.EDGE: (
        ("domain blocked", "Domain Blocked"),
        ("ttl value conflicts", "ttl conflict"),
    ),
}
_MOST_BODY = 4096


def code_of(vendor: Vendor, body: bytes, header: Callable[[str], str | None]) -> str:
    """The code in an answer, "" where there is none that is known. `header` gives a header's value by its lower-case
    name."""
    if vendor is Vendor.MOZILLA:
        errno = _member(body, "errno")
        return str(errno) if type(errno) is int and 0 < errno < 10_000 else ""
    if vendor is Vendor.APPLE:
        reason = _member(body, "reason")
        return reason[:64] if isinstance(reason, str) and reason.isascii() and reason.isprintable() else ""
    sentences = _SENTENCES.get(vendor)
    if sentences is None:
        return ""
    text = body[:_MOST_BODY].decode("utf-8", "replace").lower()
    if vendor is Vendor.EDGE:
        text = f"{text} {header('x-wns-error-description') or ''}".lower()
    for words, code in sentences:
        if words in text:
            return code
    status = (header("x-wns-status") or "").lower() if vendor is Vendor.EDGE else ""
    return status if status in ("dropped", "appthrottled", "channelthrottled") else ""


def of_answer(answer: Answer) -> tuple[Outcome, Effect]:
    """The outcome of an answer, and the transport's further action."""
    vendor, status, code = answer.vendor, answer.status, answer.code
    row = (
        TABLE.get((vendor, status, code))
        or TABLE.get((vendor, ANY, code))
        or TABLE.get((vendor, status, ""))
        or FALLBACK.get(status)
    )
    if row is None:
        if 200 <= status < 300:
            return ACCEPTED, Effect.NONE
        row = (_rejected if 300 <= status < 500 else _failed, Effect.NONE)
    make, effect = row
    return make(answer), effect


class Crowd:
    """Tells one throttled endpoint from a throttled origin. RFC 8030, section 8.4, speaks of a push resource; but where
    at least `least` deliveries of the last `window` seconds were told to wait, and more than were accepted, all of them
    are meant.
    """

    __slots__ = ("_accepted", "_least", "_since", "_throttled", "_window")

    def __init__(self, *, window: float = 10.0, least: int = 20) -> None:
        self._window = window
        self._least = least
        self._since = float("-inf")
        self._accepted = 0
        self._throttled = 0

    def throttled(self, now: float, accepted: int) -> bool:
        """One more was told to wait, when `accepted` had been accepted since ever; whether this is about the whole
        origin.

        `now` is in monotonic seconds.
        """
        if now - self._since >= self._window:
            self._since, self._accepted, self._throttled = now, accepted, 0
        self._throttled += 1
        return self._throttled >= self._least and self._throttled > accepted - self._accepted


def text_of(status: int, body: bytes) -> str:
    """The text of an answer without a known code, for people: its first 200 characters, without markup, control
    characters, and any run that is long enough to be an address, a token or a number of its own. Empty where that says
    no more than the status does."""
    text = _MARKUP.sub(" ", body[:_MOST_BODY].decode("utf-8", "replace"))
    text = "".join(character if character.isprintable() else " " for character in text)
    text = " ".join(_SECRET.sub("…", text).split())[:200].strip()
    phrase = HTTPStatus(status).phrase if status in _STATUSES else ""
    return "" if len(text) < 3 or text.lower().strip(".!") in (phrase.lower(), f"{status} {phrase}".lower()) else text


_STATUSES = frozenset(each.value for each in HTTPStatus)


_MARKUP = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^<>]{0,400}>", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*://\S+|[A-Za-z0-9_=+/.-]{24,}|[0-9a-fA-F]*[0-9][0-9a-fA-F]{5,}[0-9a-fA-F-]*"
)


def _member(body: bytes, name: str) -> Any:
    try:
        values = orjson.loads(body[:_MOST_BODY])
    except orjson.JSONDecodeError:
        return None
    return values.get(name) if isinstance(values, dict) else None
