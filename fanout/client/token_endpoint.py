"""A token endpoint as its clients see it (RFC 6749, sections 3.2 and 5): a form goes there, a token or a reason comes
back."""

from __future__ import annotations

import math
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import aiohttp

from fanout.client.egress import egress_from, proxied
from fanout.core.codec import json_object
from fanout.core.duration import parse_retry_after
from fanout.core.secret import Secret
from fanout.core.urls import url_problem
from fanout.errors import FanoutError, UsageError

__all__ = ["Granted", "SignInNeeded", "TokenEndpoint", "TokenError", "TokenRefused", "TokenUnavailable"]

_LIMIT = 65_536
_TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=5)
_VISIBLE = re.compile(r"[\x21-\x7e]{1,16384}")
_CODE = re.compile(r"[a-z_]{1,64}")
_ASK_THE_USER = {"invalid_grant", "interaction_required", "login_required", "consent_required"}
"""RFC 6749, section 5.2, and OpenID Connect Core, section 3.1.2.6: only the user can help."""


class TokenError(FanoutError):
    """No token is to be had. The text is a sentence without secrets.

    Attributes:
        code: The endpoint's `error`, such as `invalid_client`; "" where it named none.
        after: The seconds after which the endpoint may be tried again; None where that is not known.
    """

    def __init__(self, text: str, *, code: str = "", after: float | None = None) -> None:
        super().__init__(text)
        self.code = code
        """The endpoint's `error`, such as `invalid_client`; "" where it named none."""
        self.after = after

    def again(self, after: float) -> Self:
        """The same error, for another caller that waited.

        Args:
            after: The seconds that the new error names; infinity for none.

        Returns:
            The error.
        """
        return type(self)(str(self), code=self.code, after=after if math.isfinite(after) else None)


class TokenRefused(TokenError):
    """The endpoint refuses: the client's id, secret or scope is wrong, and trying again changes nothing."""


class SignInNeeded(TokenRefused):
    """The endpoint refuses this user, who has to sign in (or to agree) again; then the client sends a new access
    token."""


class TokenUnavailable(TokenError):
    """The endpoint is in trouble, or cannot be reached."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The token endpoint's answer; `lifetime` in seconds from now."""

    token: str = field(repr=False)
    lifetime: float
    refresh: str | None = field(repr=False)


class TokenEndpoint:
    """One token endpoint. Its connection is made by the first request; close it. Raises `UsageError` for an unusable
    argument."""

    def __init__(self, url: str, ca_file: Path | None = None, proxy: Secret | str | None = None) -> None:
        problem = url_problem(url, query=True)
        if problem:
            raise UsageError(f"token_url {problem}.")
        self._url = url
        self._egress = egress_from(proxy)
        self._context = ssl.create_default_context()
        if ca_file is not None:
            try:
                self._context.load_verify_locations(ca_file)
            except OSError as error:
                raise UsageError(
                    f"ca_file {ca_file} cannot be used ({error.strerror or error}): name a PEM file of certificates."
                ) from None
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def ask(self, form: Mapping[str, str]) -> Granted:
        """Post the form. Raises `TokenError`."""
        try:
            status, after, body = await self._post(form)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = type(error).__name__
        else:
            return read_answer(status, body, after)
        raise TokenUnavailable(f"The token endpoint gave no answer ({failure}).")

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, form: Mapping[str, str]) -> tuple[int, float | None, bytes]:
        if self._closed:
            raise TokenUnavailable("The source of tokens is closed.")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._context, limit=8),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_TIMEOUT,
                trust_env=False,
            )
        headers = {"Accept": "application/json"}
        more = proxied(self._egress, self._url, headers)
        async with self._session.post(self._url, data=form, allow_redirects=False, **more) as response:
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > _LIMIT:
                    raise TokenUnavailable(f"The token endpoint's answer is over {_LIMIT} bytes.")
            said = response.headers
            after = parse_retry_after(said.get("Retry-After"), time.time(), said.get("Date"))
            return response.status, after, bytes(body)


def read_answer(status: int, body: bytes, after: float | None) -> Granted:
    """The meaning of an answer. Pure. Raises `TokenError`; `after` is its `Retry-After`, in seconds."""
    values = json_object(body)
    error = values.get("error")
    code = error if isinstance(error, str) and _CODE.fullmatch(error) else ""
    if status == 429 or status >= 500:
        raise TokenUnavailable(f"The token endpoint answered {status}{code and f' ({code})'}.", code=code, after=after)
    if status != 200:
        if code in _ASK_THE_USER:
            raise SignInNeeded(f"The token endpoint wants the user to sign in again ({code}).", code=code)
        shown = f"{status}, {code}" if code else str(status)
        raise TokenRefused(
            f"The token endpoint refused the client ({shown}): check its id, secret and scope.", code=code
        )
    token, refresh, kind = values.get("access_token"), values.get("refresh_token"), values.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokenRefused("The token endpoint gives out tokens of another type than Bearer.")
    if not isinstance(token, str) or not _VISIBLE.fullmatch(token):
        raise TokenUnavailable("The token endpoint answered 200 without a usable access_token.")
    usable = isinstance(refresh, str) and 0 < len(refresh) <= _LIMIT
    return Granted(token, _lifetime(values.get("expires_in", 3600)), refresh if usable else None)


def _lifetime(value: object) -> float:
    """Seconds; Entra v1 writes them as a text. An answer that cannot be meant is an error, for a guess would be
    believed for an hour."""
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds < 31 * 86_400:
        raise TokenUnavailable("The token endpoint named no usable expires_in.")
    return seconds
