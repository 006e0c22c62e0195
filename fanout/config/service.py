"""The `[service]` table: the callers of the service, and how much it takes from them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from fanout.config.limits import Limits
from fanout.core.peer import network
from fanout.core.roles import Role
from fanout.core.secret import Secret
from fanout.core.urls import is_host, url_problem
from fanout.errors import UsageError, problem_of, refuse

__all__ = [
    "TENANT",
    "Algorithm",
    "ApiKeySettings",
    "CertificateSettings",
    "IssuerSettings",
    "ServiceSettings",
    "UserKeySettings",
]

Algorithm: TypeAlias = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""The signatures of RFC 7518 and RFC 8037 that are made with a private key. HS256 and `none` cannot be configured."""

TENANT = "{tenantid}"
"""The placeholder of the tenant in the `issuer` of Entra's discovery documents for many tenants."""

_TENANT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NO_TENANT = re.compile(
    r"https://(?:login\.microsoftonline\.(?:com|us)|login\.partner\.microsoftonline\.cn|sts\.windows\.net)/"
    r"(?:common|organizations|consumers)(?:/.*)?",
    re.IGNORECASE,
)
"""Names under which Entra is asked to sign a user in. They stand in no token's `iss`."""
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{12}")
_ORIGIN = re.compile(r"https?://([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:]+\])(:[1-9][0-9]{0,4})?")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """One OAuth issuer whose access tokens are accepted.

    Raises:
        UsageError: A value is malformed, or values contradict each other.
    """

    issuer: str
    """Exactly as the tokens' `iss` has it. Discovery is at `ISSUER/.well-known/openid-configuration`.

    For Entra's tokens of many tenants it is the template that its discovery document has, with `{tenantid}`; `tenants`
    says of which."""
    audience: str | tuple[str, ...]
    """The required `aud` of the tokens, or one of several: how the issuer knows this service, and no other service."""
    apps: dict[str, str]
    """OAuth client id to app. A client that is not here is refused (403)."""
    algorithms: tuple[Algorithm, ...] = ("RS256",)
    user_claim: str = "sub"
    """The claim that is the user, for delegated calls. Entra's `sub` differs from client to client: use `oid` there."""
    user_prefix: str = ""
    """Put before that claim's value. Two issuers that serve one app need it, where a value of one may be another's
    user."""
    app_claim: str | None = None
    """The claim that is the client id; otherwise the first there is of azp, appid, client_id."""
    scopes: tuple[str, ...] = ("Notifications.ReadWrite.CreatedByApp",)
    """The scopes of which a user must have granted one."""
    app_tokens: Literal["marked", "sub"] = "marked"
    """The mark of an app's own token. `marked`: `idtyp` is `app`, or `gty` is `client-credentials`. `sub`: also a `sub`
    that is the client id, or no user at all; only for an issuer where no user can choose or be given a `sub`."""
    tenants: str | tuple[str, ...] = ()
    """With `{tenantid}` in `issuer`: the ids of the tenants whose users and apps may call, or "any"."""
    jwks_uri: str | None = None
    """Where the keys are, for an issuer without discovery."""
    ca_file: Path | None = None
    """Certificates (PEM) to trust besides the system's."""

    def __post_init__(self) -> None:
        refuse(self._problems(), UsageError)

    def _problems(self) -> Iterator[str]:
        for name, url in (("issuer", self.issuer), ("jwks_uri", self.jwks_uri)):
            problem = url_problem(url, query=name == "jwks_uri") if url is not None else ""
            if problem:
                yield f"{name} {problem}."
        if not self.audiences or not all(self.audiences):
            yield "audience is empty: write how the issuer names this service, as the tokens' aud has it."
        if not self.algorithms:
            yield 'algorithms is empty: write those that the issuer signs with, such as ["RS256"].'
        if not self.scopes or not all(
            scope and scope.isascii() and scope.isprintable() and not set(scope) & set(' "\\') for scope in self.scopes
        ):
            yield "scopes must hold at least one scope, each without spaces and quotes."
        if not self.apps:
            yield 'apps is empty, so no client could call: write { "CLIENT-ID" = "APP" }.'
        yield from _tenant_problems(self)
        for name in ("user_claim", "app_claim"):
            if getattr(self, name) == "":
                yield f"{name} is empty: write a claim's name, or take the line out."

    @property
    def audiences(self) -> tuple[str, ...]:
        """The audiences, however many were written."""
        return (self.audience,) if isinstance(self.audience, str) else self.audience

    @property
    def of_tenants(self) -> bool:
        """Whether tokens of several tenants come from it, each with an `iss` of its own."""
        return TENANT in self.issuer

    def names(self, issuer: str, tenant: object) -> bool:
        """Whether a token may be one of this issuer's.

        Args:
            issuer: The token's `iss`.
            tenant: The token's `tid`; None where it has none.

        Returns:
            Whether it may be.
        """
        if not self.of_tenants:
            return issuer == self.issuer
        if not isinstance(tenant, str) or _TENANT.fullmatch(tenant) is None:
            return False
        return (self.tenants == "any" or tenant in self.tenants) and issuer == self.of(tenant)

    def of(self, tenant: str) -> str:
        """The issuer's name for one tenant.

        Args:
            tenant: The tenant's id.

        Returns:
            The name: `iss` of the tenant's tokens.
        """
        return self.issuer.replace(TENANT, tenant)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySettings:
    """One API key, as `fanout keys api` prints it: the service's record of it is no credential. A malformed value is a
    `UsageError`."""

    id: str
    hash: str = field(repr=False)
    app: str = "default"
    role: Role = "app"
    """The caller's role (`fanout.core.roles`)."""
    expires: str | None = None
    """Until when it serves, a date (its end, UTC) or a time with its zone, in ISO 8601; None without an end."""

    def __post_init__(self) -> None:
        refuse(self._problems(), UsageError)

    def _problems(self) -> Iterator[str]:
        if expired := problem_of(lambda: self.ends_at, UsageError):
            yield expired
        if not _ID.fullmatch(self.id):
            yield "id must be the 12 hexadecimal digits that `fanout keys api` printed."
        if not _HASH.fullmatch(self.hash):
            yield 'hash must be "sha256:" and 64 hexadecimal digits: write what `fanout keys api` printed, not the key.'

    @property
    def ends_at(self) -> float | None:
        """`expires` in UNIX seconds.

        Returns:
            The end; None where the key has none.

        Raises:
            UsageError: `expires` is no time, or none before the year 5138, up to which every part can write it.
        """
        if self.expires is None:
            return None
        try:
            moment = datetime.fromisoformat(self.expires)
        except ValueError:
            moment = None
        day = len(self.expires) == 10
        # Times end there in `fanout.core.given.instant` too.
        if moment is None or moment.year >= 5138 or not (moment.tzinfo or day):
            text = "is no time before the year 5138: write 2030-01-31, or 2030-01-31T12:00:00Z."
            raise UsageError(f"expires {self.expires!r} {text}")
        return moment.replace(tzinfo=UTC).timestamp() + 86_400 if day else moment.timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSettings:
    """A client's certificate by which an app's server is known, where `fanout serve` speaks TLS itself
    (`--tls-client-ca`). A malformed value is a `UsageError`."""

    sha256: str
    """Its fingerprint, as `openssl x509 -noout -fingerprint -sha256` prints it."""
    app: str = "default"

    def __post_init__(self) -> None:
        plain = self.sha256.replace(":", "").lower()
        if not _FINGERPRINT.fullmatch(plain):
            raise UsageError(
                "sha256 must be the 64 hexadecimal digits that `openssl x509 -noout -fingerprint -sha256` prints."
            )
        object.__setattr__(self, "sha256", plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserKeySettings:
    """One key with which an app signs tokens for its own users, as `fanout keys api --kind signer` prints it.

    Raises:
        UsageError: A value is malformed, or the secret is not that of the key `id`.
        ConfigurationError: The secret cannot be read.
    """

    id: str
    secret: Secret
    app: str = "default"

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise UsageError("id must be the 12 hexadecimal digits that `fanout keys api --kind signer` printed.")
        if self.secret.at_hand:
            self.check()  # one in a file is looked at by the service that uses it

    def check(self) -> None:
        """Check the secret.

        Raises:
            UsageError: It belongs to no key of this id.
            ConfigurationError: It cannot be read.
        """
        if not self.secret.reveal().startswith(f"fus_{self.id}_") or len(self.secret.reveal()) != 60:
            raise UsageError(
                f"secret is not that of the user key {self.id}: write what `fanout keys api --kind signer` printed."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """The whole table. Without it the service knows no caller and listens on loopback only.

    Raises:
        UsageError: A value is malformed, or one is there twice.
    """

    host_names: Mapping[str, str] = field(default_factory=dict)
    """Graph's `targetHostName`, in lower case, to app."""
    issuers: tuple[IssuerSettings, ...] = ()
    keys: tuple[ApiKeySettings, ...] = ()
    user_keys: tuple[UserKeySettings, ...] = ()
    certificates: tuple[CertificateSettings, ...] = ()
    blocked: tuple[str, ...] = ()
    """OAuth clients, keys or apps, by id or name, that are refused (403) with any credential."""
    origins: tuple[str, ...] = ()
    """Origins of web pages, besides the service's own, that browsers let call it: each exactly as they write it in
    `Origin`."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks, such as 10.0.0.0/8 or ::1, whose word in `Forwarded` and `X-Forwarded-*` is believed. Without one it
    belongs to no app."""
    public_url: str | None = None
    """The service's address as its clients know it, for the links in its answers: scheme, host, and a path where a
    proxy takes one away."""
    metrics: bool = False
    """Whether `/metrics` is answered beside everything else, to keys of the role `operator`."""
    limits: Limits = field(default_factory=Limits)
    proxy: Secret | None = None
    """The egress proxy through which issuers are asked for their keys: that of the whole configuration."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "host_names", {host.lower(): app for host, app in self.host_names.items()})
        refuse(self._problems(), UsageError)

    def _problems(self) -> Iterator[str]:
        for host in self.host_names:
            if not _HOST.fullmatch(host):
                yield (
                    f"host_names: {host!r} is no host name: write it without scheme and path, such as app.example.com."
                )
        for origin in self.origins:
            if not _is_origin(origin):
                yield (
                    f"origins: {origin!r} is no origin of web pages: write https://app.example.com, in lower case, without a path, and with a "
                    "port only where it is not 443. http is for loopback."
                )
        for proxy in self.trusted_proxies:
            yield from _network_problems(proxy)
        if self.public_url is not None and not _is_public_url(self.public_url):
            yield (
                f"public_url: {self.public_url!r} is no URL of a service: write https://push.example.com, with a path where there is one, "
                "and without user, query and fragment."
            )
        yield from _twice("origins", "origin", self.origins)
        yield from _twice("issuers", "issuer", (issuer.issuer for issuer in self.issuers))
        yield from _twice("keys", "id", (key.id for key in self.keys))
        yield from _twice("user_keys", "id", (key.id for key in self.user_keys))
        yield from _twice("certificates", "sha256", (each.sha256 for each in self.certificates))

    @property
    def authenticated(self) -> bool:
        """Whether there is any way to tell callers apart. Where there is none, the service must listen on loopback
        only."""
        return bool(self.issuers or self.keys or self.user_keys or self.certificates)

    def check_apps(self, known: Collection[str]) -> None:
        """Refuse an app that is named here and does not exist.

        Args:
            known: The apps that exist.

        Raises:
            UsageError: There is such an app.
        """
        named = [(f"host_names.{host}", app) for host, app in self.host_names.items()]
        named += [(f"issuers: apps.{client}", app) for issuer in self.issuers for client, app in issuer.apps.items()]
        named += [(f"keys: {key.id}", key.app) for key in self.keys]
        named += [(f"user_keys: {key.id}", key.app) for key in self.user_keys]
        named += [(f"certificates: {each.sha256[:12]}…", each.app) for each in self.certificates]
        refuse(
            (
                f"{place} names the app {app!r}, which has no [apps.{app}]: use one of {', '.join(sorted(known))}."
                for place, app in named
                if app not in known
            ),
            UsageError,
        )


def _is_origin(text: str) -> bool:
    """Whether it has the form that a browser writes (RFC 6454, section 6.2)."""
    if not _ORIGIN.fullmatch(text) or url_problem(text):
        return False
    parts = urlsplit(text)
    return parts.port != {"https": 443, "http": 80}[parts.scheme]


def _tenant_problems(issuer: IssuerSettings) -> Iterator[str]:
    """The fault of an issuer that no token could match, or of whose tokens any tenant's administrator could write the
    user."""
    if _NO_TENANT.fullmatch(issuer.issuer):
        yield (
            f"issuer {issuer.issuer!r} stands in no token: write https://login.microsoftonline.com/{TENANT}/v2.0 and tenants, or the "
            "issuer of your own tenant."
        )
    if set(issuer.issuer.replace(TENANT, "", 1)) & set("{}"):
        yield f"issuer {issuer.issuer!r} holds a template that is not known: only {TENANT} is, once."
    if not issuer.of_tenants:
        if issuer.tenants:
            yield f"tenants is for an issuer with {TENANT} in its name: take it out."
        return
    if issuer.tenants != "any" and not (
        isinstance(issuer.tenants, tuple) and issuer.tenants and all(map(_TENANT.fullmatch, issuer.tenants))
    ):
        yield (
            f'tenants must say whose tokens are taken, as the issuer has {TENANT}: a list of tenant ids (GUIDs in lower case), or "any".'
        )
    if issuer.user_claim not in ("oid", "sub"):
        yield (
            f"user_claim {issuer.user_claim!r} is what a tenant's own administrator writes: with {TENANT} in the issuer use oid or sub."
        )


def _network_problems(text: str) -> Iterator[str]:
    try:
        network(text)
    except ValueError:
        yield (
            f"trusted_proxies: {text!r} is no network: write an address, or a network such as 10.0.0.0/8 whose last bits are 0."
        )


def _is_public_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        return False
    plain = text.isascii() and text.isprintable() and not set(text) & set(' ?#@\\"<>')
    return plain and parts.scheme in ("http", "https") and is_host(parts.netloc)


def _twice(place: str, key: str, values: Iterable[str]) -> Iterator[str]:
    seen = set()
    for value in values:
        if value in seen:
            yield f"{place}: {key} {value!r} is there twice: keep one of them."
        seen.add(value)
