"""Bindings whose settings change while the engine runs: their transport is made anew, and parked deliveries go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from fanout.config import EVERY, BindingPart, BindingSettings, ConfigState, Owner, binding_parts, in_thread
from fanout.core.audit import AUDIT, Audit
from fanout.engine.binding_state import BindingState
from fanout.engine.context import EngineContext, Renewer
from fanout.engine.patience import retry_while_unavailable
from fanout.engine.signal import Signal
from fanout.errors import ConfigurationError, FanoutError, StorageUnavailable
from fanout.plugin import Transport

__all__ = ["Renewal"]

_log = logging.getLogger("fanout.renewal")
_PATIENCE = 2.0
"""Seconds that a look at the files may keep the loop waiting that follows operators."""


class Renewal:
    """The owner of one engine's bindings."""

    def __init__(
        self,
        context: EngineContext,
        transports: dict[tuple[str, str], Transport],
        states: list[BindingState],
        renewer: Renewer | None,
    ) -> None:
        self._storage = context.storage
        self._clock = context.clock
        self._transports = transports
        self._states = states
        self._renewer = renewer
        self._worker = context.worker
        self._retire = 2 * context.policy.request_timeout
        self._trouble = context.trouble
        self._retired: list[Transport] = []
        self._made: list[Transport] = []
        self._due: list[tuple[str, str]] = []
        """Bindings whose waiting deliveries are to be tried again."""
        self._lines: list[tuple[str, Audit]] = []
        """The lines for the audit log, each with its app."""
        self._recording = False
        self._reported = ConfigState()
        self._opened = False
        if renewer is not None:
            renewer.watcher.reads_secrets = False
            renewer.watcher.register(Owner("bindings", parts=binding_parts, prepare=self._prepare))

    def opens(self) -> None:
        """This engine opens its transports: one that only submits makes them, and reads no credential."""
        self._opened = True
        if self._renewer is not None:
            self._renewer.watcher.reads_secrets = True

    async def watch(self) -> None:
        """Look at the files of the configuration, and take the changes into use."""
        renewer = self._renewer
        if renewer is None or renewer.watcher.idle:
            return
        while True:
            await Signal().wait(EVERY)
            await renewer.watcher.look()
            await self._try_all_again()

    async def _try_all_again(self) -> None:
        """A delivery that waits because of the old settings is due again; other workers hear of it with that, and look
        at the files too. The audit log is told."""
        while self._due:
            await retry_while_unavailable(partial(self._try_again, *self._due.pop()), self._trouble)
        self._note()
        if self._recording:
            return  # the lines go one by one, in their order, also where an operator's look comes in between
        self._recording = True
        try:
            while self._lines:
                await self._storage.record(*self._lines[0], self._clock.now())
                del self._lines[0]
        except StorageUnavailable:
            pass  # at a later look: the files' contents count meanwhile
        finally:
            self._recording = False

    def _note(self) -> None:
        """The changes of the configuration since this was asked last: a line for each app."""
        assert self._renewer is not None
        before, self._reported = self._reported, self._renewer.watcher.state
        apps = sorted({app for app, _ in self._transports})
        if self._reported.taken > before.taken:
            parts = sorted(self._renewer.watcher.last)
            self._lines += [(app, self._line("config.taken", parts=_of_app(parts, app))) for app in apps]
        if self._reported.refused > before.refused:
            self._lines += [(app, self._line("config.refused")) for app in apps]

    def _line(self, kind: str, **data: Any) -> Audit:
        return Audit(kind=AUDIT + kind, by="config", data={**data, "worker": self._worker})

    async def _try_again(self, app: str, binding: str) -> None:
        await self._storage.retry_binding(app, binding, self._clock.now())

    async def look(self) -> None:
        """An operator says that something is mended: look at once, and believe the files."""
        if self._renewer is None:
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._renewer.watcher.look(believe=True)
        except TimeoutError:
            _log.warning(
                "The files of the configuration were not read within %g s: they are looked at again.", _PATIENCE
            )
        else:
            await self._try_all_again()  # an endpoint may have been asked meanwhile, with the former settings

    async def _prepare(self, parts: Mapping[str, BindingPart]) -> _Replacement:
        """The transports of changed bindings, open and not in use. Raises `FanoutError`."""
        assert self._renewer is not None
        replacement = _Replacement(self)
        try:
            for place, part in parts.items():
                try:
                    await replacement.add(part, self._renewer.make, opened=self._opened)
                except FanoutError as error:
                    text = str(error)
                    raise ConfigurationError(text if text.startswith(place) else f"{place}: {text}") from None
        except BaseException:
            replacement.discard()
            raise
        return replacement

    def take(self, key: tuple[str, str], fresh: Transport) -> None:
        """From now on send through `fresh`."""
        old, self._transports[key] = self._transports[key], fresh
        _log.info("%s/%s: new settings or a new credential are in use", key[0], key[1])
        self.retire(old)
        if self._opened:
            self._made.append(fresh)
        self._due.append(key)
        self._lines.append((key[0], self._line("binding.changed", binding=key[1])))
        for state in self._states:
            if (state.app, state.binding) == key:
                state.replace(fresh)

    def retire(self, transport: Transport) -> None:
        """Close it, once its requests under way have been answered."""
        if self._opened:
            self._retired.append(transport)

    async def close_retired(self) -> None:
        """Close the transports that were replaced, once their requests under way have been answered."""
        while True:
            due = [*self._retired]  # a transport that is retired during this wait is closed after the next
            await Signal().wait(self._retire)
            for transport in due:
                await transport.__aexit__(None, None, None)
                self._retired.remove(transport)
                if transport in self._made:
                    self._made.remove(transport)

    async def close(self) -> None:
        """Close the transports that were made here; closing twice is harmless."""
        for transport in [*self._retired, *self._made]:
            await transport.__aexit__(None, None, None)


class _Replacement:
    """New transports of some bindings, before they are in use."""

    def __init__(self, renewal: Renewal) -> None:
        self._renewal = renewal
        self._fresh: dict[tuple[str, str], Transport] = {}

    async def add(
        self, part: BindingPart, make: Callable[[str, str, BindingSettings], Transport], *, opened: bool
    ) -> None:
        fresh = await in_thread(lambda: make(part.app, part.binding, part.settings))
        if opened:
            await fresh.__aenter__()
        self._fresh[part.app, part.binding] = fresh

    def commit(self) -> None:
        for key, fresh in self._fresh.items():
            self._renewal.take(key, fresh)

    def discard(self) -> None:
        for fresh in self._fresh.values():
            self._renewal.retire(fresh)


def _of_app(parts: Iterable[str], app: str) -> list[str]:
    """The parts that this app may hear of: its own, and the shared ones."""
    return [part for part in parts if not part.startswith("apps.") or part.startswith(f"apps.{app}.transports.")]
