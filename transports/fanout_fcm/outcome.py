"""The meaning of Google's answers. Pure: three tables, asked in this order: the FCM error code, the status word, the
HTTP status.

From "FCM error codes" and the reference of `ErrorCode` (FCM v1); rows marked *observed* come from captured answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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

__all__ = [
    "BY_ERROR_CODE",
    "BY_HTTP",
    "BY_STATUS",
    "QUOTA_PAUSE",
    "Answer",
    "Reauthenticate",
    "of_answer",
    "of_failure",
]

QUOTA_PAUSE = 60.0
"""Seconds to wait after a 429 that names no time ("Best practices when sending FCM messages at scale")."""

_PAUSE = 10.0  # "wait at least 10 seconds before retrying" (the same page); the engine's back-off may make it longer
_PAGE_PAUSE = 30.0  # the HTML page of a 502 says "try again in 30 seconds" (observed)
_UNSPECIFIED_ATTEMPTS = 3
_DEVICE_FIELDS = ("message.token", "message.fid")
_DEVICE_TEXTS = ("not a valid fcm registration token", "invalid registration token")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of Google's, taken apart. `after` is the value of `Retry-After` (seconds), `attempt` counts this one.

    `fields` are the fields that a BadRequest detail complains of, `quota` the words of a QuotaFailure detail and of the
    message.
    """

    http: int
    status: str = ""
    error_code: str = ""
    message: str = ""
    fields: tuple[str, ...] = ()
    quota: str = ""
    after: float | None = None
    attempt: int = 1

    @property
    def word(self) -> str:
        """The most telling name that Google gave it."""
        return self.error_code or self.status or f"status {self.http}"

    @classmethod
    def parse(cls, http: int, body: bytes, *, after: float | None = None, attempt: int = 1) -> Answer:
        """From an answer's body, which may be anything: a load balancer's page, or cut off."""
        try:
            values: Any = orjson.loads(body)
        except orjson.JSONDecodeError:
            values = None
        error = values.get("error") if isinstance(values, dict) else None
        if not isinstance(error, dict):
            return cls(http, after=after, attempt=attempt)
        details = error.get("details")
        code, fields, quota = _details(details if isinstance(details, list) else [])
        message = _text(error.get("message"))
        return cls(
            http,
            status=_word(error.get("status")),
            error_code=code,
            message=message,
            fields=fields,
            quota=f"{quota} {message}".lower(),
            after=after,
            attempt=attempt,
        )


class Reauthenticate:
    """Not an outcome: the access token was refused, so fetch another and send once more. `outcome` is for the second
    time."""

    __slots__ = ("outcome",)

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


Factory = Callable[[Answer], "Outcome | Reauthenticate"]


def _gone(answer: Answer) -> Outcome:
    return Gone(answer.word)


def _gone_or_ours(answer: Answer) -> Outcome:
    """Also the answer to every token when the project is wrong: the purge guard watches it."""
    return Gone(answer.word, certain=False)


def _argument(answer: Answer) -> Outcome:
    """A bad device address is gone, any other bad field is the message's own fault."""
    text = answer.message.lower()
    names_device = set(answer.fields) <= set(_DEVICE_FIELDS) if answer.fields else any(t in text for t in _DEVICE_TEXTS)
    return _gone_or_ours(answer) if names_device else _rejected(answer)


def _rejected(answer: Answer) -> Outcome:
    named = f" ({', '.join(answer.fields[:3])})" if answer.fields else ""
    return Rejected(f"{answer.word}{named}")


def _reauthenticate(answer: Answer) -> Reauthenticate:
    return Reauthenticate(_project(answer))


def _project(answer: Answer) -> Outcome:
    return Misconfigured(answer.word, Scope.BINDING)


def _third_party(answer: Answer) -> Outcome:
    """The credential by which Google reaches Apple or a browser vendor is wrong: those devices wait, Android goes on.

    A device whose address names no platform cannot be an Android device then. It waits alone until a second one is
    answered so; then both move to a group of their own: see `fanout_fcm.address.RELAYED`.
    """
    return Misconfigured(answer.word, Scope.GROUP)


def _quota(answer: Answer) -> Outcome:
    after = QUOTA_PAUSE if answer.after is None else answer.after
    scope = Scope.QUOTA
    if "device" in answer.quota or "registration token" in answer.quota:
        scope = Scope.ENDPOINT
    elif "topic" in answer.quota:
        scope = Scope.TOPIC
    return Throttled(after, scope, answer.word)


def _failed(answer: Answer) -> Outcome:
    after = _PAUSE if answer.after is None else answer.after
    return Unavailable("unknown", Scope.ENDPOINT, answer.word, after)


def _page(answer: Answer) -> Outcome:
    return Unavailable("unknown", Scope.ENDPOINT, answer.word, max(_PAGE_PAUSE, answer.after or 0.0))


def _unspecified(answer: Answer) -> Outcome:
    """An answer of unknown meaning: tried a few times, then given up; never a reason to delete anything."""
    return _failed(answer) if answer.attempt < _UNSPECIFIED_ATTEMPTS else _rejected(answer)


BY_ERROR_CODE: dict[str, Factory] = {
    "INVALID_ARGUMENT": _argument,
    "UNREGISTERED": _gone,
    "SENDER_ID_MISMATCH": _gone_or_ours,
    "THIRD_PARTY_AUTH_ERROR": _third_party,
    "APNS_AUTH_ERROR": _third_party,  # its name before 2019
    "QUOTA_EXCEEDED": _quota,
    "INTERNAL": _failed,
    "UNAVAILABLE": _failed,
    "UNSPECIFIED_ERROR": _unspecified,
}
"""`details[].errorCode` of an FcmError."""

BY_STATUS: dict[str, Factory] = {
    "INVALID_ARGUMENT": _argument,
    "UNAUTHENTICATED": _reauthenticate,
    "PERMISSION_DENIED": _project,  # the API is not enabled, or the account lacks the role
    "NOT_FOUND": _project,  # without an FcmError it is the URL or the project that does not exist
    "RESOURCE_EXHAUSTED": _quota,
    "INTERNAL": _failed,
    "UNAVAILABLE": _failed,
    "DEADLINE_EXCEEDED": _failed,
    "ABORTED": _failed,
}
"""`error.status`, where there is no FcmError, or one of a code that is not known here."""

BY_HTTP: dict[int, Factory] = {
    400: _rejected,
    401: _reauthenticate,
    403: _project,
    404: _project,
    407: _project,  # of a proxy between, about its own credentials
    408: _failed,
    413: _rejected,
    429: _quota,
    500: _failed,
    502: _page,
    503: _failed,
    504: _failed,
}
"""Where the body says nothing that is known. Any other 4xx is rejected, a redirect is a wrong gateway, everything else
failed."""


def of_answer(answer: Answer) -> Outcome | Reauthenticate:
    """The outcome of an answer, or the demand for another access token."""
    if 200 <= answer.http < 300:  # Google has 200 alone; a proxy before it may have others
        return ACCEPTED
    make = BY_ERROR_CODE.get(answer.error_code) or BY_STATUS.get(answer.status) or BY_HTTP.get(answer.http)
    if make is None:
        make = _rejected if 400 <= answer.http < 500 else _project if 300 <= answer.http < 400 else _failed
    return make(answer)


def _details(details: list[Any]) -> tuple[str, tuple[str, ...], str]:
    """(errorCode of the FcmError, fields of the BadRequest, words of the QuotaFailure)."""
    code, fields, quota = "", [], []
    for detail in details:
        if not isinstance(detail, dict):
            continue
        kind = _text(detail.get("@type")).rpartition("/")[2]
        if kind == "google.firebase.fcm.v1.FcmError":
            code = _word(detail.get("errorCode"))
        elif kind == "google.rpc.BadRequest":
            fields += [_word(v.get("field")) for v in _dicts(detail.get("fieldViolations"))]
        elif kind == "google.rpc.QuotaFailure":
            for violation in _dicts(detail.get("violations")):
                quota += [_text(violation.get("subject")), _text(violation.get("description"))]
    return code, tuple(field for field in fields if field), " ".join(quota)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _word(value: Any) -> str:
    """A name fit for reports: the gateway's text may be anything, and reasons are stored."""
    text = _text(value)
    return text if len(text) <= 64 and text.isascii() and text.isprintable() else ""
