"""The settings of a configuration of which every part has been checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fanout.config.service import ServiceSettings
from fanout.core.policy import BacklogLimits, Policy, Retention
from fanout.core.secret import Secret
from fanout.errors import UsageError

__all__ = ["AddressSettings", "BindingPart", "BindingSettings", "Settings", "Telemetry"]


@dataclass(frozen=True, slots=True)
class BindingSettings:
    """One binding: the transport's name, and an instance of that transport's settings dataclass."""

    type: str
    settings: Any


@dataclass(frozen=True, slots=True)
class BindingPart:
    """One binding with its names."""

    app: str
    binding: str
    settings: BindingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """The engine's traces.

    Attributes:
        traces: The share of attempts, 0 to 1, that get an OpenTelemetry span.

    Raises:
        UsageError: `traces` is no such share.
    """

    traces: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.traces <= 1:
            raise UsageError(
                f"traces is {self.traces!r}: give the share of attempts to trace, from 0 to 1, such as 0.01."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressSettings:
    """How device addresses are kept. With `key` (a key a line, see `fanout keys address`) none stands in the database
    in clear."""

    key: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A whole configuration. Made by `fanout.config.load`; hand it to `fanout.open(config=…)`.

    Attributes:
        storage: SCHEME:LOCATION, hidden from `repr` because a URL may hold a password.
        apps: The bindings of each app, by name.
        policy, retention, backlog, service, telemetry, addresses: The tables of these names.
        folder: The folder at which relative paths started.
        origin: The path of the file; empty where there was none.
    """

    storage: str = field(repr=False)
    apps: Mapping[str, Mapping[str, BindingSettings]]
    policy: Policy = field(default_factory=Policy)
    retention: Retention = field(default_factory=Retention)
    backlog: BacklogLimits = field(default_factory=BacklogLimits)
    service: ServiceSettings = field(default_factory=ServiceSettings)
    telemetry: Telemetry = field(default_factory=Telemetry)
    addresses: AddressSettings = field(default_factory=AddressSettings)
    folder: Path = field(default_factory=Path)
    origin: str = ""
    again: Callable[[], Settings] | None = field(default=None, init=False, repr=False, compare=False)
    """Reads the same source anew. Set by `load`; a copy that was changed in a program has none, for it differs from its
    source."""

    def bindings(self) -> Iterator[tuple[str, str, BindingSettings]]:
        """Every binding, in the order of the configuration.

        Yields:
            The app, the binding's name, and its settings.
        """
        for app, bindings in self.apps.items():
            for binding, settings in bindings.items():
                yield app, binding, settings
