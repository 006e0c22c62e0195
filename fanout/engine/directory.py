"""The directory as users of the engine see it: endpoints registered, listed, removed, restored and imported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from fanout.core import given
from fanout.core.columns import DEFAULTS
from fanout.core.endpoint import Endpoint, EndpointState, Registration
from fanout.core.records import EndpointFilter
from fanout.engine.registering import Registering
from fanout.errors import NotFound, UsageError

__all__ = ["Endpoints", "ImportReport", "endpoint_filter"]

_PAGE = 1000
_SLICE = 250
"""Lines that are parsed at a stretch: a few milliseconds of the loop's time."""
_BATCH = 10_000
"""Lines that are stored in one commit, while the next are being parsed."""
_ERRORS = 1000
_LINE_LIMIT = 65_536
_STATES = tuple(state.value for state in EndpointState)
_IMPORT_KEYS = {"user", "transport", "address", "tags", "app", "expires_at", *DEFAULTS}


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


class Endpoints(Registering):
    """The directory of devices: `engine.endpoints` is the only one of an engine."""

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

        Raises:
            UsageError: An argument is wrong. This and the others come with the first endpoint.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.

        Example:
            ```python
            async for endpoint in engine.endpoints.list(user="alice"):
                print(endpoint.id, endpoint.binding)
            ```
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

        Returns:
            The endpoint.

        Raises:
            NotFound: The app has no such endpoint.
            UsageError: `id` is no number, or `app` no text.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: The database cannot be read.

        Example:
            ```python
            print((await engine.endpoints.get(endpoint.id)).state)
            ```
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

        Raises:
            UsageError: An element is no endpoint's id.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing was removed.

        Example:
            ```python
            await engine.endpoints.remove(endpoint.id)
            ```
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

        Raises:
            UsageError: An element is no endpoint's id.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing was restored.

        Example:
            ```python
            await engine.endpoints.restore([endpoint.id])
            ```
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
        which the first three are needed: `transport` names the binding.

        Args:
            lines: The lines, such as a file that is open in binary mode.
            app: The app of all lines, and a line that names another is bad; None where each line names its own.
            longest: Bytes that a line may have.
            on_progress: Called with the report after each ten thousand lines, once they are stored.

        Returns:
            The numbers of imported and bad lines, and the first thousand errors with their line numbers.

        Raises:
            UsageError: `lines` is one text.
            EngineClosed: The engine is not open, or the caller runs in another event loop.
            StorageError: Nothing more could be stored; earlier batches are.

        Example:
            ```python
            report = await engine.endpoints.import_([b'{"user": "alice", "transport": "pigeon", "address": "phone"}'])
            print(report.imported, report.errors)
            ```
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
            raise UsageError(f"The line has more than {longest} bytes: write one device on each line.")
        try:
            values = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise UsageError(f"This is no JSON: {error.msg}. Write one JSON object on each line.") from None
        if not isinstance(values, dict):
            raise UsageError('Write one JSON object on each line: {"user": …, "transport": …, "address": …}.')
        unknown = sorted(values.keys() - _IMPORT_KEYS)
        if unknown:
            raise UsageError(f"Unknown key {unknown[0]!r}; a line has {', '.join(sorted(_IMPORT_KEYS))}.")
        missing = [key for key in ("user", "transport", "address") if key not in values]
        if missing:
            raise UsageError(f"The key {missing[0]!r} is missing: give user, transport and address.")
        app = given.text("app", values.get("app", owner or "default"))
        if owner not in (None, app):
            raise UsageError(f"The line is for another app than {owner}: take the key app out.")
        return self.registration(
            user=values["user"],
            binding=values["transport"],
            address=values["address"],
            app=app,
            tags=() if (tags := values.get("tags")) is None else tags,
            expires_at=values.get("expires_at"),
            **{name: none if (value := values.get(name)) is None else value for name, none in DEFAULTS.items()},
        )


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
