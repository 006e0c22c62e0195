"""The owner of `[service]`: takes a part that has changed in the file into use, while requests are served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from fanout.config import Limits, Owner, ServiceSettings
from fanout.service.auth.authenticator import Authenticator
from fanout.service.feed import FeedService

__all__ = ["Follows", "feed_limits", "owner_of"]

Follows: TypeAlias = Callable[[ServiceSettings], ServiceSettings]
"""The function that turns the file's part into the part in use: the same one, or one with keys that stand in no
file."""


class Follower(Protocol):
    """The service, as far as it follows the file."""

    feed_is_hosts: bool

    @property
    def authenticator(self) -> object:
        """Its authenticator, which may be a host's own."""
        ...

    @property
    def feed(self) -> FeedService:
        """Its feed, of which limits and streams follow."""
        ...

    def use(self, settings: ServiceSettings, /) -> None:
        """Take these settings into use."""
        ...


def feed_limits(limits: Limits) -> dict[str, int]:
    """The settings of a feed that stand in `[service.limits]`."""
    return {"content_bytes": limits.content_bytes, "subscriptions_per_user": limits.subscriptions}


@dataclass(frozen=True, slots=True)
class _Taken:
    service: Follower
    settings: ServiceSettings
    take_callers: Callable[[], None] | None

    def commit(self) -> None:
        service, limits = self.service, self.settings.limits
        if self.take_callers is not None:
            self.take_callers()
        service.use(self.settings)
        if not service.feed_is_hosts:
            service.feed.settings = replace(service.feed.settings, **feed_limits(limits))
        service.feed.hub.check_all()

    def discard(self) -> None:
        """Nothing was opened for it."""


def owner_of(service: Follower, follows: Follows) -> Owner[ServiceSettings]:
    """The observer of a `Watcher`: callers, limits, origins and proxies of this service change with the file.

    A host's own authenticator knows its own callers, and keeps them.
    """

    async def prepare(parts: Mapping[str, ServiceSettings]) -> _Taken:
        settings = follows(parts["service"])
        authenticator = service.authenticator
        callers = authenticator.changed(settings) if isinstance(authenticator, Authenticator) else None
        return _Taken(service, settings, callers)

    return Owner("service", parts=lambda settings: {"service": settings.service}, prepare=prepare)
