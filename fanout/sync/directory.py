"""The directory of devices, blocking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fanout.core.endpoint import Endpoint, EndpointState
from fanout.sync.background import Background

__all__ = ["Endpoints"]

_PAGE = 500


class Endpoints:
    """The directory of devices, blocking: `engine.endpoints` is the only one of an engine."""

    def __init__(self, engine: Background) -> None:
        self._engine = engine

    def register(
        self,
        *,
        user: str,
        binding: str,
        address: str | Mapping[str, Any],
        tags: Iterable[str] = (),
        platform: str = "",
        expires_at: float | None = None,
        app: str = "default",
    ) -> Endpoint:
        """Enter one device. A device that this user has is refreshed. A device that another user has ends there, and is
        a new endpoint of this user.

        Args:
            user: The user's id: any text of yours.
            binding: The binding that serves the device, by its name in the configuration.
            address: The address as the platform hands it to the client: a token, or the subscription of a browser.
            tags: Tags that topics name. A tag has no blanks and none of `& | ! ( ) < > =`.
            platform: The platform in a word ("ios", "android", "web", "windows"); for your own use and for filters of
                the feed.
            expires_at: The end of the registration, in UNIX seconds; None for no end.
            app: The app.

        Returns:
            The endpoint, with its id.

        Raises:
            AddressInvalid: The address is none of the binding's platform; the sentence names the change to make.
            UsageError: Another argument is wrong.
            EngineClosed: The engine is closed.
            StorageError: Nothing was stored.

        Example:
            ```python
            engine.endpoints.register(user="alice", binding="pigeon", address="phone", tags=["news"])
            ```
        """
        entering = self._engine._use().endpoints.register(
            user=user, binding=binding, address=address, tags=tags, platform=platform, expires_at=expires_at, app=app
        )
        return self._engine._call(entering)

    def list(
        self,
        *,
        user: str | None = None,
        binding: str | None = None,
        tag: str | None = None,
        state: EndpointState | None = EndpointState.ACTIVE,
        app: str = "default",
    ) -> Iterator[Endpoint]:
        """Endpoints by id, read page by page while they are consumed.

        Args:
            user: Devices of one user; None for all.
            binding: Devices of one binding; None for all.
            tag: Devices with one tag; None for all.
            state: Devices in one state; None for all states.
            app: The app.

        Yields:
            The endpoints.

        Raises:
            UsageError: An argument is wrong. This and the others come with the first endpoint.
            EngineClosed: The engine is closed.
            StorageError: The database cannot be read.

        Example:
            ```python
            for endpoint in engine.endpoints.list(user="alice"):
                print(endpoint.id, endpoint.binding)
            ```
        """
        inner = self._engine._use()
        source = inner.endpoints.list(user=user, binding=binding, tag=tag, state=state, app=app)
        return self._engine._pages(source, _PAGE)

    def get(self, id: int, *, app: str = "default") -> Endpoint:
        """One endpoint, in any state.

        Args:
            id: The endpoint's id.
            app: Its app.

        Returns:
            The endpoint.

        Raises:
            NotFound: The app has no such endpoint.
            UsageError: `id` is no number, or `app` no text.
            EngineClosed: The engine is closed.
            StorageError: The database cannot be read.

        Example:
            ```python
            print(engine.endpoints.get(endpoint.id).state)
            ```
        """
        return self._engine._call(self._engine._use().endpoints.get(id, app=app))

    def remove(self, ids: Iterable[int], *, app: str = "default") -> int:
        """Take endpoints out of the directory. Deliveries queued for them end as cancelled.

        Args:
            ids: The endpoints' ids.
            app: Their app.

        Returns:
            The number that were there.

        Raises:
            UsageError: An element is no endpoint's id.
            EngineClosed: The engine is closed.
            StorageError: Nothing was removed.

        Example:
            ```python
            engine.endpoints.remove([endpoint.id])
            ```
        """
        return self._engine._call(self._engine._use().endpoints.remove(ids, app=app))

    def restore(self, ids: Iterable[int], *, app: str = "default") -> int:
        """Put endpoints back that are gone, removed or expired.

        Args:
            ids: The endpoints' ids.
            app: Their app.

        Returns:
            The number that are active again. An endpoint whose address another one has by now stays where it is.

        Raises:
            UsageError: An element is no endpoint's id.
            EngineClosed: The engine is closed.
            StorageError: Nothing was restored.

        Example:
            ```python
            engine.endpoints.restore([endpoint.id])
            ```
        """
        return self._engine._call(self._engine._use().endpoints.restore(ids, app=app))
