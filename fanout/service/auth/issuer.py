"""One issuer's keys: fetched over HTTP, one fetch at a time, and the last good ones kept."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection
from urllib.parse import urlsplit

from fanout.config import TENANT, IssuerSettings
from fanout.core.codec import json_object
from fanout.core.urls import url_problem
from fanout.errors import ConfigurationError
from fanout.plugin import Clock, Http1Client, Http1Settings, RequestFailed, Response, Secret, client_tls, egress_of
from fanout.service.auth.access_token import AccessToken
from fanout.service.auth.errors import AuthError, unauthorized, unavailable
from fanout.service.auth.freshness import Freshness
from fanout.service.auth.keyset import Key, KeySet, KeySetUnusable, parse_key_set, verify

__all__ = ["Issuer", "discovery_url", "key_set_url"]

_log = logging.getLogger("fanout.service.auth")

_HTTP = Http1Settings(connections=2, request_timeout=5.0, connect_timeout=5.0, keep_alive=15.0, max_body=262_144)
_ABSENT = 60.0
"""Seconds for which a key id that was asked for in vain is not asked for again."""
_MOST_ABSENT = 1_000
_MOST_WAITING = 500
"""Requests that wait for one fetch; more are told to come back, so that a flood of unknown ids does not pile up."""


class Issuer:
    """Use it on one event loop, and close it. Makes its TLS context when made, so make it while starting up.

    Raises `ConfigurationError` for a `ca_file` that cannot be used.
    """

    def __init__(self, settings: IssuerSettings, clock: Clock, proxy: Secret | None = None) -> None:
        self.settings = settings
        self.proxy = proxy
        self._clock = clock
        try:
            context = client_tls(ca_file=str(settings.ca_file) if settings.ca_file else None, alpn=("http/1.1",))
        except OSError as error:
            raise ConfigurationError(
                f"service.issuers: the ca_file {settings.ca_file} cannot be used ({error.strerror or error}): name a PEM file of certificates."
            ) from None
        self._client = Http1Client(
            ssl_context=context, settings=_HTTP, clock=clock.monotonic, egress=egress_of(proxy, os.environ)
        )
        self._keys = KeySet((), frozenset())
        self._freshness = Freshness()
        self._absent: dict[str | None, float] = {}
        self._flight: asyncio.Task[None] | None = None
        self._waiting = 0
        self._closed = False
        self.problem = ""
        """Why the last fetch failed, as the end of a sentence; "" if it did not."""

    @property
    def usable(self) -> bool:
        """Whether there are keys to hold a token against."""
        return self._freshness.usable(self._clock.monotonic())

    @property
    def fresh(self) -> bool:
        """Whether the keys are good without asking; else `ensure` is to be called first."""
        return self._freshness.need(self._clock.monotonic()) == "none"

    def trusts(self, thumb: bytes) -> bool:
        """Whether the key with that print is among the keys."""
        return thumb in self._keys.prints

    def verify(self, keys: Collection[Key], token: AccessToken) -> Key | None:
        """The key of `keys` that signed the token; None if none did."""
        return verify(keys, token.algorithm, token.signed, token.signature)

    async def ensure(self) -> None:
        """Have keys that are fresh enough. Raises `AuthError` 503 where there are none."""
        now = self._clock.monotonic()
        need = self._freshness.need(now)
        if need == "none":
            return
        if self._freshness.retry_in(now) <= 0:
            self._start()
        landed = need != "wait" or self._flight is None or await self._landed(self._flight)
        if not self.usable:
            raise self._unavailable() if landed else _busy()

    async def find(self, token: AccessToken) -> tuple[Key, ...]:
        """The keys that may have signed this token, asking the issuer for an id that is new.

        Raises `AuthError`: 401 for an id that the issuer does not know, 503 where it cannot be asked, or not yet again.
        """
        kid = token.kid
        keys = self._candidates(token)
        if keys or self._keys.knows(kid):
            return keys
        if kid is None and self._keys.fits(token.algorithm):
            raise unauthorized("key", "The access token does not say which of its issuer's keys it is signed with.")
        now = self._clock.monotonic()
        began = False
        if self._flight is None and self._freshness.may_look_for_unknown(now) and self._absent.get(kid, now) <= now:
            self._start()
            began = True
        if self._flight is not None and not await self._landed(self._flight):
            raise _busy()
        keys = self._candidates(token)
        if keys or self._keys.knows(kid):
            return keys
        if self._freshness.failures:
            raise self._unavailable()
        if began:
            self._remember_absent(kid)
        elif self._absent.get(kid, now) <= now:
            # The set is from before this question, and may have been answered before the key was made.
            after = self._freshness.unknown_in(self._clock.monotonic())
            raise unavailable("key", "The access token's key is new, and its issuer is asked again in a moment.", after)
        raise unauthorized("key", "The access token's key is none of its issuer's.")

    def _candidates(self, token: AccessToken) -> tuple[Key, ...]:
        keys = self._keys
        if self.settings.of_tenants:
            keys = keys.of(token.issuer, str(token.claims.get("tid")))
        return keys.candidates(token.kid, token.algorithm)

    async def refresh(self) -> str:
        """Fetch the keys now; the problem, or "". The former keys stay in use where there is one."""
        if self._flight is not None:
            await asyncio.wait((self._flight,))  # it may have been answered before the cause of this call
        self._start()
        if self._flight is not None:
            await asyncio.wait((self._flight,))
        return self.problem

    async def aclose(self) -> None:
        """End the fetch that is under way and close the connections. Idempotent."""
        self._closed = True
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait((self._flight,))
        await self._client.aclose()

    def _start(self) -> None:
        if self._flight is None and not self._closed:
            self._flight = asyncio.get_running_loop().create_task(self._renew())

    async def _landed(self, flight: asyncio.Task[None]) -> bool:
        """Wait for the fetch; False at once where too many do already."""
        if self._waiting >= _MOST_WAITING:
            return False
        self._waiting += 1
        try:
            await asyncio.wait((flight,))  # a caller that is cancelled here leaves the fetch to the others
        finally:
            self._waiting -= 1
        return True

    def _unavailable(self) -> AuthError:
        after = self._freshness.retry_in(self._clock.monotonic())
        return unavailable("keys", "The issuer's keys cannot be fetched, so the access token cannot be judged.", after)

    def _remember_absent(self, kid: str | None) -> None:
        now = self._clock.monotonic()
        if len(self._absent) >= _MOST_ABSENT:
            del self._absent[next(iter(self._absent))]
        self._absent.pop(kid, None)
        self._absent[kid] = now + _ABSENT

    async def _renew(self) -> None:
        began = self._clock.monotonic()
        try:
            keys = await self._fetch()
        except (KeySetUnusable, RequestFailed) as error:
            self.problem = f"no answer ({error.reason})" if isinstance(error, RequestFailed) else str(error)
        except Exception as error:
            self.problem = f"a fault of ours ({type(error).__name__})"
        else:
            self.problem = ""
            for key in self._keys.keys:
                if not keys.knows(key.kid):
                    self._remember_absent(key.kid)  # taken out, and not one that is still to come
            self._keys = keys
        finally:
            self._flight = None
        now = self._clock.monotonic()
        if self.problem:
            self._freshness = self._freshness.failed(now)
            kept = "the keys that it gave last stay in use" if self.usable else "its tokens cannot be judged"
            _log.warning("The keys of the issuer %s: %s; %s.", self.settings.issuer, self.problem, kept)
        else:
            self._freshness = self._freshness.succeeded(began=began, now=now)

    async def _fetch(self) -> KeySet:
        url = self.settings.jwks_uri or key_set_url(await self._get(discovery_url(self.settings.issuer)), self.settings)
        return parse_key_set((await self._get(url)).body, self.settings.algorithms)

    async def _get(self, url: str) -> Response:
        response = await self._client.request("GET", url, {"Accept": "application/json"})
        if response.status != 200:
            raise KeySetUnusable(f"{url} answered {response.status}")
        return response


def _busy() -> AuthError:
    return unavailable("busy", "The issuer's keys are being fetched, and too many wait for it.", 1.0)


def discovery_url(issuer: str) -> str:
    """OpenID Connect Discovery 1.0, section 4: after the issuer, without a slash at its end."""
    # Entra has one document for all tenants, at this name.
    return issuer.replace(TENANT, "common").removesuffix("/") + "/.well-known/openid-configuration"


def key_set_url(response: Response, settings: IssuerSettings) -> str:
    """`jwks_uri` of a discovery document. Raises `KeySetUnusable`, for a document of another issuer too (section
    4.3)."""
    found = json_object(response.body)
    if found.get("issuer") != settings.issuer:
        raise KeySetUnusable(
            f"its discovery document is of another issuer, or is none (no JSON object of at most {_HTTP.max_body:,} bytes): "
            "write issuer exactly as the document has it"
        )
    url = found.get("jwks_uri")
    if not isinstance(url, str) or url_problem(url, query=True):
        raise KeySetUnusable("its discovery document has no jwks_uri over https")
    if (urlsplit(url).scheme, urlsplit(settings.issuer).scheme) == ("http", "https"):
        raise KeySetUnusable("its discovery document has a jwks_uri over http, as only an issuer on loopback may")
    return url
