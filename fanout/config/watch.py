"""A configuration that changes while the program runs: read anew, checked as a whole, and handed in parts to those that
use them.

A *part* is a frozen piece of `Settings` with a name (`service`, `apps.shop.transports.apns`). An *owner* is the code
that uses parts and can take a new one without a restart; it registers itself:

    class Callers:
        async def prepare(self, parts: Mapping[str, ServiceSettings]) -> Change:
            return _NewCallers(self, parts["service"])      # builds the objects of the part, and changes nothing yet

    owner = Owner("service", parts=lambda settings: {"service": settings.service}, prepare=callers.prepare)
    unregister = engine.watcher.register(owner)

`prepare` is called with those of the owner's parts that have changed, and raises a `FanoutError` for settings that it
cannot use. Only when every owner has prepared its own does each `Change.commit` run, in one step of the loop; otherwise
each `Change.discard`. So a document is taken as a whole or not at all. A part without an owner, and one that is new or
gone, is taken at the next start, which is said.

One look at the files proves nothing: a writer may be half-way, a file unreadable for a moment, the link to a mounted
folder exchanged between two reads. A change counts when two looks, `EVERY` seconds apart, found the same texts, and
when the texts stood still while the document was read and its parts were prepared. Texts are compared and not times: a
file may be replaced with its times kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from fanout.config.marks import IRREGULAR, Marks, files_of, marks_of, secrets_of
from fanout.config.renew import renewed
from fanout.config.settings import BindingPart, Settings
from fanout.config.thread import in_thread
from fanout.errors import FanoutError

__all__ = ["EVERY", "Change", "ConfigState", "Owner", "Watcher", "binding_parts"]

EVERY = 1.0
"""Seconds between two looks at the files."""

_WHOLE = ("storage", "policy", "retention", "backlog", "service", "telemetry", "addresses")
"""The parts of a configuration that are tables of their own."""

_LONGEST = 10
"""Looks between two trials of a document that was refused and has not changed: a file that it names may exist by
now."""

_log = logging.getLogger("fanout.config")

T = TypeVar("T")


class Change(Protocol):
    """An owner's new parts, made and not yet in use. One of both is called, once, and does not fail."""

    def commit(self) -> None:
        """Use the new parts from now on."""

    def discard(self) -> None:
        """The old parts stay: let go of the new ones."""


@dataclass(frozen=True, slots=True)
class Owner(Generic[T]):
    """The code that uses some parts of a configuration. `name` is for logs.

    `parts` gives them by name from a whole configuration. `prepare` is awaited with those that have changed, and
    raises a `FanoutError` for settings that cannot be used.
    """

    name: str
    parts: Callable[[Settings], Mapping[str, T]]
    prepare: Callable[[Mapping[str, T]], Awaitable[Change]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigState:
    """The state of changes since the start. `taken` and `refused` count documents.

    `problem` says why the files as they stand are not in use; "" where they are. `at_restart` names the parts that
    differ from those in use and are taken at the next start.
    """

    origin: str = ""
    taken: int = 0
    refused: int = 0
    problem: str = ""
    at_restart: tuple[str, ...] = ()


def binding_parts(settings: Settings) -> dict[str, BindingPart]:
    """Each binding by the name of its table. Another transport under the same name is another part: its addresses are
    not the same.

    Args:
        settings: The configuration.

    Returns:
        The bindings by name.
    """
    found = {}
    for app, binding, chosen in settings.bindings():
        kind = "" if chosen.type == binding else f" ({chosen.type})"
        found[f"apps.{app}.transports.{binding}{kind}"] = BindingPart(app, binding, chosen)
    return found


class Watcher:
    """Looks at the files of one configuration when told to. Not for several event loops.

    Args:
        settings: The configuration in use.
    """

    def __init__(self, settings: Settings) -> None:
        self._again = settings.again or (lambda: _reread(settings))
        self._owners: list[Owner[Any]] = []
        self._lock = asyncio.Lock()
        self._origin = frozenset({settings.origin} if settings.origin else ())
        self._files = self._origin | _files(settings)
        marks = marks_of(self._files)
        pipes = [path for path, mark in marks.items() if mark == IRREGULAR]
        if pipes:
            _log.info("Changes of the configuration are not looked for: %s can be read only once.", ", ".join(pipes))
            self._files = frozenset()
        self._in_use = _marked(_parts(settings), marks)
        self._settled: Marks | None = None
        """The texts that were dealt with last. None at first: a file may have changed between the start's reading and
        this line."""
        self._seen: Marks = marks
        self._refused_at: Marks | None = None
        self._pause = self._left = 0
        self.reads_secrets = True
        """Whether credentials are used here; a process that only submits may not be allowed to read them."""
        self.settings = settings
        """The configuration in use."""
        self.state = ConfigState(origin=settings.origin)
        self.last: frozenset[str] = frozenset()
        """The names of the parts that were taken last."""

    @property
    def idle(self) -> bool:
        """Whether there is no file to look at."""
        return not self._files

    def register(self, owner: Owner[Any]) -> Callable[[], None]:
        """Hand an owner its changed parts from now on; it has those of `settings` in use.

        Args:
            owner: The owner.

        Returns:
            A function that ends it.
        """
        self._owners.append(owner)
        self._settled = None  # its parts may have changed before it came
        return lambda: self._owners.remove(owner) if owner in self._owners else None

    async def look(self, *, believe: bool = False) -> bool:
        """Look at the files, and take a changed configuration into use.

        Args:
            believe: Whether one look is enough: an operator has said that the files are ready.

        Returns:
            Whether a changed configuration is in use now.
        """
        if self.idle:
            return False
        async with self._lock:
            return await self._look(believe)

    async def _look(self, believe: bool) -> bool:
        found = await in_thread(lambda: marks_of(self._files))
        if self._settled is not None and _same(found, self._settled):
            self._recovered()
            return False
        if found != self._seen:
            self._seen = await in_thread(self._look_ahead)
            if not believe:
                return False
        if not believe and self._refused_at == self._seen and self._left > 0:
            self._left -= 1
            return False
        try:
            return await self._take()
        except _Moved:
            return False
        except FanoutError as error:
            self._refuse(str(error))
        except Exception as error:
            # A plugin's own text may hold the values that it was given.
            self._refuse(f"{type(error).__name__} escaped from a plugin; report it to its authors.")
        return False

    def _look_ahead(self) -> Marks:
        """The marks of all files that matter, with those that the changed document names."""
        try:
            named = _files(self._again())
        except Exception:
            named = frozenset()  # told when it has settled
        self._files |= named
        return marks_of(self._files)

    async def _take(self) -> bool:
        new, marks, parts, changed = await in_thread(self._read)
        made: list[Change] = []
        taken: set[str] = set()
        try:
            for owner in tuple(self._owners):
                mine = {name: part for name, part in owner.parts(new).items() if name in changed}
                if mine:
                    made.append(await owner.prepare(mine))
                    taken |= mine.keys()
            if await in_thread(lambda: marks_of(marks)) != marks:
                raise _Moved
        except BaseException:
            for change in made:
                change.discard()
            raise
        for change in made:
            change.commit()
        self._in_use |= {name: parts[name] for name in taken}
        self.settings = _with(self.settings, new, taken)
        self._settled = self._seen = marks
        self._files = frozenset(marks)
        self._accepted(taken, (changed - taken) | (parts.keys() ^ self._in_use.keys()))
        return bool(taken)

    def _read(self) -> tuple[Settings, Marks, dict[str, tuple[Any, Marks]], set[str]]:
        """The configuration that stands in the files, their marks, its parts, and which of those in use have changed.

        Read twice, so that no file changed during the second time. Compared here and not on the loop: a secret that was
        not used yet is read for it.
        """
        marks = marks_of(self._origin | _files(self._again()))
        new = self._again()
        if self.reads_secrets:
            for secret in secrets_of(_parts(new)):
                secret.reveal()  # now, while the files stand still
        if marks != marks_of(self._origin | _files(new)):
            raise _Moved
        parts = _marked(_parts(new), marks)
        return new, marks, parts, {name for name, part in parts.items() if self._in_use.get(name, part) != part}

    # -- messages

    def _accepted(self, taken: set[str], late: set[str]) -> None:
        names = tuple(sorted(late))
        if taken:
            self.last = frozenset(taken)
            _log.info("A changed configuration is in use: %s.", ", ".join(sorted(taken)))
        if names and names != self.state.at_restart:
            _log.warning("The configuration has changed in %s: that is taken at the next start.", ", ".join(names))
        self._recovered()
        self.state = replace(self.state, taken=self.state.taken + bool(taken), at_restart=names)

    def _refuse(self, problem: str) -> None:
        first = problem != self.state.problem
        if self._refused_at != self._seen:
            self._refused_at, self._pause = self._seen, 1
        else:
            self._pause = min(_LONGEST, 2 * self._pause)
        self._left = self._pause
        if first:
            _log.error("The changed configuration is refused, and the one in use stays: %s", problem)
            self.state = replace(self.state, problem=problem, refused=self.state.refused + 1)

    def _recovered(self) -> None:
        self._refused_at = None
        if self.state.problem:
            _log.info("The configuration in use is that of its files again.")
            self.state = replace(self.state, problem="")


class _Moved(Exception):
    """A file changed while it was read: the next look sees more."""


def _same(found: Marks, settled: Marks) -> bool:
    return all(found.get(path) == mark for path, mark in settled.items())


def _parts(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in _WHOLE} | binding_parts(settings)


def _with(old: Settings, new: Settings, taken: set[str]) -> Settings:
    """The old configuration with the parts of the new one that were taken."""
    apps = {app: dict(of_app) for app, of_app in old.apps.items()}
    for name, part in binding_parts(new).items():
        if name in taken:
            apps[part.app][part.binding] = part.settings
    return replace(old, apps=apps, **{name: getattr(new, name) for name in _WHOLE if name in taken})


def _files(settings: Settings) -> frozenset[str]:
    return files_of(_parts(settings))


def _marked(parts: Mapping[str, Any], marks: Marks) -> dict[str, tuple[Any, Marks]]:
    """Each part with the marks of its own files: a secret may be read only when it is used."""
    return {name: (part, {path: marks[path] for path in files_of(part)}) for name, part in parts.items()}


def _reread(settings: Settings) -> Settings:
    """Settings that were made in a program: the same, with their secrets as they stand in their files now."""
    apps = {
        app: {binding: replace(chosen, settings=renewed(chosen.settings)) for binding, chosen in of_app.items()}
        for app, of_app in settings.apps.items()
    }
    return replace(settings, apps=apps)
