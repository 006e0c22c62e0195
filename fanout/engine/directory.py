"""The directory as users of the engine see it: endpoints registered, listed, removed, restored and imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from fanout.core import given
from fanout.core.address import Address
from fanout.core.model import Endpoint, EndpointState, Registration
from fanout.core.records import EndpointFilter
from fanout.errors import AddressInvalid, NotFound, UsageError
from fanout.plugin import Clock, Storage, Transport

__all__ = ["Endpoints", "ImportReport", "endpoint_filter"]

_PAGE = 1000
_SLICE = 250
"""Lines that are parsed at a stretch: a few milliseconds of the loop's time."""
_BATCH = 10_000
"""Lines that are stored in one commit, while the next are being parsed."""
_ERRORS = 1000
_LINE_LIMIT = 65_536
_STATES = tuple(state.value for state in EndpointState)
_IMPORT_KEYS = frozenset({"user", "transport", "address", "tags", "app", "platform", "expires_at"})


@dataclass(slots=True)
class ImportReport:
    """The result of an import. `errors` holds (line number, sentence) of the first 1,000 bad lines; `bad` counts
    all."""

    imported: int = 0
    bad: int = 0
    errors: list[tuple[int, str]] = field(default_factory=list)

    def refuse(self, line: int, sentence: str) -> None:
        """Note a bad line."""
        self.bad += 1
        if len(self.errors) < _ERRORS:
            self.errors.append((line, sentence))


class Endpoints:
    """`engine.endpoints`."""

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
            AddressInvalid: The address is none of the binding's platform; the sentence says what to change.
            UsageError: Another argument is wrong.
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
        a new
        endpoint of this user.

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
            AddressInvalid: The address is none of the binding's platform; the sentence says what to change.
            UsageError: Another argument is wrong.

        Example:
            ```python
            await engine.endpoints.register(user="alice", binding="apns", address=token, tags=["news"])
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
            UsageError: An element is no registration.
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
        """Enter an active endpoint again with another platform, tags and expiry; it keeps its id. Raises `UsageError`.

        Tags that it has are kept whatever they hold; for new ones the rule of `registration` counts.
        """
        self._check()
        for tag in (tags := given.collection("tags", tags)):
            if tag not in endpoint.tags:
                given.unreserved("a tag", given.text("a tag", tag))
        known = Registration(
            user=endpoint.user,
            binding=endpoint.binding,
            address=endpoint.address,
            app=endpoint.app,
            platform=platform,
            tags=tuple(tags),
            expires_at=expires_at,  # type: ignore[arg-type]
        )
        return (await self.register_many([known]))[0]

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
        """
        self._check()
        parsed = [self._address(app, binding, address) for address in given.collection("addresses", addresses)]
        if not all(address.storable for address in parsed):
            raise AddressInvalid("An address holds NUL or is not valid as UTF-8, which no device address does.")
        return await self._storage.intern(app, binding, parsed, self._clock.now())

    async def list(
        self,
        *,
        app: str = "default",
        user: str | None = None,
        binding: str | None = None,
        tag: str | None = None,
        state: EndpointState | str | None = EndpointState.ACTIVE,
        after: int = 0,
    ) -> AsyncIterator[Endpoint]:
        """Endpoints by id, read in pages of bounded memory.

        Args:
            app: The app.
            user: Those of one user; None for all.
            binding: Those of one binding; None for all.
            tag: Those with one tag; None for all.
            state: Those in one state; None for all states.
            after: Those with a greater id.

        Yields:
            The endpoints.
        """
        which = endpoint_filter(app=app, user=user, binding=binding, tag=tag, state=state)
        while True:
            self._check()
            page = await self._storage.list_endpoints(which, after=after, limit=_PAGE)
            for endpoint in page:
                yield endpoint
            if len(page) < _PAGE:
                return
            after = page[-1].id

    async def get(self, id: int, *, app: str = "default") -> Endpoint:
        """One endpoint, in any state.

        Args:
            id: The endpoint's id.
            app: Its app.

        Raises:
            NotFound: The app has no such endpoint.
        """
        self._check()
        endpoint = await self._storage.get_endpoint(given.text("app", app), given.number("id", id))
        if endpoint is None:
            raise NotFound(f"The app {app} has no endpoint {id}; `fanout endpoints list` shows those it has.")
        return endpoint

    async def remove(self, ids: int | Iterable[int], *, app: str = "default") -> int:
        """Take endpoints out of the directory. Deliveries queued for them end as cancelled.

        Args:
            ids: One id or several.
            app: Their app.

        Returns:
            The number that were there.
        """
        self._check()
        return await self._storage.remove_endpoints(given.text("app", app), _ids(ids), self._clock.now())

    async def restore(self, ids: int | Iterable[int], *, app: str = "default") -> int:
        """Put endpoints back that are gone, removed or expired.

        Args:
            ids: One id or several.
            app: Their app.

        Returns:
            The number that are active again. An endpoint whose address another one has by now stays where it is.
        """
        self._check()
        return await self._storage.restore_endpoints(given.text("app", app), _ids(ids), self._clock.now())

    async def import_(
        self,
        lines: Iterable[bytes] | AsyncIterable[bytes],
        *,
        app: str | None = None,
        longest: int = _LINE_LIMIT,
        on_progress: Callable[[ImportReport], None] | None = None,
    ) -> ImportReport:
        """Enter NDJSON lines in bounded memory: good lines although others are bad.

        A line is `{"user": …, "transport": …, "address": …, "tags": […], "app": …, "platform": …, "expires_at": …}`, of
        which
        the first three are needed: `transport` names the binding.

        Args:
            lines: The lines, such as a file that is open in binary mode.
            app: The app of all lines, and a line that names another is bad; None where each line names its own.
            longest: Bytes that a line may have.
            on_progress: Called with the report after each ten thousand lines, once they are stored.

        Returns:
            The numbers of imported and bad lines, and the first thousand errors with their line numbers.

        Raises:
            UsageError: `lines` is one text.
            StorageError: Nothing more could be stored; earlier batches are.
        """
        self._check()
        if isinstance(lines, (str, bytes, bytearray)):
            raise UsageError(
                "lines must be an iterable of lines, such as a file that is open in binary mode, not one text."
            )
        report = ImportReport()
        batch: list[Registration] = []
        storing: asyncio.Task[None] | None = None
        number = 0
        try:
            async for line in _lines(lines):
                number += 1
                if not isinstance(line, (bytes, str)) or line.strip():
                    try:
                        batch.append(self._parse_line(line, app, longest))
                    except UsageError as error:
                        report.refuse(number, str(error))
                if number % _SLICE == 0:
                    await asyncio.sleep(0)
                if number % _BATCH == 0:
                    if storing is not None:
                        await storing
                    storing = asyncio.create_task(self._store(batch, report, on_progress))
                    batch = []
            if storing is not None:
                await storing
        finally:
            if storing is not None and not storing.done():
                storing.cancel()
                await asyncio.gather(storing, return_exceptions=True)
        await self._store(batch, report, on_progress)
        return report

    async def _store(
        self, batch: Sequence[Registration], report: ImportReport, on_progress: Callable[[ImportReport], None] | None
    ) -> None:
        if batch:
            await self._storage.register(batch, self._clock.now())
            report.imported += len(batch)
        if on_progress is not None:
            on_progress(report)

    def _parse_line(self, line: bytes, owner: str | None, longest: int) -> Registration:
        if not isinstance(line, (bytes, str)):
            raise UsageError("A line is bytes, as read from a file that is open in binary mode.")
        if len(line) > longest:
            raise UsageError(f"The line has more than {longest} bytes.")
        try:
            values = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"This is no JSON: {error.msg}.") from None
        if not isinstance(values, dict):
            raise UsageError('A line is one JSON object: {"user": …, "transport": …, "address": …}.')
        unknown = sorted(values.keys() - _IMPORT_KEYS)
        if unknown:
            raise UsageError(f"Unknown key {unknown[0]!r}; a line has {', '.join(sorted(_IMPORT_KEYS))}.")
        missing = [key for key in ("user", "transport", "address") if key not in values]
        if missing:
            raise UsageError(f"The key {missing[0]!r} is missing.")
        app = given.text("app", values.get("app", owner or "default"))
        if owner not in (None, app):
            raise UsageError(f"The line is for another app than {owner}: take the key app out.")
        return self.registration(
            user=values["user"],
            binding=values["transport"],
            address=values["address"],
            app=app,
            platform="" if (platform := values.get("platform")) is None else platform,
            tags=() if (tags := values.get("tags")) is None else tags,
            expires_at=values.get("expires_at"),
        )

    def _transport(self, app: str, binding: str) -> Transport:
        transport = self._transports.get((given.text("app", app), given.text("binding", binding)))
        if transport is None:
            known = ", ".join(sorted(name for owner, name in self._transports if owner == app))
            if not known:
                raise UsageError(
                    f"{app!r} is no app of this engine; its configuration has no [apps.{app}.transports.…]."
                )
            raise UsageError(f"The app {app} has no transport {binding!r}; it has {known}.")
        return transport


def endpoint_filter(
    *, app: str, user: str | None, binding: str | None, tag: str | None, state: EndpointState | str | None
) -> EndpointFilter:
    """Which endpoints are wanted; None means any. Raises `UsageError`."""
    given.text("app", app)
    for name, value in (("user", user), ("binding", binding), ("tag", tag)):
        if value is not None:
            given.text(name, value)
    if state is not None and state not in _STATES:
        raise UsageError(f"state must be one of {', '.join(_STATES)}, or None for all.")
    return EndpointFilter(
        app=app, user=user, binding=binding, tag=tag, state=None if state is None else EndpointState(state)
    )


def _ids(ids: int | Iterable[int]) -> Sequence[int]:
    return [given.number("id", id) for id in ([ids] if isinstance(ids, int) else given.collection("ids", ids))]


async def _lines(lines: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield line
    else:
        for line in lines:
            yield line
