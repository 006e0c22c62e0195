"""The part of the directory that enters devices: each argument is checked here, each address by its transport."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from fanout.core import given
from fanout.core.address import Address
from fanout.core.endpoint import Endpoint, Registration
from fanout.errors import AddressInvalid, UsageError
from fanout.plugin import Clock, Storage, Transport

__all__ = ["Registering"]


class Registering:
    """The base of `Endpoints`."""

    def __init__(
        self, storage: Storage, transports: Mapping[tuple[str, str], Transport], clock: Clock, check: Callable[[], None]
    ) -> None:
        self._storage = storage
        self._transports = transports
        self._clock = clock
        self._check = check

    def registration(
        self,
        *,
        user: str,
        binding: str,
        address: str | Mapping[str, Any],
        app: str = "default",
        platform: str = "",
        tags: Iterable[str] = (),
        expires_at: float | datetime | None = None,
    ) -> Registration:
        """Validate a registration, for `register_many`.

        Args:
            user: The user's id: any text of yours.
            binding: The binding that serves the device, by its name in the configuration.
            address: The address as the platform hands it to the client: a token, or the subscription of a browser.
            app: The app.
            platform: The platform in a word ("ios", "android", "web", "windows"); for your own use and for filters of
                the feed.
            tags: Tags that topics name. A tag has no blanks and none of `& | ! ( ) < > =`.
            expires_at: The end of the registration, in UNIX seconds or as a datetime with its time zone; None for no
                end.

        Returns:
            The registration.

        Raises:
            AddressInvalid: The address is none of the binding's platform; the sentence names the change to make.
            UsageError: Another argument is wrong.
            EngineClosed: The engine is not open, or the caller runs in another event loop.

        Example:
            ```python
            registration = engine.endpoints.registration(user="alice", binding="pigeon", address="phone")
            ```
        """
        self._check()
        tags = [given.unreserved("a tag", given.text("a tag", tag)) for tag in given.collection("tags", tags)]
        return Registration(
            user=given.text("user", user),
            binding=binding,
            address=self._address(app, binding, address),
            app=app,
            platform=platform,
            tags=tuple(tags),
            expires_at=expires_at,  # type: ignore[arg-type]  # `Registration` keeps a datetime as UNIX seconds
        )

    def _address(self, app: str, binding: str, address: object) -> Address:
        """A device address as its transport has it. Any other error than `AddressInvalid` there is a fault of the
        transport."""
        transport = self._transport(app, binding)
        try:
            return transport.parse_address(address)  # type: ignore[arg-type]
        except UsageError:
            raise
        except Exception as error:
            # Its message is not repeated: it may hold the address.
            raise AddressInvalid(
                f"The transport of the binding {binding} cannot read this address: {type(error).__name__}. Give it as the platform hands "
                "it to the client."
            ) from None

    def _transport(self, app: str, binding: str) -> Transport:
        transport = self._transports.get((given.text("app", app), given.text("binding", binding)))
        if transport is None:
            names = ", ".join(sorted(name for owner, name in self._transports if owner == app))
            if not names:
                raise UsageError(f"{app!r} is no app of this engine: check its name, or add [apps.{app}.transports.…].")
            raise UsageError(f"The app {app} has no transport {binding!r}; it has {names}.")
        return transport

    async def register(
        self,
        *,
        user: str,
        binding: str,
        address: str | Mapping[str, Any],
        app: str = "default",
        platform: str = "",
        tags: Iterable[str] = (),
        expires_at: float | datetime | None = None,
    ) -> Endpoint:
        """Enter one device. A device that this user has is refreshed. A device that another user has ends there, and is
        a new endpoint of this user.

        Args:
            user: The user's id: any text of yours.
            binding: The binding that serves the device, by its name in the configuration.
            address: The address as the platform hands it to the client: a token, or the subscription of a browser.
            app: The app.
            platform: The platform in a word ("ios", "android", "web", "windows"); for your own use and for filters of
                the feed.
            tags: Tags that topics name. A tag has no blanks and none of `& | ! ( ) < > =`.
            expires_at: The end of the registration, in UNIX seconds or as a datetime with its time zone; None for no
                end.

        Returns:
            The endpoint, with its id.

        Raises:
            AddressInvalid: The address is none of the binding's platform; the sentence names the change to make.
            UsageError: Another argument is wrong.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing was stored.

        Example:
            ```python
            await engine.endpoints.register(user="alice", binding="pigeon", address="phone", tags=["news"])
            ```
        """
        registration = self.registration(
            user=user, binding=binding, address=address, app=app, platform=platform, tags=tags, expires_at=expires_at
        )
        return (await self.register_many([registration]))[0]

    async def register_many(self, registrations: Sequence[Registration]) -> list[Endpoint]:
        """Enter many devices in one commit.

        Args:
            registrations: Registrations that `registration` has made.

        Returns:
            The endpoint of each, in their order.

        Raises:
            UsageError: An element is no registration, or has no user.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing was stored.

        Example:
            ```python
            make = engine.endpoints.registration
            phones = [make(user=user, binding="pigeon", address=f"phone-of-{user}") for user in ("alice", "bob")]
            await engine.endpoints.register_many(phones)
            ```
        """
        self._check()
        registrations = given.collection("registrations", registrations)
        if not all(isinstance(each, Registration) and each.user for each in registrations):
            raise UsageError(
                "registrations must be a list of what endpoints.registration(…) answers, each with a user."
            )
        return await self._storage.register(registrations, self._clock.now())

    async def change(
        self, endpoint: Endpoint, *, platform: str, tags: Iterable[str], expires_at: float | datetime | None
    ) -> Endpoint:
        """Enter an active endpoint again with another platform, tags and expiry; it keeps its id.

        Tags that it has are kept, even invalid ones; for new ones the rule of `registration` counts.

        Args:
            endpoint: The endpoint, as `get`, `list` or `register` has returned it.
            platform: The platform from now on; empty for none.
            tags: All tags from now on.
            expires_at: The end of the registration, in UNIX seconds or as a datetime with its time zone; None for no
                end.

        Returns:
            The endpoint afterwards.

        Raises:
            UsageError: An argument is wrong.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing was stored.

        Example:
            ```python
            await engine.endpoints.change(endpoint, platform="ios", tags=["news", "sport"], expires_at=None)
            ```
        """
        self._check()
        for tag in (tags := given.collection("tags", tags)):
            if tag not in endpoint.tags:
                given.unreserved("a tag", given.text("a tag", tag))
        registration = Registration(
            user=endpoint.user,
            binding=endpoint.binding,
            address=endpoint.address,
            app=endpoint.app,
            platform=platform,
            tags=tuple(tags),
            expires_at=expires_at,  # type: ignore[arg-type]
        )
        return (await self.register_many([registration]))[0]

    async def intern(
        self, binding: str, addresses: Sequence[str | Mapping[str, Any]], *, app: str = "default"
    ) -> list[int]:
        """Ids for explicit addresses, which need no registration. They belong to no user and no topic, and not to
        `all`.

        Args:
            binding: The binding that serves them.
            addresses: Addresses as the platform hands them to the client.
            app: The app.

        Returns:
            The id of each, in their order, for `Target.endpoints`.

        Raises:
            AddressInvalid: An address is none of the binding's platform.
            UsageError: The app has no such binding, or `addresses` is no list.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing was stored.

        Example:
            ```python
            ids = await engine.endpoints.intern("pigeon", ["phone", "tablet"])
            await engine.send(Notification(title="Hello"), Target.endpoints(ids))
            ```
        """
        self._check()
        parsed = [self._address(app, binding, address) for address in given.collection("addresses", addresses)]
        if not all(address.storable for address in parsed):
            raise AddressInvalid(
                "An address holds NUL or is not valid as UTF-8: give it as the device's platform handed it out."
            )
        return await self._storage.intern(app, binding, parsed, self._clock.now())
