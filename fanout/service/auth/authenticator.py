"""From a request's headers to its caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, cast

from fanout.config import ServiceSettings
from fanout.plugin import Clock, Grant, GrantKind
from fanout.service.auth.access_token import parse
from fanout.service.auth.api_key import API_KEY_PREFIX, key_id, matches
from fanout.service.auth.book import Book
from fanout.service.auth.cache import Verified, VerifiedTokens, digest_of
from fanout.service.auth.caller import SCOPE, Caller
from fanout.service.auth.claims import SKEW, check_claims, decide_caller, ends_at
from fanout.service.auth.errors import forbidden, unauthorized
from fanout.service.auth.granted import Granted
from fanout.service.auth.user_token import (
    MAX_LIFE,
    USER_TOKEN_PREFIX,
    read_signed_token,
    read_user_token,
    token_key_id,
)
from fanout.service.request import Request

if TYPE_CHECKING:
    from fanout.service.auth.issuer import Issuer

__all__ = ["Authenticator", "Headers"]

Headers: TypeAlias = Request | Mapping[str, str] | Iterable[tuple[bytes, bytes]]
"""A request, or where a host asks with its own: a mapping such as Starlette's `Headers`, or the pairs of an ASGI
scope."""


class Authenticator:
    """The judge of callers: by an issuer's access token, an API key or a user token, each as `Authorization: Bearer`;
    or, without any of these, by the client's certificate. An async context manager; use it on one event loop. Nothing
    is fetched before the first token comes, or `refresh` is called.

    Args:
        settings: The callers.
        clock: The clock that decides on expiry.
        apps: The apps of the service, a caller of another one being refused; None for any app.

    Raises:
        ConfigurationError: A `ca_file` cannot be used, or the extra `service` is not installed.
    """

    def __init__(self, settings: ServiceSettings, clock: Clock, *, apps: Collection[str] | None = None) -> None:
        self._clock = clock
        self.granted: Granted | None = None
        """The keys in a database, which are believed besides those of the settings. The service sets it."""
        self._apps = None if apps is None else frozenset(apps)
        self._book = Book.of(settings, clock)
        self._retired: set[asyncio.Task[None]] = set()
        self._verified = VerifiedTokens()

    @property
    def _issuers(self) -> Mapping[str, Issuer]:
        return self._book.issuers

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the fetches under way. Idempotent."""
        await asyncio.gather(*(issuer.aclose() for issuer in self._issuers.values()), *self._retired)

    def changed(self, settings: ServiceSettings) -> Callable[[], None]:
        """The callers of changed settings. They are in use once the result is called.

        Args:
            settings: The changed settings.

        Returns:
            The change.

        Raises:
            ConfigurationError: The settings cannot be used.
        """
        return partial(self.take, Book.of(settings, self._clock, self._book))

    def take(self, book: Book) -> None:
        """From now on only these callers are known, for requests that are being judged as well.

        Args:
            book: The callers.
        """
        gone = set(self._issuers.values()) - set(book.issuers.values())
        self._book, self._verified = book, VerifiedTokens()
        for issuer in gone:
            task = asyncio.get_running_loop().create_task(issuer.aclose())
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)

    async def authenticate(self, headers: Headers) -> Caller:
        """The caller of a request. Of a token that has been seen before it costs a hash and a look; nothing is awaited
        then.

        Args:
            headers: The request, or its headers: a mapping, or the pairs of an ASGI scope.

        Returns:
            The caller.

        Raises:
            AuthError: The caller is not let in.
        """
        if isinstance(headers, Request) and headers.certificate and b"authorization" not in headers.headers:
            return self._allowed(self._by_certificate(headers))
        token = _bearer(headers)
        if token.startswith(API_KEY_PREFIX):
            return self._allowed(await self._by_key(token))
        if token.startswith(USER_TOKEN_PREFIX):
            return self._allowed(await self._by_user_token(token))
        return await self._by_access_token(token)

    async def refresh(self) -> dict[str, str]:
        """Fetch every issuer's keys now, so that a key that was removed is not believed any longer. Call it to warm up,
        and when an issuer's key has leaked.

        Returns:
            The problem by issuer, "" for none.
        """
        issuers = self._issuers
        problems = await asyncio.gather(*(issuer.refresh() for issuer in issuers.values()))
        return dict(zip(issuers, problems, strict=True))

    def problems(self) -> dict[str, str]:
        """The issuers whose tokens cannot be judged at present, each with the reason. An issuer that has not been
        needed yet is not among them.
        """
        return {url: issuer.problem for url, issuer in self._issuers.items() if issuer.problem and not issuer.usable}

    @property
    def issuers(self) -> Literal["ok", "stale", "failed"]:
        """The state of the issuers that have been asked, in the word that fits the worst of them.

        `stale`: its keys cannot be fetched, and those that it gave last serve. `failed`: its tokens cannot be judged.
        """
        troubled = [issuer for issuer in self._issuers.values() if issuer.problem]
        if not troubled:
            return "ok"
        return "stale" if all(issuer.usable for issuer in troubled) else "failed"

    async def _by_access_token(self, text: str) -> Caller:
        digest = digest_of(text)
        now, book = self._clock.now(), self._book
        known = self._verified.get(digest, now)
        if known is not None:
            if not known.issuer.fresh:
                await known.issuer.ensure()
            if book is self._book and known.issuer.trusts(known.key):
                return known.caller
            self._verified.drop(digest)
            book = self._book
        token = parse(text)
        issuer = book.issuer(token.issuer)
        if issuer is None:
            raise unauthorized("issuer", "The access token is of an issuer that is not configured.")
        if token.algorithm not in issuer.settings.algorithms:
            raise unauthorized("algorithm", "The access token is signed with an algorithm that is not configured.")
        # Checks that cost nothing come first, so that nonsense makes no issuer be asked; none of them counts before the
        # signature.
        check_claims(token.claims, issuer.settings, now)
        await issuer.ensure()
        key = issuer.verify(await issuer.find(token), token)
        if key is None:
            raise unauthorized("signature", "The access token's signature is wrong.")
        if book is not self._book:
            return await self._by_access_token(text)  # the callers have changed meanwhile
        caller = self._allowed(decide_caller(token.claims, issuer.settings))
        self._verified.put(digest, Verified(caller, ends_at(token.claims), issuer, key.print))
        return caller

    async def _by_key(self, text: str) -> Caller:
        id = key_id(text)
        key = self._book.keys.get(id) if id is not None else None
        grant = await self._grant(id, "caller") if key is None else None
        if key is not None and matches(text, key.hash):
            app, role, ends_at = key.app, key.role, key.ends_at
        elif grant is not None and matches(text, grant.proof):
            app, role, ends_at = grant.app, grant.role, grant.expires_at
        else:
            raise unauthorized("key", "The API key is not known here.")
        now = self._clock.now()
        if ends_at is not None and now >= ends_at:
            raise unauthorized("expired", "The API key has expired.")
        self._used(grant, now)
        return Caller(app, None, str(id), frozenset(), "key", role=role, ends_at=ends_at)

    async def _grant(self, id: str | None, kind: GrantKind) -> Grant | None:
        """The key of that id and kind in the database. Raises `AuthError` 503 where nothing can be said about it."""
        if id is None or self.granted is None:
            return None
        found = await self.granted.find(id)
        return found if found is not None and found.kind == kind else None

    def _used(self, grant: Grant | None, now: float) -> None:
        if grant is not None and self.granted is not None:
            self.granted.use(grant, now)

    def _by_certificate(self, request: Request) -> Caller:
        key = self._book.certificates.get(request.certificate)
        if key is None:
            raise unauthorized("certificate", "The client's certificate is not known here.")
        if b"origin" in request.headers:
            # A browser shows a certificate for every page that asks it to, as it would a cookie.
            raise forbidden("origin", "A client's certificate is for an app's server, and not for web pages.")
        return Caller(key.app, None, key.sha256, frozenset(), "key")

    async def _by_user_token(self, text: str) -> Caller:
        id = token_key_id(text)
        key = self._book.user_keys.get(id) if id is not None else None
        grant = await self._grant(id, "signer") if key is None else None
        if key is not None:
            found = read_user_token(text, key.secret)
        else:
            found = read_signed_token(text, grant.proof) if grant is not None else None
        signer = key or grant
        if signer is None or found is None:
            raise unauthorized("signature", "The user token is not signed by a key that is known here.")
        app, user, issued, ends = found
        now = self._clock.now()
        if app != signer.app:
            raise unauthorized("app", "The user token is for another app than its key.")
        if issued > now + SKEW or ends - issued > MAX_LIFE:
            raise unauthorized("not_yet", "The user token is not valid yet, or for longer than a day.")
        if now >= ends + SKEW:
            raise unauthorized("expired", "The user token has expired.")
        ends_at = float(ends)
        if grant is not None and grant.expires_at is not None:
            if now >= grant.expires_at:
                raise unauthorized("expired", "The key that signed the user token has expired.")
            ends_at = min(ends_at, grant.expires_at)
        self._used(grant, now)
        return Caller(app, user, signer.id, frozenset({SCOPE}), "delegated", ends_at=ends_at)

    def _allowed(self, caller: Caller) -> Caller:
        if caller.client_id in self._book.blocked or caller.app in self._book.blocked:
            raise forbidden("blocked", "This caller is blocked.")
        if self._apps is not None and caller.app not in self._apps:
            raise forbidden("app", "This caller's app is none of this service's.")
        return caller


def _bearer(headers: Headers) -> str:
    """The credential (RFC 6750, section 2.1). It is taken from the header only: a URL would end up in logs."""
    if isinstance(headers, Request):
        found = [value.decode("latin-1") for value in (headers.headers.get(b"authorization"),) if value is not None]
    elif isinstance(headers, Mapping):
        pairs = cast("Mapping[str, str]", headers).items()  # one that knows several values of a name gives them all
        found = [value for name, value in pairs if name.lower() == "authorization"]
    else:
        found = [value.decode("latin-1") for name, value in headers if name.lower() == b"authorization"]
    if len(found) > 1:
        raise unauthorized("malformed", "There is more than one Authorization header.")
    scheme, _, credential = (found[0] if found else "").strip().partition(" ")
    if scheme.lower() != "bearer":
        raise unauthorized("missing", "Authorization: Bearer with an access token or key is missing.")
    return credential.strip(" ")
