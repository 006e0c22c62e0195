"""Whether a process can do its work, for probes of a platform: one word for each part, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fanout.engine import Engine
from fanout.errors import EngineClosed, StorageError, StorageFull, StorageRefused, StorageUnavailable

__all__ = ["Readiness"]

_PROMPT = 1.0
"""Seconds within which it is answered."""
_LASTING = 1.0
"""Seconds from which on the refusals of storage to a loop of the engine make the process unready: a moment is no
concern."""
_UNREADY = {StorageFull: "full", StorageRefused: "refused", StorageUnavailable: "unavailable"}
"""The words for storage, by the first error that fits."""
_FRESH = 1.0
"""Seconds for which an answer about storage serves: an unauthenticated caller must not decide how often it writes."""


class Readiness:
    """The answer of `/ready` for an engine. `monotonic` is in seconds. To be closed by `aclose`."""

    def __init__(self, engine: Engine, monotonic: Callable[[], float]) -> None:
        self._engine = engine
        self._monotonic = monotonic
        self._known_until = float("-inf")
        self._storage = self._state = "ok"
        self._looking: asyncio.Future[tuple[str, str]] | None = None

    async def aclose(self) -> None:
        """End a look that is under way."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def look(self) -> dict[str, Any]:
        """`ready`, and for `storage`, `engine` and `configuration` the fault of each in a word, else `ok`.

        A configuration that was refused makes nothing unready: the one from before serves.
        """
        now, engine = self._monotonic(), self._engine
        if now >= self._known_until:
            self._storage, self._state = await self._promptly()
            self._known_until = now + _FRESH
        state = "failed" if engine.fault is not None else self._state
        storage, trouble = self._storage, engine.trouble
        if storage == "ok" and trouble.seconds >= _LASTING and trouble.kind in _UNREADY.values():
            # It can be reached and written, and yet the engine waits for it: a right to one table, a lock on another.
            storage = trouble.kind
        return {
            "ready": (storage, state) == ("ok", "ok"),
            "storage": storage,
            "engine": state,
            "configuration": "refused" if engine.configuration.problem else "ok",
        }

    def forget(self) -> None:
        """Look again the next time."""
        self._known_until = float("-inf")

    async def _promptly(self) -> tuple[str, str]:
        """Storage's figures, within a second: a monitor must hear of a database that does not answer, and not wait for
        it too."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._ask())
        done, _ = await asyncio.wait({self._looking}, timeout=_PROMPT)
        return self._looking.result() if done else ("unavailable", "ok")

    async def _ask(self) -> tuple[str, str]:
        engine = self._engine
        try:
            await (engine.probe() if engine.fault is None else engine.reads.probe())
        except EngineClosed:
            return "ok", "closed"
        except StorageError as error:
            return next((word for kind, word in _UNREADY.items() if isinstance(error, kind)), "failed"), "ok"
        return "ok", "ok"
