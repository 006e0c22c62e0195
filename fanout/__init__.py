"""fanout: an asyncio push-delivery engine. Tell Alice, and every device she has gets it.

    async with fanout.open("fanout.toml") as engine:
        receipt = await engine.send(fanout.Notification(title="Hello"), "user:alice")

Names are imported when they are first used, so that importing `fanout` costs next to nothing. `fanout.sync` is the same
for callers without an event loop; authors of plugins import `fanout.plugin`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fanout.bootstrap import open
    from fanout.config import Settings
    from fanout.core.endpoint import Endpoint, EndpointState
    from fanout.core.fleet import WorkerNote
    from fanout.core.model import Action, Notification, Target
    from fanout.core.outcome import (
        Accepted,
        Deferred,
        Gone,
        Misconfigured,
        Moved,
        Outcome,
        Rejected,
        Scope,
        Throttled,
        Unavailable,
    )
    from fanout.core.policy import BacklogLimits, Policy, Retention
    from fanout.core.records import Event, GateNote, Status, Step
    from fanout.core.secret import Secret
    from fanout.core.states import DeliveryState, NotificationState, Waiting
    from fanout.engine import Engine, LiveEvent, Receipt
    from fanout.errors import (
        AddressInvalid,
        Backlogged,
        ConfigurationError,
        Conflict,
        EngineClosed,
        FanoutError,
        InvalidMessage,
        MessageTooLarge,
        NotFound,
        PluginError,
        StorageAbsent,
        StorageError,
        StorageFull,
        StorageRefused,
        StorageUnavailable,
        UsageError,
        WrongLoop,
    )

__version__: str
"""The version of the installed distribution."""

_MODULES = {
    "bootstrap": ("open",),
    "config": ("Settings",),
    "core.endpoint": ("Endpoint", "EndpointState"),
    "core.fleet": ("WorkerNote",),
    "core.model": ("Action", "Notification", "Target"),
    "core.outcome": (
        "Accepted",
        "Deferred",
        "Gone",
        "Misconfigured",
        "Moved",
        "Outcome",
        "Rejected",
        "Scope",
        "Throttled",
        "Unavailable",
    ),
    "core.policy": ("BacklogLimits", "Policy", "Retention"),
    "core.records": ("Event", "GateNote", "Status", "Step"),
    "core.secret": ("Secret",),
    "core.states": ("DeliveryState", "NotificationState", "Waiting"),
    "engine": ("Engine", "LiveEvent", "Receipt"),
}
"""The modules of the public names; a name that none of these has is an error's (`fanout.errors`)."""
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Accepted",
    "Action",
    "AddressInvalid",
    "BacklogLimits",
    "Backlogged",
    "ConfigurationError",
    "Conflict",
    "Deferred",
    "DeliveryState",
    "Endpoint",
    "EndpointState",
    "Engine",
    "EngineClosed",
    "Event",
    "FanoutError",
    "GateNote",
    "Gone",
    "InvalidMessage",
    "LiveEvent",
    "MessageTooLarge",
    "Misconfigured",
    "Moved",
    "NotFound",
    "Notification",
    "NotificationState",
    "Outcome",
    "PluginError",
    "Policy",
    "Receipt",
    "Rejected",
    "Retention",
    "Scope",
    "Secret",
    "Settings",
    "Status",
    "Step",
    "StorageAbsent",
    "StorageError",
    "StorageFull",
    "StorageRefused",
    "StorageUnavailable",
    "Target",
    "Throttled",
    "Unavailable",
    "UsageError",
    "Waiting",
    "WorkerNote",
    "WrongLoop",
    "__version__",
    "open",
]


if not TYPE_CHECKING:  # a checker that saw it would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("fanout-push")
        elif name in __all__:
            value = getattr(import_module(f"fanout.{_HOME.get(name, 'errors')}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
