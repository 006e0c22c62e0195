"""OAuth 2.0 client credentials and assertions: one form posted to one token endpoint, and the meaning of its answer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fanout.core.codec import json_object
from fanout.core.duration import parse_retry_after
from fanout.http.response import RequestFailed, Response
from fanout.http.tokens import Fetched, TokenError

if TYPE_CHECKING:
    from fanout.http.http1 import Http1Client

__all__ = ["fetch_token", "read_token"]

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_AADSTS = re.compile(r"AADSTS[0-9]{4,9}")
"""Microsoft Entra's error numbers: the one part of its descriptions that tells anything and names no person."""
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/=&!*%]{8,16384}")
"""Characters that may stand after `Bearer` (RFC 6750, section 2.1), and the few more that login.live.com uses."""


async def fetch_token(client: Http1Client, url: str, form: Mapping[str, str], *, now: float) -> Fetched:
    """Ask a token endpoint for a token.

    Args:
        client: The client that posts.
        url: The endpoint.
        form: The fields of the request.
        now: The present time, in UNIX seconds, for a `Retry-After` that names a date.

    Returns:
        The token.

    Raises:
        TokenError: The endpoint refused or gave no answer. The text has no secret.
    """
    try:
        response = await client.request(
            "POST",
            url,
            {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            urlencode(form).encode(),
        )
    except RequestFailed as failed:
        why = failed.debug.decode() if failed.reason == "proxy" and failed.debug else failed.reason
        raise TokenError("unavailable", f"The token endpoint gave no answer ({why}).") from None
    return read_token(response, now=now)


def read_token(response: Response, *, now: float) -> Fetched:
    """The token in a token endpoint's answer (RFC 6749, sections 5.1 and 5.2). Pure.

    429 and 5xx mean that the endpoint is in trouble; any other refusal means that the credential is wrong. A token
    without a lifetime is taken to last an hour.

    Args:
        response: The token endpoint's response.
        now: The present time, in UNIX seconds, for a `Retry-After` that names a date.

    Returns:
        The token.

    Raises:
        TokenError: The answer has none.
    """
    status = response.status
    values = json_object(response.body)
    if status == 429 or status >= 500:
        retry_after = response.header("retry-after")
        after = parse_retry_after(retry_after, now, response.header("date")) if retry_after is not None else None
        raise TokenError("unavailable", f"The token endpoint answered {status}{_why(values)}.", after)
    if status != 200:
        raise TokenError("misconfigured", f"The token endpoint refused the credential ({status}{_why(values)}).")
    text, lifetime = values.get("access_token"), values.get("expires_in", 3600)
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise TokenError("unavailable", "The token endpoint answered 200 without a usable access_token.")
    return Fetched(text, _seconds(lifetime))


def _seconds(value: object) -> float:
    """Microsoft Entra writes `expires_in` as a text now and then."""
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 31 * 86_400:
        raise TokenError("unavailable", "The token endpoint named no usable expires_in.")
    return seconds


def _why(values: Mapping[str, Any]) -> str:
    error, description = values.get("error"), values.get("error_description")
    words = [error] if isinstance(error, str) and _CODE.fullmatch(error) else []
    number = _AADSTS.search(description) if isinstance(description, str) else None
    if number is not None:
        words.append(number.group())
    return ", " + ", ".join(words) if words else ""
