"""The directory as users of the engine see it: endpoints registered, listed, removed, restored and imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from fanout.core.model import Endpoint, EndpointState, Registration
from fanout.core.records import EndpointFilter
from fanout.errors import NotFound, UsageError
from fanout.plugin import Clock, Storage, Transport

__all__ = ["Endpoints", "ImportReport"]

_PAGE = 1000
_SLICE = 250
"""Lines that are parsed at a stretch: a few milliseconds of the loop's time."""
_BATCH = 10_000
"""Lines that are stored in one commit, while the next are being parsed."""
_ERRORS = 1000
_LINE_LIMIT = 65_536
_IMPORT_KEYS = frozenset({"user", "transport", "address", "tags", "app", "platform", "expires_at"})


@dataclass(slots=True)
class ImportReport:
    """What an import did. `errors` holds (line number, sentence) of the first 1,000 bad lines; `bad` counts all."""

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
        expires_at: float | None = None,
    ) -> Registration:
        """A validated registration. Raises `UsageError` (`AddressInvalid` for the address) with what to change."""
        if not isinstance(user, str) or not 0 < len(user) <= 512 or "\x00" in user:
            raise UsageError("user must be a text of 1 to 512 characters without NUL.")
        if isinstance(tags, str):
            raise UsageError("tags must be a list of texts, not one text.")
        given = tuple(tags)
        unique = tuple(dict.fromkeys(given)) if all(isinstance(tag, str) for tag in given) else ()
        if len(unique) > 256 or len(unique) < bool(given) or not all(0 < len(tag) <= 512 for tag in unique):
            raise UsageError("tags must be at most 256 texts of 1 to 512 characters.")
        if not isinstance(platform, str) or len(platform) > 64:
            raise UsageError("platform must be a text of at most 64 characters.")
        if expires_at is not None and (isinstance(expires_at, bool) or not isinstance(expires_at, (int, float))):
            raise UsageError("expires_at must be UNIX seconds.")
        transport = self._transport(app, binding)
        return Registration(
            user=user,
            binding=binding,
            address=transport.parse_address(address),
            app=app,
            platform=platform,
            tags=unique,
            expires_at=expires_at,
        )

    async def register(
        self,
        *,
        user: str,
        binding: str,
        address: str | Mapping[str, Any],
        app: str = "default",
        platform: str = "",
        tags: Iterable[str] = (),
        expires_at: float | None = None,
    ) -> Endpoint:
        """Enter one device. Known to this user: refreshed. Known to another: theirs ends, and this is a new endpoint."""
        registration = self.registration(
            user=user, binding=binding, address=address, app=app, platform=platform, tags=tags, expires_at=expires_at
        )
        return (await self.register_many([registration]))[0]

    async def register_many(self, registrations: Sequence[Registration]) -> list[Endpoint]:
        """Enter many in one commit."""
        self._check()
        return await self._storage.register(registrations, self._clock.now())

    async def change(
        self, endpoint: Endpoint, *, platform: str, tags: Iterable[str], expires_at: float | None
    ) -> Endpoint:
        """Enter an active endpoint again with another platform, tags and expiry; it keeps its id. Raises `UsageError`."""
        known = Registration(
            user=endpoint.user,
            binding=endpoint.binding,
            address=endpoint.address,
            app=endpoint.app,
            platform=platform,
            tags=tuple(dict.fromkeys(tags)),
            expires_at=expires_at,
        )
        return (await self.register_many([known]))[0]

    async def intern(
        self, binding: str, addresses: Sequence[str | Mapping[str, Any]], *, app: str = "default"
    ) -> list[int]:
        """Ids for explicit addresses, which need no registration; they belong to no user, no topic and not to `all`."""
        self._check()
        transport = self._transport(app, binding)
        parsed = [transport.parse_address(address) for address in addresses]
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
        """Endpoints by id, in pages of bounded memory; those of every state where `state` is None."""
        self._check()
        which = EndpointFilter(
            app=app, user=user, binding=binding, tag=tag, state=None if state is None else EndpointState(state)
        )
        while True:
            page = await self._storage.list_endpoints(which, after=after, limit=_PAGE)
            for endpoint in page:
                yield endpoint
            if len(page) < _PAGE:
                return
            after = page[-1].id

    async def get(self, id: int, *, app: str = "default") -> Endpoint:
        """One endpoint in whatever state. Raises `NotFound`."""
        self._check()
        endpoint = await self._storage.get_endpoint(app, id)
        if endpoint is None:
            raise NotFound(f"The app {app} has no endpoint {id}; `fanout endpoints list` shows those it has.")
        return endpoint

    async def remove(self, ids: int | Iterable[int], *, app: str = "default") -> int:
        """Take endpoints out of the directory; how many there were. What is queued for them ends as cancelled."""
        self._check()
        return await self._storage.remove_endpoints(app, _ids(ids), self._clock.now())

    async def restore(self, ids: int | Iterable[int], *, app: str = "default") -> int:
        """Take endpoints back from quarantine; how many could be."""
        self._check()
        return await self._storage.restore_endpoints(app, _ids(ids), self._clock.now())

    async def import_(
        self,
        lines: Iterable[bytes] | AsyncIterable[bytes],
        *,
        app: str | None = None,
        longest: int = _LINE_LIMIT,
        on_progress: Callable[[ImportReport], None] | None = None,
    ) -> ImportReport:
        """Enter the NDJSON lines of design.md section 8, good ones although others are bad, in bounded memory.

        With `app`, all lines are that app's, and one that names another is bad. A line has at most `longest` bytes. `on_progress`
        is called after each ten thousand lines, once they are stored.
        """
        self._check()
        report = ImportReport()
        batch: list[Registration] = []
        storing: asyncio.Task[None] | None = None
        number = 0
        try:
            async for line in _lines(lines):
                number += 1
                if line.strip():
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
        tags = values.get("tags") or ()
        if not isinstance(tags, (list, tuple)):
            raise UsageError("tags must be a list of texts.")
        app = values.get("app", owner or "default")
        if owner not in (None, app):
            raise UsageError(f"The line is for another app than {owner}: take the key app out.")
        if not isinstance(app, str) or not isinstance(values["transport"], str):
            raise UsageError("app and transport must be texts.")
        return self.registration(
            user=values["user"],
            binding=values["transport"],
            address=values["address"],
            app=app,
            platform=values.get("platform") or "",
            tags=tags,
            expires_at=values.get("expires_at"),
        )

    def _transport(self, app: str, binding: str) -> Transport:
        transport = self._transports.get((app, binding))
        if transport is None:
            known = ", ".join(sorted(name for owner, name in self._transports if owner == app))
            if not known:
                raise UsageError(
                    f"{app!r} is no app of this engine; its configuration has no [apps.{app}.transports.…]."
                )
            raise UsageError(f"The app {app} has no transport {binding!r}; it has {known}.")
        return transport


def _ids(ids: int | Iterable[int]) -> Sequence[int]:
    return [ids] if isinstance(ids, int) else [*ids]


async def _lines(lines: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield line
    else:
        for line in lines:
            yield line
