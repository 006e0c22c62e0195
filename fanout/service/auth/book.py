"""The callers that the configuration names, as the authenticator looks them up: one value for one state of
`[service]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from fanout.config import TENANT, ApiKeySettings, CertificateSettings, IssuerSettings, ServiceSettings, UserKeySettings
from fanout.errors import ConfigurationError, UsageError
from fanout.plugin import Clock, Secret

if TYPE_CHECKING:
    from fanout.service.auth.issuer import Issuer

__all__ = ["Book"]


@dataclass(frozen=True, slots=True)
class Book:
    """Keys by id, issuers by name, and the blocked clients and apps."""

    blocked: frozenset[str]
    keys: Mapping[str, ApiKeySettings]
    user_keys: Mapping[str, UserKeySettings]
    certificates: Mapping[str, CertificateSettings]
    issuers: Mapping[str, Issuer] = field(repr=False)

    @classmethod
    def of(cls, settings: ServiceSettings, clock: Clock, former: Self | None = None) -> Self:
        """The book of these settings. An issuer of `former` whose settings are the same goes on, with the keys that it
        has fetched.

        Raises `ConfigurationError`.
        """
        for key in settings.user_keys:
            try:
                key.check()
            except UsageError as error:
                raise ConfigurationError(f"service.user_keys: {error}") from None
        known = [] if former is None else list(former.issuers.values())
        issuers = {
            each.issuer: next((one for one in known if (one.settings, one.proxy) == (each, settings.proxy)), None)
            or _issuer(each, clock, settings.proxy)
            for each in settings.issuers
        }
        return cls(
            frozenset(settings.blocked),
            {key.id: key for key in settings.keys},
            {key.id: key for key in settings.user_keys},
            {each.sha256: each for each in settings.certificates},
            issuers,
        )

    def issuer(self, name: str) -> Issuer | None:
        """The issuer of tokens with this `iss`; of many tenants' the one whose template fits. Nothing of the token is
        proved yet."""
        found = self.issuers.get(name)
        if found is not None or "/" not in name:
            return found
        for issuer in self.issuers.values():
            if issuer.settings.of_tenants:
                before, _, after = issuer.settings.issuer.partition(TENANT)
                if name.startswith(before) and name.endswith(after):
                    return issuer
        return None


def _issuer(settings: IssuerSettings, clock: Clock, proxy: Secret | None) -> Issuer:
    try:
        from fanout.service.auth.issuer import Issuer
    except ModuleNotFoundError as error:
        if error.name != "jwt":
            raise
        raise ConfigurationError(
            "service.issuers needs PyJWT: install the extra 'service' (from a checkout: pip install '.[service]')."
        ) from None
    return Issuer(settings, clock, proxy)
