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

_TROUBLES = ("temporarily_unavailable", "server_error", "slow_down")
"""Errors (RFC 6749, section 4.1.2.1; RFC 8628, section 3.5) that say nothing about the credential."""
_USUAL, _LONGEST = 3600.0, 31 * 86_400.0
"""Seconds for which a token is taken to last: without a usable lifetime, and at most."""


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

    The credential is wrong where the endpoint says so: by a refusal with an `error` (section 5.2) that is not about
    its own trouble. 429 and 5xx mean that it is in trouble; any other answer comes from something else, such as a
    proxy's page. A token with a lifetime that is missing or none is taken to last an hour, and 31 days at most: one
    that ends earlier is refused by the gateway, and replaced.

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
    error = values.get("error")
    if status == 429 or status >= 500 or (status != 200 and error in _TROUBLES):
        after = parse_retry_after(response.header("retry-after"), now, response.header("date"))
        raise TokenError("unavailable", f"The token endpoint answered {status}{_why(values)}.", after)
    if status != 200 and error and isinstance(error, str | dict):
        raise TokenError("misconfigured", f"The token endpoint refused the credential ({status}{_why(values)}).")
    if status != 200:
        raise TokenError(
            "unavailable",
            f"The answer to the token request is no token endpoint's ({status}, without an error of OAuth): check the URL of "
            "the endpoint, and for a proxy, a firewall or a sign-in page on the way.",
        )
    text, lifetime = values.get("access_token"), values.get("expires_in")
    text = text.strip(" \t\r\n") if isinstance(text, str) else text
    if not isinstance(text, str) or not _TOKEN.fullmatch(text):
        raise TokenError(
            "unavailable",
            "The token endpoint answered 200 without a usable access_token: check the URL of the endpoint.",
        )
    return Fetched(text, _seconds(lifetime))


def _seconds(value: object) -> float:
    """Microsoft Entra writes `expires_in` as a text now and then."""
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if seconds <= 0:
        raise TokenError("unavailable", "The token endpoint gave a token that has ended already (expires_in).")
    return min(seconds, _LONGEST) if seconds > 0 else _USUAL


def _why(values: Mapping[str, Any]) -> str:
    error, description = values.get("error"), values.get("error_description")
    words = [error] if isinstance(error, str) and _CODE.fullmatch(error) else []
    number = _AADSTS.search(description) if isinstance(description, str) else None
    if number is not None:
        words.append(number.group())
    return ", " + ", ".join(words) if words else ""
