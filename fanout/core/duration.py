"""Lengths and points of time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from fanout.errors import UsageError

__all__ = ["parse_duration", "parse_http_date", "parse_retry_after", "parse_when"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def parse_duration(text: str) -> float:
    """Seconds in `90`, `90s`, `1h30m`, `2d`; raises `UsageError` for anything else, negative times too."""
    text = text.strip()
    if re.fullmatch(r"\d{1,12}(?:\.\d+)?", text):
        return float(text)
    parts = list(_PART.finditer(text))
    if parts and len(text) < 64 and "".join(part.group() for part in parts) == text:
        return sum(float(part.group(1)) * _UNITS[part.group(2)] for part in parts)
    raise UsageError(
        f"{text!r} is no length of time: write seconds, or a number with ms, s, m, h, d or w, such as 1h30m."
    )


def parse_when(text: str, now: float) -> float:
    """UNIX seconds for an ISO 8601 time (no zone means UTC) or `+1h30m` from `now`; raises `UsageError` for anything
    else."""
    text = text.strip()
    if text.startswith("+"):
        return now + parse_duration(text[1:])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time: write 2030-01-31T09:00:00+01:00, or +1h30m from now.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def parse_retry_after(value: str | None, now: float, date: str | None = None) -> float | None:
    """Seconds to wait by a `Retry-After` header (RFC 9110, section 10.2.3): a number or an HTTP date.

    A past date is 0. A number too large to be meant is returned as it is: the policy caps it.

    Args:
        value: The field's value; None where the answer has no such field.
        now: The present time, in UNIX seconds: a date is so long after it where there is no `date`.
        date: The same answer's own `Date` header, which is used instead of our clock; None where the answer has none.

    Returns:
        Seconds; None where the value is neither a number nor a date.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 16:
        return float(value)
    moment = parse_http_date(value)
    if moment is None:
        return None
    said_at = parse_http_date(date) if date is not None else None
    return max(0.0, moment - (now if said_at is None else said_at))


def parse_http_date(value: str) -> float | None:
    """A date in one of the three forms of HTTP (RFC 9110, section 5.6.7).

    Args:
        value: The field's value.

    Returns:
        UNIX seconds; None where the value is no date.
    """
    value = value.strip()
    for form in ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"):
        try:
            moment = datetime.strptime(value, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        return (moment - datetime.fromtimestamp(0, UTC)) / timedelta(seconds=1)
    return None
