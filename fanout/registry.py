"""Which transports and storage backends are installed, found through entry points and loaded when first used.

`fanout` knows none of them by name: the built-in ones are found exactly as a stranger's are. A plugin that cannot be
loaded disables itself and nothing else, and says why when it is asked for. Levels above the engine import this module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, Literal, TypeAlias

from fanout.errors import ConfigurationError, PluginError
from fanout.plugin import (
    API,
    OLDEST_TRANSPORT,
    Context,
    Storage,
    StorageContext,
    StoragePlugin,
    Transport,
    TransportPlugin,
)
from fanout.plugin.storage import unfit

__all__ = ["PluginInfo", "Registry"]

Kind = Literal["transport", "storage"]
Descriptor: TypeAlias = TransportPlugin | StoragePlugin

_GROUPS: dict[str, Kind] = {"fanout.transports": "transport", "fanout.storage": "storage"}
_DESCRIPTORS: dict[Kind, type[Descriptor]] = {"transport": TransportPlugin, "storage": StoragePlugin}


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plugin as `fanout doctor` lists it. `state` is `found` until it is loaded; `problem` says why one is
    `broken`."""

    kind: Kind
    name: str
    distribution: str
    version: str
    state: Literal["found", "loaded", "broken"] = "found"
    problem: str = ""


@dataclass(slots=True)
class _Plugin:
    info: PluginInfo
    entry: EntryPoint
    descriptor: Descriptor | None = None


class Registry:
    """The plugins of one environment. Making it reads metadata only; nothing is imported before it is used."""

    def __init__(self, installed: Iterable[Distribution] | None = None) -> None:
        """`installed` are the distributions to look at; None means all that Python can see."""
        self._plugins: list[_Plugin] = []
        self._given: Mapping[str, Descriptor] = {}
        seen: set[str] = set()
        for distribution in distributions() if installed is None else installed:
            entries = [entry for entry in distribution.entry_points if entry.group in _GROUPS]
            if not entries:
                continue
            about = distribution.metadata  # parsed at each look
            name = about["Name"] or "a distribution without a name"
            # A distribution that lies twice on the path (a checkout and its installation) counts once, as it does for
            # import.
            if name.lower() in seen:
                continue
            seen.add(name.lower())
            for entry in entries:
                info = PluginInfo(_GROUPS[entry.group], entry.name, name, about["Version"])
                self._plugins.append(_Plugin(info, entry))
        self._plugins.sort(key=lambda plugin: (plugin.info.kind, plugin.info.name, plugin.info.distribution))

    def holding(self, given: Mapping[str, Descriptor]) -> Registry:
        """This registry and the descriptors that a program gave itself, by the place in its configuration: `storage`,
        or `apps.APP.transports.BINDING`. Raises `PluginError` for one that cannot be used."""
        for place, descriptor in given.items():
            if problem := _flaw("storage" if place == "storage" else "transport", descriptor):
                raise PluginError(f"{place}: {problem}")
        more = Registry(())
        more._plugins, more._given = self._plugins, {**self._given, **given}
        return more

    def names(self, kind: Kind) -> list[str]:
        """The names of one kind, each once, in order."""
        return list(dict.fromkeys(plugin.info.name for plugin in self._plugins if plugin.info.kind == kind))

    def list(self, *, load: bool = False) -> Sequence[PluginInfo]:
        """Every plugin. With `load` each is loaded first, and the broken ones say what is wrong."""
        if load:
            for plugin in self._plugins:
                _load(plugin)
            return [self._judged(plugin) for plugin in self._plugins]
        return [plugin.info for plugin in self._plugins]

    def transports(self) -> dict[str, TransportPlugin]:
        """The descriptors of all transports that can be loaded, by name. Raises `PluginError` for a name that two
        distributions offer."""
        names = [info.name for info in self.list(load=True) if info.kind == "transport" and info.state == "loaded"]
        return {name: self.transport(name) for name in names}

    def transport(self, name: str, place: str = "") -> TransportPlugin:
        """The descriptor of a transport.

        Raises `ConfigurationError`, which names `place` and lists what is installed, when there is none of that name;
        `PluginError` when it is broken or when two distributions offer it.
        """
        descriptor = self._find("transport", name, place)
        assert isinstance(descriptor, TransportPlugin)
        return descriptor

    def storage(self, scheme: str) -> StoragePlugin:
        """The descriptor of the storage backend of a scheme. Raises as `transport` does."""
        descriptor = self._find("storage", scheme, "storage")
        assert isinstance(descriptor, StoragePlugin)
        return descriptor

    def settings_type(self, name: str, place: str) -> type:
        """The settings dataclass of a transport, which `fanout.config.load` asks for. Raises as `transport` does."""
        return self.transport(name, place).settings

    def make_transport(self, name: str, settings: Any, context: Context) -> Transport:
        """A transport of that name. Raises `PluginError` when what it needs is not installed."""
        descriptor = self.transport(name, f"apps.{context.app}.transports.{context.binding}")
        factory = self.resolve("transport", name, descriptor.factory)
        transport: Transport = factory(settings, context)
        return transport

    def make_storage(self, text: str, context: StorageContext) -> Storage:
        """The storage that SCHEME:LOCATION names, not opened. Raises `PluginError` when what it needs is not
        installed."""
        scheme, _, location = text.partition(":")
        factory = self.resolve("storage", scheme, self.storage(scheme).factory)
        storage: Storage = factory(location, context)
        if problem := unfit(storage):
            raise PluginError(f"The storage {scheme} makes a {type(storage).__name__} {problem}")
        return storage

    def lacking(self, info: PluginInfo) -> str:
        """The requirement of a loaded plugin that cannot be imported, as a sentence; "" where it can be made. Its
        module is imported for that."""
        plugin = next((each for each in self._plugins if each.info == info), None)
        if plugin is None or plugin.descriptor is None:
            return ""
        try:
            self.resolve(info.kind, info.name, plugin.descriptor.factory)
        except PluginError as error:
            absent = (
                getattr(error.__cause__, "name", None) if isinstance(error.__cause__, ModuleNotFoundError) else None
            )
            if absent is None:
                return str(error)
            return f"{info.name}: {absent} is not installed: {_remedy(plugin.descriptor.extra)}."
        return ""

    def resolve(self, kind: Kind, name: str, part: str | Callable[..., Any]) -> Callable[..., Any]:
        """The object that a descriptor names as "module:attribute", imported. Raises `PluginError` when that fails."""
        if not isinstance(part, str):
            return part
        try:
            module, _, attribute = part.partition(":")
            found: Callable[..., Any] = getattr(import_module(module), attribute)
        except MemoryError:
            raise  # no fault of the plugin
        except Exception as error:
            plugin = next(iter(self._matching(kind, name)), None)
            if plugin is None:
                raise PluginError(
                    f"The {kind} {name} that the program gave cannot import {part} ({_cause(error)})."
                ) from error
            remedy = _remedy(plugin.descriptor.extra if plugin.descriptor else "")
            raise PluginError(
                f"The {kind} {name} of {_origin(plugin.info)} cannot import {part} ({_cause(error)}): {remedy}."
            ) from error
        return found

    def _find(self, kind: Kind, name: str, place: str) -> Descriptor:
        if place in self._given:
            return self._given[place]
        plugins = self._matching(kind, name)
        if not plugins:
            what = "storage backend" if kind == "storage" else "transport"
            where = f"{place}: no" if place else "No"
            raise ConfigurationError(
                f"{where} {what} called {name!r} is installed; there is {', '.join(self.names(kind)) or 'none at all'}. "
                f"Correct the name, or install the distribution that brings it."
            )
        if len(plugins) > 1:
            raise PluginError(
                f"The {kind} {name} is offered by {' and '.join(_origin(p.info) for p in plugins)}: uninstall one of them."
            )
        plugin = plugins[0]
        _load(plugin)
        if plugin.descriptor is None:
            raise PluginError(f"The {kind} {name} of {_origin(plugin.info)} cannot be used: {plugin.info.problem}")
        return plugin.descriptor

    def _matching(self, kind: Kind, name: str) -> Sequence[_Plugin]:
        return [plugin for plugin in self._plugins if (plugin.info.kind, plugin.info.name) == (kind, name)]

    def _judged(self, plugin: _Plugin) -> PluginInfo:
        others = [other for other in self._matching(plugin.info.kind, plugin.info.name) if other is not plugin]
        if not others or plugin.info.state == "broken":
            return plugin.info
        problem = f"{_origin(others[0].info)} offers the same name: uninstall one of them."
        return dataclasses.replace(plugin.info, state="broken", problem=problem)


def _load(plugin: _Plugin) -> None:
    """Import the descriptor once, and note what came of it."""
    if plugin.info.state != "found":
        return
    try:
        found = plugin.entry.load()
    except MemoryError:
        raise
    except Exception as error:
        problem = f"{plugin.entry.value} cannot be imported ({_cause(error)}); reinstall it or uninstall it."
    else:
        problem = _flaw(plugin.info.kind, found)
        if not problem:
            plugin.descriptor = found
    plugin.info = dataclasses.replace(plugin.info, state="broken" if problem else "loaded", problem=problem)


def _flaw(kind: Kind, found: object) -> str:
    wanted = _DESCRIPTORS[kind]
    if not isinstance(found, wanted):
        return f"its entry point names a {type(found).__name__}, not a {wanted.__name__}; install a release that does."
    oldest = OLDEST_TRANSPORT if kind == "transport" else API
    if not oldest <= found.api <= API:
        return (
            f"it is written for level {found.api} of the plugin contract and this fanout has level {API}; "
            f"install a release of it for level {API}."
        )
    if isinstance(found, TransportPlugin) and not (
        isinstance(found.settings, type) and dataclasses.is_dataclass(found.settings)
    ):
        return "its settings are not a dataclass; install a release that corrects it."
    return ""


def _remedy(extra: str) -> str:
    return f"install its extra {extra!r} (from a checkout: pip install '.[{extra}]')" if extra else "reinstall it"


def _origin(info: PluginInfo) -> str:
    return f"{info.distribution} {info.version}"


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
