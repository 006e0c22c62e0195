"""The composition root: settings -> plugins -> storage and transports -> engine. The only place that wires them
together."""

from __future__ import annotations

import dataclasses
import functools
import gc
import logging
import os
import random
import sys
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fanout.config import AddressSettings, BindingSettings, Document, Settings, Telemetry, Watcher, load
from fanout.core.policy import BacklogLimits, Policy, Retention
from fanout.core.proxy import way_to
from fanout.core.secret import Secret
from fanout.engine import Engine, EngineOptions, FleetLink, Renewer, Role
from fanout.engine.randomness import fork_safe_random
from fanout.errors import ConfigurationError, UsageError
from fanout.plugin import (
    Clock,
    Context,
    Sealer,
    Storage,
    StorageContext,
    StoragePlugin,
    Transport,
    TransportPlugin,
    clock_of,
)
from fanout.plugin.storage import unfit
from fanout.registry import Registry

__all__ = [
    "Parts",
    "SystemClock",
    "dedicate_process",
    "loop_factory",
    "make_settings",
    "open",
    "prepare",
    "storage_context",
]


class SystemClock:
    """The time of this machine. `monotonic` counts the time for which it was suspended too, where the system has such a
    clock (Linux)."""

    # The functions themselves, not methods around them: both are called for each delivery.
    now = staticmethod(time.time)
    monotonic = staticmethod(
        functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)
        if hasattr(time, "CLOCK_BOOTTIME")
        else time.monotonic
    )
    awake = staticmethod(time.monotonic)


_log = logging.getLogger("fanout")


def dedicate_process() -> None:
    """Set the interpreter for a program that only delivers: a cycle collector that looks seldom, and threads that take
    turns sooner.

    A window of leases is thousands of young tuples that no cycle runs through: looked at every 700 allocations, as
    Python does by itself, they cost a third of the engine's time. Not done by `open`: how a host's interpreter is set
    is its own affair.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # The storage's thread asks for the interpreter at each step of each statement; beside a busy loop each asking takes
    # as long as this, and Python's own 5 ms make tens of them for one durable `send`.
    sys.setswitchinterval(0.0005)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that an engine is made of, made and not yet opened."""

    settings: Settings
    storage: Storage
    transports: Mapping[tuple[str, str], Transport]
    clock: Clock
    rng: random.Random
    renewer: Renewer | None = None
    link: FleetLink | None = None
    names: Collection[str] = ()

    def engine(self, *, role: Role = "both", hooks: Sequence[object] = (), drain_timeout: float = 10.0) -> Engine:
        """The engine of these parts, to be entered once."""
        return Engine(
            self.storage,
            self.transports,
            EngineOptions(
                clock=self.clock,
                rng=self.rng,
                policy=self.settings.policy,
                role=role,
                hooks=hooks,
                drain_timeout=drain_timeout,
                backlog=self.settings.backlog,
                renewer=self.renewer,
                link=self.link,
                apps=self.settings.apps,
                names=self.names,
            ),
        )


def open(
    config: str | os.PathLike[str] | Mapping[str, Any] | Settings | None = None,
    *,
    storage: str | Storage | StoragePlugin | tuple[StoragePlugin, str] | None = None,
    transports: Mapping[str, Any] | None = None,
    apps: Mapping[str, Mapping[str, Any]] | None = None,
    policy: Policy | Mapping[str, Any] | None = None,
    retention: Retention | Mapping[str, Any] | None = None,
    backlog: BacklogLimits | Mapping[str, Any] | None = None,
    telemetry: Telemetry | Mapping[str, Any] | None = None,
    addresses: AddressSettings | Mapping[str, Any] | None = None,
    proxy: Secret | str | None = None,
    role: Role = "both",
    hooks: Sequence[object] = (),
    drain_timeout: float = 10.0,
    clock: Clock | None = None,
    rng: random.Random | None = None,
    registry: Registry | None = None,
) -> Engine:
    """An engine, to be entered: `async with fanout.open(...) as engine`. The configuration is read and checked at this
    call; the database is opened by `async with`.

    The configuration is `config`, or the keyword arguments from `storage` to `proxy`; or, with neither, the file that
    the environment variable FANOUT_CONFIG names, else ./fanout.toml. A path in keyword arguments starts at the current
    folder.

    In the place of a binding's settings may stand a transport object, or a `TransportPlugin` with its settings,
    `(plugin, {…})`: a test, a notebook or a program of one file needs no distribution with entry points. So may a
    storage object or `(StoragePlugin, location)` in the place of `storage`. Give each open engine objects of its own.
    Commands of the shell cannot load them.

    Args:
        config: The path of a TOML file, a mapping of the same shape, or `Settings`.
        storage: The location of the database, such as "sqlite:fanout.db", "postgresql://…" or "memory:", or a storage.
        transports: The bindings of the app `default`: the settings of each by its name.
        apps: The bindings of several apps: for each app a mapping as `transports` has it.
        policy: Time limits, attempts and backoff, as the table `[policy]` has them.
        retention: For how long finished things are kept, as the table `[retention]` has it.
        backlog: The bounds on the deliveries that may wait, as the table `[backlog]` has them.
        telemetry: The traces that are written, as the table `[telemetry]` has them.
        addresses: The key that seals device addresses in the database, as the table `[addresses]` has it.
        proxy: The egress proxy of all bindings that name none.
        role: The part of this process: `submit` accepts notifications and sends none, `work` sends, `both` does both.
        hooks: Objects with the methods `on_settled` or `on_event`, which are called with events in batches.
        drain_timeout: Seconds for which leaving waits for the answers to sends that are under way.
        clock: The clock of this process, in tests; None for the machine's.
        rng: The source of jitter and ids, in tests; None for one that a fork reseeds.
        registry: The plugins; None for those that are installed.

    Returns:
        The engine, not yet open.

    Raises:
        StorageError: On entering: the database cannot be opened.
        UsageError: Arguments contradict each other, or are of another kind.
        ConfigurationError: A setting is missing, unknown or malformed, or a transport or storage of that name is not
            installed.
        PluginError: A plugin cannot be loaded or used, such as for a package that it needs; or two have its name.

    Example:
        ```python
        async with fanout.open(storage="memory:", transports={"pigeon": ScriptedTransport()}) as engine:
            await engine.endpoints.register(user="alice", binding="pigeon", address="phone")
            receipt = await engine.send(fanout.Notification(title="Hello"), "user:alice")
            await receipt.wait(10)
        ```
    """
    if role not in ("submit", "work", "both"):
        raise UsageError(f"role is {role!r}: use submit, work or both.")
    registry = Registry() if registry is None else registry
    hand = _Hand()
    if isinstance(config, Mapping):
        config = hand.document(config)
    named: str | None = None if storage is None else hand.storage(storage)
    transports = None if transports is None else hand.bindings("default", transports)
    apps = None if apps is None else {app: hand.bindings(app, each) for app, each in apps.items()}
    registry = registry.holding(hand.given)
    keywords = {
        "storage": named,
        "transports": transports,
        "apps": apps,
        "policy": policy,
        "retention": retention,
        "backlog": backlog,
        "telemetry": telemetry,
        "addresses": addresses,
        "proxy": proxy,
    }
    settings = make_settings(config, keywords, registry=registry)
    return prepare(settings, registry, clock=clock, rng=rng).engine(role=role, hooks=hooks, drain_timeout=drain_timeout)


@dataclass(frozen=True, slots=True)
class _Ready:
    """The settings of a transport that is made already."""

    get: Callable[[], Transport] = dataclasses.field(repr=False)


class _Hand:
    """Takes objects out of a configuration and leaves readable values in their place. `given` are their descriptors, by
    place."""

    def __init__(self) -> None:
        self.given: dict[str, TransportPlugin | StoragePlugin] = {}
        self._seen: dict[int, str] = {}

    def document(self, tables: Mapping[str, Any]) -> Mapping[str, Any]:
        changed = dict(tables)
        if "storage" in tables:
            changed["storage"] = self.storage(tables["storage"])
        if isinstance(apps := tables.get("apps"), Mapping):
            changed["apps"] = {
                app: {**table, "transports": self.bindings(app, table["transports"])}
                if isinstance(table, Mapping) and "transports" in table
                else table
                for app, table in apps.items()
            }
        return changed

    def storage(self, given: Any) -> Any:
        value: Any = given
        if isinstance(value, StoragePlugin):
            value = (value, "")
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], StoragePlugin):
            self.given["storage"] = value[0]
            return f"{value[0].name}:{value[1]}"
        if isinstance(value, type) or not hasattr(value, "lease"):
            return value
        made: Any = value
        if problem := unfit(made):
            raise UsageError(f"storage is a {type(value).__name__} {problem}")
        self._once("storage", value)
        self.given["storage"] = StoragePlugin(name="object", factory=lambda location, context: made)
        return f"object:{type(value).__name__}"

    def bindings(self, app: str, bindings: Any) -> Any:
        if not isinstance(bindings, Mapping):
            return bindings
        return {
            binding: self._binding(f"apps.{app}.transports.{binding}", binding, each)
            for binding, each in bindings.items()
        }

    def _binding(self, place: str, binding: str, value: Any) -> Any:
        if isinstance(value, TransportPlugin):
            value = (value, {})
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], TransportPlugin):
            plugin, settings = value
            self.given[place] = plugin
            return {**settings, "type": plugin.name} if isinstance(settings, Mapping) else settings
        if isinstance(value, (Mapping, type)) or not (hasattr(value, "prepare") or hasattr(value, "send")):
            return value
        missing = [name for name in _TRANSPORT if not hasattr(value, name)]
        if missing:
            raise UsageError(
                f"{place} is a {type(value).__name__} without {', '.join(missing)}: see fanout.plugin for what it has to have."
            )
        self._once(place, value)
        made: Any = value
        self.given[place] = TransportPlugin(name=binding, settings=_Ready, factory=lambda ready, context: ready.get())
        return _Ready(lambda: made)

    def _once(self, place: str, value: object) -> None:
        if id(value) in self._seen:
            raise UsageError(f"{place} is the same object as {self._seen[id(value)]}: give each an object of its own.")
        self._seen[id(value)] = place


_WHOLE: dict[str, type] = {"policy": Policy, "retention": Retention, "backlog": BacklogLimits, "telemetry": Telemetry}
_TRANSPORT = ("__aenter__", "__aexit__", "parse_address", "prepare", "capacity", "send", "check")


def make_settings(
    config: str | os.PathLike[str] | Mapping[str, Any] | Settings | None,
    keywords: Mapping[str, Any] = MappingProxyType({}),
    *,
    registry: Registry,
) -> Settings:
    """The configuration that `config`, or the `keywords` of `open` (those that are None count as left out), mean.

    Raises `ConfigurationError`, `PluginError` and `UsageError`.
    """
    given = [name for name, value in keywords.items() if value is not None]
    if config is not None and given:
        raise UsageError(
            f"config and {given[0]} are both given: put {given[0]} into the configuration, or leave config out."
        )
    if isinstance(config, Settings):
        return config
    if not given:
        return load(config, registry.settings_type)

    tables: dict[str, Any] = {}
    whole: dict[str, Any] = {}
    for name in given:
        (whole if isinstance(keywords[name], _WHOLE.get(name, ())) else tables)[name] = keywords[name]
    transports = tables.pop("transports", None)
    tables["apps"] = {app: {"transports": bindings} for app, bindings in tables.get("apps", {}).items()}
    if transports is not None:
        if "default" in tables["apps"]:
            raise UsageError("transports and apps['default'] are both given, for the same app: leave one out.")
        tables["apps"]["default"] = {"transports": transports}
    return dataclasses.replace(load(Document.of(tables), registry.settings_type), **whole)


def prepare(
    settings: Settings,
    registry: Registry,
    *,
    clock: Clock | None = None,
    rng: random.Random | None = None,
    create: bool = True,
) -> Parts:
    """The storage and the transports of `settings`, made and not opened. Raises `ConfigurationError` and `PluginError`.

    Without `create` opening raises `StorageAbsent` where there is no database yet: for code that only looks.
    """
    clock = SystemClock() if clock is None else clock
    rng = fork_safe_random() if rng is None else rng
    storage = registry.make_storage(settings.storage, storage_context(settings, registry, clock, create=create))
    clock = clock_of(storage, clock)
    link = FleetLink(storage, clock) if storage.shared else None
    traces = settings.telemetry.traces

    def make(app: str, binding: str, chosen: BindingSettings) -> Transport:
        context = Context(app=app, binding=binding, clock=clock, rng=rng, policy=settings.policy, fleet=link)
        try:
            made = registry.make_transport(chosen.type, chosen.settings, context)
        except (UsageError, ConfigurationError) as error:
            raise ConfigurationError(f"apps.{app}.transports.{binding}: {error}") from None
        for host, way in ways_of(made).items():
            if way != way_to(None):
                _log.info("%s/%s: %s is reached %s.", app, binding, host, way)
        if not traces:
            return made
        from fanout.metrics.tracing import traced

        return traced(made, traces, context=context, system=chosen.type)

    transports = {(app, binding): make(app, binding, chosen) for app, binding, chosen in settings.bindings()}
    renewer = Renewer(Watcher(settings), make)
    names = {*registry.names("transport"), *(chosen.type for _, _, chosen in settings.bindings())}
    return Parts(settings, storage, transports, clock, rng, renewer, link, names)


def ways_of(transport: Transport) -> Mapping[str, str]:
    """By which way a transport's hosts are reached, as far as it says."""
    ways: Callable[[], Mapping[str, str]] | None = getattr(transport, "ways", None)
    try:
        return {} if ways is None else ways()
    except ConfigurationError:
        return {}  # the proxy stands in a file that cannot be read, and its user reports that


def storage_context(settings: Settings, registry: Registry, clock: Clock, *, create: bool = True) -> StorageContext:
    """The context of the storage of `settings`. Raises `ConfigurationError` for an address key that is none, or is of
    no use."""
    if settings.addresses.key is None:
        return StorageContext(clock=clock, retention=settings.retention, create=create)
    try:
        sealer = Sealer.of(settings.addresses.key)
    except UsageError as error:
        raise ConfigurationError(f"addresses.key: {error}") from None
    scheme = settings.storage.partition(":")[0]
    if registry.storage(scheme).seal is None:
        raise ConfigurationError(
            f"addresses.key is set, and the storage {scheme} cannot seal addresses: take the key out, or use another storage."
        )
    return StorageContext(clock=clock, retention=settings.retention, sealer=sealer, create=create)


def loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """The factory of the event loop where this package starts one: uvloop's where it is installed, else the standard
    one (None)."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], AbstractEventLoop] = uvloop.new_event_loop
    return factory
