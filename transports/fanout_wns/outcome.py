"""The meaning of WNS's answers. Pure: one table from (status, word) to an outcome.

From Microsoft's "Push notification service request and response headers", and senders' observations besides. The word
is `X-WNS-Status` in lower case, or one that `word_of` finds in the description of an error; "" stands for every other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fanout.plugin import (
    ACCEPTED,
    Deferred,
    Gone,
    Misconfigured,
    Outcome,
    Rejected,
    RequestFailed,
    Response,
    Scope,
    Throttled,
    TokenError,
    Unavailable,
    parse_retry_after,
    unanswered,
)

__all__ = ["TABLE", "THROTTLED", "Answer", "of_answer", "of_failure", "of_token_error", "read"]

THROTTLED = 900.0
"""Seconds to wait where WNS throttles and names no time: the time of its answers that named one (Retry-After: 900)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of WNS's. `after` is in seconds, `text` the description of an error, cleaned."""

    status: int
    word: str = ""
    after: float | None = None
    text: str = ""

    @property
    def reason(self) -> str:
        """For people and counters: the word or the status, and WNS's description."""
        return ": ".join(part for part in (self.word or f"status {self.status}", self.text) if part)


def _accepted(answer: Answer) -> Outcome:
    """Under the delivery id, which `MS-CV` carries and WNS repeats; its own `X-WNS-Msg-ID` adds nothing."""
    return ACCEPTED


def _rejected(answer: Answer) -> Outcome:
    return Rejected(answer.reason)


def _gone(answer: Answer) -> Outcome:
    return Gone(answer.reason)


def _throttled_channel(answer: Answer) -> Outcome:
    return Throttled(answer.after, Scope.ENDPOINT, answer.reason)


def _refused_channel(answer: Answer) -> Outcome:
    return Throttled(THROTTLED if answer.after is None else answer.after, Scope.ENDPOINT, answer.reason)


def _throttled_app(answer: Answer) -> Outcome:
    return Throttled(THROTTLED if answer.after is None else answer.after, Scope.QUOTA, answer.reason)


def _stopped(answer: Answer) -> Outcome:
    """Also 403: one channel belongs to another app, or all do: our credential is wrong, or the app has no package
    mapping. 407 is of a proxy between, on the way to this host, about its own credentials."""
    return Misconfigured(answer.reason, Scope.GROUP if answer.status == 407 else Scope.BINDING)


def _failed(answer: Answer) -> Outcome:
    return Unavailable("unknown", Scope.ENDPOINT, answer.reason, answer.after)


def _down(answer: Answer) -> Outcome:
    """A time to come back at is the host's, and so for all of its channels."""
    scope = Scope.ENDPOINT if answer.after is None else Scope.GROUP
    return Unavailable("unknown", scope, answer.reason, answer.after)


TABLE: dict[tuple[int, str], Callable[[Answer], Outcome]] = {
    (200, "received"): _accepted,
    (200, "dropped"): _rejected,  # thrown away; the channel is good, and sending again gains nothing
    (200, "channelthrottled"): _throttled_channel,  # dropped too, because of a rate: worth another try later
    (200, "appthrottled"): _throttled_app,
    (200, ""): _accepted,
    (400, ""): _rejected,
    (401, ""): _stopped,  # with a fresh token too: the transport has tried
    (403, ""): _stopped,
    (404, ""): _gone,
    (405, ""): _rejected,
    (406, ""): _refused_channel,
    (406, "appthrottled"): _throttled_app,
    (407, ""): _stopped,
    (408, ""): _failed,
    (410, ""): _gone,
    (410, "domain blocked"): _stopped,  # our sending is blocked for abuse: no channel is dead
    (413, ""): _rejected,
    (429, ""): _throttled_app,
    (429, "channelthrottled"): _refused_channel,
    (429, "monthly quota exceeded"): _stopped,
    (500, ""): _failed,
    (503, ""): _down,
}
"""Any other 2xx is as 200, any other 3xx and 4xx is rejected, and everything else failed."""

_PHRASES = ("domain blocked", "monthly quota exceeded")
_WORD = re.compile(r"[a-z ]{1,32}")
_UNSAFE = re.compile(r"[^A-Za-z0-9 .,'_()-]+")


def of_answer(answer: Answer) -> Outcome:
    """The outcome of an answer."""
    status = 200 if 200 <= answer.status < 300 else answer.status
    make = TABLE.get((status, answer.word)) or TABLE.get((status, ""))
    if make is None:
        make = _rejected if 300 <= status < 500 else _failed
    return make(answer)


def of_failure(failed: RequestFailed) -> Outcome:
    """The outcome of a request without an answer. Without a connection it is the host that is in trouble, not the
    channel; a connection that was the wrong one (421) is the channel's affair, unless others say the same."""
    if failed.sent == "no" and not failed.own and failed.reason != "misdirected":
        return Unavailable("no", Scope.GROUP, failed.reason, named=False)
    return unanswered(failed.sent, failed.reason, **failed.evidence)


def of_token_error(error: TokenError) -> Outcome:
    """The outcome where no token is to be had: nothing was sent, and nothing of this binding can be."""
    if error.own:
        return Deferred(str(error))
    if error.kind == "misconfigured":
        return Misconfigured(str(error), Scope.BINDING, named=False)
    return Unavailable("no", Scope.BINDING, str(error), error.after or 0.0, named=False)


def read(response: Response, now: float) -> Answer:
    """The answer in a response; `now` in UNIX seconds."""
    header = response.header
    status = response.status
    retry_after = _status_word(header("x-wns-status"), header("x-wns-notificationstatus"))
    description = header("x-wns-error-description") or ""
    # Error bodies are empty as a rule; "Domain Blocked" was seen in one.
    said = f"{description} {response.body[:512].decode('latin-1')}".lower()
    word = next((phrase for phrase in _PHRASES if phrase in said), retry_after)
    if not _WORD.fullmatch(word):
        word = ""
    return Answer(status, word, _after(response, now), _clean(description))


def _status_word(*statuses: str | None) -> str:
    """The notification's state by WNS's header. Asked for the status, it says so twice; the one that is not "received"
    counts."""
    words = [status.strip().lower() for status in statuses if status]
    return next((word for word in words if word != "received"), words[0] if words else "")


def _after(response: Response, now: float) -> float | None:
    for name in ("retry-after", "x-wns-continue-after"):  # the second is of an older page, in seconds
        after = parse_retry_after(response.header(name), now, response.header("date"))
        if after is not None:
            return after
    return None


def _clean(description: str) -> str:
    """Not the channel, should WNS repeat it: words as in a sentence only."""
    if "://" in description or "token=" in description:
        return ""
    return _UNSAFE.sub(" ", description).strip()[:120]
