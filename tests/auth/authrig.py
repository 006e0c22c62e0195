"""A service's authenticator, a loopback issuer, and time that stands still. Imported by the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fanout.config import IssuerSettings, ServiceSettings
from fanout.service.auth import Authenticator, AuthError, Caller
from fanout.testing import VirtualClock
from fanout.testing.issuer import LoopbackIssuer, SigningKey

KEY = SigningKey.make("key-1")
"""What the issuers of most tests sign with: a new RSA key takes a tenth of a second."""


def settings_of(issuer: LoopbackIssuer, **more: Any) -> IssuerSettings:
    """The issuer's entry in the configuration, with some of it replaced."""
    found = {**issuer.settings(), **more}
    return IssuerSettings(**{**found, "algorithms": tuple(found["algorithms"])})


@dataclass
class Rig:
    """One issuer and the authenticator that trusts it."""

    clock: VirtualClock
    issuer: LoopbackIssuer
    auth: Authenticator
    others: list[Authenticator] = field(default_factory=list)

    def trusting(self, settings: ServiceSettings) -> Authenticator:
        """Another authenticator, closed at the end of the test."""
        self.others.append(Authenticator(settings, self.clock, apps=("default", "shop")))
        return self.others[-1]

    async def caller(self, token: str) -> Caller:
        """Who calls with this bearer."""
        return await self.auth.authenticate({"authorization": f"Bearer {token}"})

    async def refused(self, token: str) -> tuple[int, str]:
        """Status and reason with which this bearer is refused. That it is refused is asserted."""
        return refusal(await outcome(self.auth, token))

    def claims(self, **more: Any) -> dict[str, Any]:
        """The claims of a good user's token of alice; a value None takes one out."""
        now = int(self.clock.now())
        good = {
            "iss": self.issuer.url,
            "aud": self.issuer.desk.audience,
            "sub": "alice",
            "client_id": "page",
            "scope": "Notifications.ReadWrite.CreatedByApp",
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
        }
        return {name: value for name, value in {**good, **more}.items() if value is not None}

    def token(self, header: Mapping[str, Any] | None = None, key: SigningKey | None = None, **claims: Any) -> str:
        """A good token but for what is given."""
        return (key or self.issuer.keys.current).sign(self.claims(**claims), header)


async def outcome(auth: Authenticator, token: str) -> Caller | AuthError:
    """What the authenticator says to a bearer."""
    try:
        return await auth.authenticate({"Authorization": f"Bearer {token}"})
    except AuthError as error:
        return error


def refusal(found: Caller | AuthError) -> tuple[int, str]:
    """Status and reason; a caller that was let in is a failure."""
    assert isinstance(found, AuthError), f"{found} was let in"
    return found.status, found.reason


@asynccontextmanager
async def rig_of(**issuer: Any) -> AsyncIterator[Rig]:
    """A rig with an issuer made like this."""
    clock = VirtualClock()
    if "algorithm" not in issuer:
        issuer.setdefault("key", KEY)
    async with LoopbackIssuer(now=clock.now, **issuer) as found:
        rig = Rig(clock, found, Authenticator(ServiceSettings(issuers=(settings_of(found),)), clock))
        try:
            yield rig
        finally:
            for auth in (rig.auth, *rig.others):
                await auth.aclose()
