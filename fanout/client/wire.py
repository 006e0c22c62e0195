"""One request to the service: a token, the answer, and the requests that may be repeated without harm."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp
import orjson

from fanout.client.egress import egress_from, proxied
from fanout.client.tokens import BearerSource
from fanout.core.duration import parse_retry_after
from fanout.core.secret import Secret
from fanout.errors import FanoutError, UsageError

__all__ = ["ServiceError", "ServiceUnavailable", "Wire", "answered", "records"]

_Answer = TypeVar("_Answer")

_LIMIT = 64 * 1024 * 1024
_TRIES = 4
_BASE = 0.25
_LONGEST = 30.0
_AGAIN = frozenset((429, 502, 503, 504))


class ServiceError(FanoutError):
    """The service refused. `status` is HTTP's, `code` Microsoft Graph's word for it, `retry_after` seconds where it
    names any.

    A program decides by `reason`: a word of `fanout.core.reasons.REASONS` such as "device" or "resync", "" where the
    answer has none.

    `request_id` is for the service's operator: it stands in the service's log.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int,
        code: str = "",
        reason: str = "",
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.reason = reason
        self.request_id = request_id
        self.retry_after = retry_after


class ServiceUnavailable(FanoutError):
    """The service could not be reached, or its answer did not arrive: the request may or may not have been carried
    out."""


def answered(kind: type[_Answer], answer: Mapping[str, Any]) -> _Answer:
    """The record of an answer. A field that this version does not know is left out, for the service may be a newer one.

    Raises `ServiceError` where a field is missing that the record cannot be without: the service is an older one, or
    another program.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # each is a dataclass
    try:
        return kind(**{name: value for name, value in answer.items() if name in names})
    except TypeError as error:
        raise ServiceError(
            f"The service's answer is no {kind.__name__} ({error}): update the service.", status=200
        ) from None


class Wire:
    """The connection to a service, as an async context manager. `bearer` is a token (such as an API key) or a source of
    tokens.

    `timeout` is in seconds, for a request as a whole. `ca_file` is trusted besides the machine's own authorities.
    `proxy` is the egress proxy, `http://[USER:PASSWORD@]HOST:PORT`, or "environment" for `HTTPS_PROXY` and `NO_PROXY`.
    """

    def __init__(
        self,
        url: str,
        bearer: BearerSource | str,
        *,
        timeout: float = 30.0,
        ca_file: str | Path | None = None,
        proxy: Secret | str | None = None,
    ) -> None:
        if not url.startswith(("https://", "http://")):
            raise UsageError(f"{url!r} is no address of a service: write it as https://push.example.com.")
        self.url = url.rstrip("/")
        self._bearer = bearer
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 10.0))
        self._ca_file = ca_file
        self._egress = egress_from(proxy)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context()
        if self._ca_file is not None:
            context.load_verify_locations(self._ca_file)
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        # No proxy that was not named, no redirect or cookie: a bearer goes to this service and to no other host.
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: AsyncIterable[bytes] | None = None,
        query: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
        again: bool = False,
    ) -> Any:
        """The answer to one request. A refused token is replaced, and the request made once more.

        Args:
            method: The method, such as `GET`.
            path: The path below the service's URL.
            json: The body, as values of JSON; None for none.
            body: The body, as a stream; None for none.
            query: The parameters; those that are None are left out.
            headers: Header fields besides those of every request.
            again: Whether the request may be made again when no answer came, or one that says "later".

        Returns:
            The values of the answer's JSON; None for an empty answer.

        Raises:
            ServiceError: The service refused; `reason` is the word for programs.
            ServiceUnavailable: The service did not answer, or its answer broke off: the request may have been carried
                out.
            TokenError: No token is to be had.
            UsageError: The client is not open.

        Example:
            ```python
            me = await client.call("GET", "/v1/me")
            ```
        """
        tries = _TRIES if again and body is None else 1
        for attempt in range(1, tries + 1):
            try:
                async with await self.open(method, path, json=json, body=body, query=query, headers=headers) as answer:
                    return await _json(answer)
            except (ServiceError, ServiceUnavailable) as error:
                if attempt == tries or (isinstance(error, ServiceError) and error.status not in _AGAIN):
                    raise
                wait = getattr(error, "retry_after", None) or 0.0
            await asyncio.sleep(min(_LONGEST, max(random.uniform(0.0, _BASE * 2.0**attempt), wait)))
        raise AssertionError("the last attempt returns or raises")

    async def open(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: AsyncIterable[bytes] | None = None,
        query: Mapping[str, str | int | None] | None = None,
        headers: Mapping[str, str] | None = None,
        endless: bool = False,
    ) -> aiohttp.ClientResponse:
        """The answer to one request, good and not yet read. A refused token is replaced, and the request made once
        more.

        Args:
            method: The method, such as `GET`.
            path: The path below the service's URL.
            json: The body, as values of JSON; None for none.
            body: The body, as a stream; None for none.
            query: The parameters; those that are None are left out.
            headers: Header fields besides those of every request.
            endless: Whether the answer is a stream, for which no time limit holds.

        Returns:
            The answer. Close it.

        Raises:
            ServiceError: The service refused; `reason` is the word for programs.
            ServiceUnavailable: The service did not answer: the request may have been carried out.
            TokenError: No token is to be had.
            UsageError: The client is not open.

        Example:
            ```python
            async with await client.open("GET", "/v1/me") as answer:
                print(await answer.text())
            ```
        """
        if self._session is None:
            raise UsageError("The client is not open: use it inside `async with`.")
        given = {"accept": "application/json", **(headers or {})}
        data: Any = body
        if json is not None:
            data = orjson.dumps(json)
            given["content-type"] = "application/json"
        params = {name: str(value) for name, value in (query or {}).items() if value is not None}
        timeout = aiohttp.ClientTimeout(sock_connect=self._timeout.sock_connect) if endless else self._timeout
        for renewed in (False, True):
            token = self._bearer if isinstance(self._bearer, str) else await self._bearer.token()
            given["authorization"] = f"Bearer {token}"
            try:
                answer = await self._session.request(
                    method,
                    self.url + path,
                    data=data,
                    params=params,
                    allow_redirects=False,
                    timeout=timeout,
                    **proxied(self._egress, self.url, given),
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise ServiceUnavailable(
                    f"{method} {path}: the service did not answer ({type(error).__name__})."
                ) from None
            if answer.status == 401 and not renewed and not isinstance(self._bearer, str) and body is None:
                answer.release()
                self._bearer.invalidate(token)
                continue
            if answer.status >= 300:
                async with answer:
                    raise await _refusal(answer, method, path)
            return answer
        raise AssertionError("the second attempt returns or raises")


async def records(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The objects of an NDJSON answer, with lines of any length. Raises `ServiceUnavailable` where it breaks off."""
    rest = bytearray()
    async with answer:
        try:
            async for piece in answer.content.iter_any():
                *lines, tail = piece.split(b"\n")
                for line in lines:
                    rest += line
                    yield orjson.loads(rest)
                    rest.clear()
                rest += tail
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            raise ServiceUnavailable(f"The service's answer broke off ({type(error).__name__}).") from None


async def _json(answer: aiohttp.ClientResponse) -> Any:
    text = await _text(answer)
    if not text:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ServiceUnavailable("The service's answer is no JSON: is something else at that address?") from None


async def _text(answer: aiohttp.ClientResponse) -> bytes:
    try:
        text = b""
        while not answer.content.at_eof() and len(text) < _LIMIT:
            text += await answer.content.read(_LIMIT - len(text))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ServiceUnavailable(f"The service's answer broke off ({type(error).__name__}).") from None
    return text


async def _refusal(answer: aiohttp.ClientResponse, method: str, path: str) -> ServiceError:
    try:
        said = orjson.loads(await _text(answer))["error"]
        code, message = str(said["code"]), str(said["message"])
    except (orjson.JSONDecodeError, LookupError, TypeError, ServiceUnavailable):
        said, code, message = {}, "", "it says nothing more"
    inner = said.get("innerError")
    after = answer.headers.get("retry-after")
    return ServiceError(
        f"{method} {path}: {answer.status} {code}: {message}",
        status=answer.status,
        code=code,
        reason=str(inner.get("code", "")) if isinstance(inner, dict) else "",
        request_id=answer.headers.get("request-id", ""),
        retry_after=parse_retry_after(after, time.time(), answer.headers.get("date")),
    )
