"""Credentials that are replaced while the engine runs: a binding's transport is made anew, and what was parked goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fanout.engine.patience import patiently
from fanout.engine.signal import Signal
from fanout.engine.work import Work
from fanout.errors import FanoutError
from fanout.plugin import Clock, Storage, Transport

__all__ = ["Renewal", "Renewer"]

T = TypeVar("T")

_log = logging.getLogger("fanout.renewal")
_EVERY = 1.0
"""Seconds between two looks at the files."""


@dataclass(frozen=True, slots=True)
class Renewer:
    """How a binding's transport is made again. `fingerprint` differs when one of its credential files has been replaced.

    `make` raises a `FanoutError` for a credential that cannot be used. Both take (app, binding).
    """

    make: Callable[[str, str], Transport]
    fingerprint: Callable[[str, str], Hashable]


class Renewal:
    """Watches the credentials of one engine's bindings."""

    def __init__(
        self,
        storage: Storage,
        transports: dict[tuple[str, str], Transport],
        works: list[Work],
        renewer: Renewer | None,
        *,
        clock: Clock,
        retire: float,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._transports = transports
        self._works = works
        self._renewer = renewer
        self._retire = retire
        self._seen: dict[tuple[str, str], Any] = {}
        self._retired: list[Transport] = []
        self._made: list[Transport] = []
        if renewer is not None:
            self._seen = {key: renewer.fingerprint(*key) for key in transports}

    async def watch(self) -> None:
        """Look at the files, and take a new credential into use."""
        renewer = self._renewer
        if renewer is None or not any(self._seen.values()):
            return
        keys = list(self._seen)
        while True:
            await Signal().wait(_EVERY)
            # Files are read in a thread: a network file system may keep one waiting.
            found = await _in_thread(lambda: [renewer.fingerprint(*key) for key in keys])
            for key, now in zip(keys, found, strict=True):
                if now != self._seen[key] and await self.renew(*key):
                    # What waits because of the old one is due again; other workers hear of it with that, and look at the file too.
                    await patiently(partial(self._try_again, *key))

    async def _try_again(self, app: str, binding: str) -> None:
        await self._storage.retry_binding(app, binding, self._clock.now())

    async def renew(self, app: str, binding: str) -> bool:
        """Make the binding's transport anew if its credential has changed since it was made; whether it is in use. A broken one is
        not taken."""
        renewer, key = self._renewer, (app, binding)
        if renewer is None:
            return False
        found = await _in_thread(lambda: renewer.fingerprint(app, binding))
        if found == self._seen.get(key):
            return False
        self._seen[key] = found
        try:
            fresh = await _in_thread(lambda: renewer.make(app, binding))
            await fresh.__aenter__()
        except FanoutError as error:
            _log.error("%s/%s: the new credential cannot be used, the old one stays: %s", app, binding, error)
            return False
        old, self._transports[key] = self._transports[key], fresh
        _log.info("%s/%s: a new credential is in use", app, binding)
        self._retired.append(old)
        self._made.append(fresh)
        for work in self._works:
            if (work.app, work.binding) == key:
                work.replace(fresh)
        return True

    async def close_retired(self) -> None:
        """Close the transports that were replaced, once what they had under way has been answered."""
        while True:
            due = [*self._retired]  # what is retired during this wait is closed after the next
            await Signal().wait(self._retire)
            for transport in due:
                await transport.__aexit__(None, None, None)
                self._retired.remove(transport)
                if transport in self._made:
                    self._made.remove(transport)

    async def close(self) -> None:
        """Close what was made here; closing twice is harmless."""
        for transport in [*self._retired, *self._made]:
            await transport.__aexit__(None, None, None)


async def _in_thread(function: Callable[[], T]) -> T:
    """Call it off the loop, in a thread that ends with it: a pool's idle threads would outlive the engine."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def resolve(result: T | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as failure:
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, and nobody waits
            loop.call_soon_threadsafe(resolve, result, error)

    thread = threading.Thread(target=run, name="fanout credentials", daemon=True)
    thread.start()
    try:
        return await done
    finally:
        if done.done():
            thread.join()
