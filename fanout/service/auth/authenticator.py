"""From a request's headers to its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, cast

from fanout.config import ServiceSettings
from fanout.errors import ConfigurationError
from fanout.plugin import Clock
from fanout.service.auth.access_token import parse
from fanout.service.auth.api_key import API_KEY_PREFIX, key_id, matches
from fanout.service.auth.cache import Verified, VerifiedTokens, digest_of
from fanout.service.auth.caller import SCOPE, Caller
from fanout.service.auth.claims import SKEW, check_claims, decide_caller, ends_at
from fanout.service.auth.errors import forbidden, unauthorized
from fanout.service.auth.unprotected import unprotected_caller
from fanout.service.auth.user_token import MAX_LIFE, USER_TOKEN_PREFIX, read_user_token, token_key_id
from fanout.service.request import Request

if TYPE_CHECKING:
    from fanout.service.auth.issuer import Issuer

__all__ = ["Authenticator", "Headers"]

Headers: TypeAlias = Request | Mapping[str, str] | Iterable[tuple[bytes, bytes]]
"""A request, or where a host asks with its own: a mapping such as Starlette's `Headers`, or the pairs of an ASGI scope."""


class Authenticator:
    """Tells who sent a request: by an issuer's access token, an API key or a user token, each as `Authorization: Bearer`.

    `apps` are the names of the configured apps, for a service without credentials (`protected` is False then). Use it on one event
    loop, and close it: it is an async context manager. Nothing is fetched before the first token comes, or `refresh` is called.
    Raises `ConfigurationError` for a `ca_file` that cannot be used, and where the extra `service` is not installed.
    """

    def __init__(self, settings: ServiceSettings, clock: Clock, *, apps: Collection[str] = ("default",)) -> None:
        self.protected = settings.authenticated
        self._clock = clock
        self._apps = frozenset(apps)
        self._blocked = frozenset(settings.blocked)
        self._keys = {key.id: key for key in settings.keys}
        self._user_keys = {key.id: key for key in settings.user_keys}
        self._issuers = _issuers(settings, clock) if settings.issuers else {}
        self._verified = VerifiedTokens()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End what is being fetched. Idempotent."""
        await asyncio.gather(*(issuer.aclose() for issuer in self._issuers.values()))

    async def authenticate(self, headers: Headers) -> Caller:
        """The caller of a request with these headers.

        Raises `AuthError`. Of a token that has been seen before it costs a hash and a look; nothing is awaited then.
        """
        if not self.protected:
            return self._allowed(unprotected_caller(_by_name(headers), self._apps))
        token = _bearer(headers)
        if token.startswith(API_KEY_PREFIX):
            return self._allowed(self._by_key(token))
        if token.startswith(USER_TOKEN_PREFIX):
            return self._allowed(self._by_user_token(token))
        return await self._by_access_token(token)

    async def refresh(self) -> dict[str, str]:
        """Fetch every issuer's keys now, so that a key that was removed is not believed any longer: issuer to problem, "" for none.

        Call it to warm up, and when an issuer's key has leaked.
        """
        problems = await asyncio.gather(*(issuer.refresh() for issuer in self._issuers.values()))
        return dict(zip(self._issuers, problems, strict=True))

    def problems(self) -> dict[str, str]:
        """The issuers whose tokens cannot be judged at present, and why. Those that nobody has needed yet are not among them."""
        return {url: issuer.problem for url, issuer in self._issuers.items() if issuer.problem and not issuer.usable}

    @property
    def issuers(self) -> Literal["ok", "stale", "failed"]:
        """How it stands with the issuers as far as they have been asked, in the word that fits the worst of them.

        `stale`: its keys cannot be fetched, and those that it gave last serve. `failed`: its tokens cannot be judged.
        """
        troubled = [issuer for issuer in self._issuers.values() if issuer.problem]
        if not troubled:
            return "ok"
        return "stale" if all(issuer.usable for issuer in troubled) else "failed"

    async def _by_access_token(self, text: str) -> Caller:
        digest = digest_of(text)
        now = self._clock.now()
        known = self._verified.get(digest, now)
        if known is not None:
            if not known.issuer.fresh:
                await known.issuer.ensure()
            if known.issuer.trusts(known.key):
                return known.caller
            self._verified.drop(digest)
        token = parse(text)
        issuer = self._issuers.get(token.issuer)
        if issuer is None:
            raise unauthorized("issuer", "The access token is of an issuer that is not configured.")
        if token.algorithm not in issuer.settings.algorithms:
            raise unauthorized("algorithm", "The access token is signed with an algorithm that is not configured.")
        # What costs nothing comes first, so that nonsense makes no issuer be asked; nothing of it counts before the signature.
        check_claims(token.claims, issuer.settings, now)
        await issuer.ensure()
        key = issuer.verify(await issuer.find(token.kid, token.algorithm), token)
        if key is None:
            raise unauthorized("signature", "The access token's signature is wrong.")
        caller = self._allowed(decide_caller(token.claims, issuer.settings))
        self._verified.put(digest, Verified(caller, ends_at(token.claims), issuer, key.print))
        return caller

    def _by_key(self, text: str) -> Caller:
        id = key_id(text)
        key = self._keys.get(id) if id is not None else None
        if key is None or not matches(text, key.hash):
            raise unauthorized("key", "The API key is not known here.")
        return Caller(key.app, None, key.id, frozenset(), "key")

    def _by_user_token(self, text: str) -> Caller:
        id = token_key_id(text)
        key = self._user_keys.get(id) if id is not None else None
        found = read_user_token(text, key.secret) if key is not None else None
        if key is None or found is None:
            raise unauthorized("signature", "The user token is not signed by a key that is known here.")
        app, user, issued, ends = found
        now = self._clock.now()
        if app != key.app:
            raise unauthorized("app", "The user token is for another app than its key.")
        if issued > now + SKEW or ends - issued > MAX_LIFE:
            raise unauthorized("not_yet", "The user token is not valid yet, or for longer than a day.")
        if now >= ends + SKEW:
            raise unauthorized("expired", "The user token has expired.")
        return Caller(app, user, key.id, frozenset({SCOPE}), "delegated")

    def _allowed(self, caller: Caller) -> Caller:
        if caller.client_id in self._blocked or caller.app in self._blocked:
            raise forbidden("blocked", "This caller is blocked.")
        return caller


def _issuers(settings: ServiceSettings, clock: Clock) -> dict[str, Issuer]:
    try:
        from fanout.service.auth.issuer import Issuer
    except ModuleNotFoundError as error:
        if error.name != "jwt":
            raise
        raise ConfigurationError(
            "service.issuers needs PyJWT: install the extra 'service' (from a checkout: pip install '.[service]')."
        ) from None
    return {issuer.issuer: Issuer(issuer, clock) for issuer in settings.issuers}


def _pairs(headers: Headers) -> Iterable[tuple[str, str]]:
    """Names in lower case. A mapping that knows several values of a name gives them all."""
    if isinstance(headers, Mapping):
        return ((name.lower(), value) for name, value in cast("Mapping[str, str]", headers).items())
    return ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)


def _by_name(headers: Headers) -> dict[str, str]:
    return dict(_pairs(headers))


def _bearer(headers: Headers) -> str:
    """The credential (RFC 6750, section 2.1). It is taken from the header only: a URL would end up in logs."""
    if isinstance(headers, Request):
        found = [value.decode("latin-1") for value in (headers.headers.get(b"authorization"),) if value is not None]
    elif isinstance(headers, Mapping):
        found = [value for name, value in _pairs(headers) if name == "authorization"]
    else:
        found = [value.decode("latin-1") for name, value in headers if name.lower() == b"authorization"]
    if len(found) > 1:
        raise unauthorized("malformed", "There is more than one Authorization header.")
    scheme, _, credential = (found[0] if found else "").strip().partition(" ")
    if scheme.lower() != "bearer":
        raise unauthorized("missing", "Authorization: Bearer with an access token or key is missing.")
    return credential.strip(" ")
