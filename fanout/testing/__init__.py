"""The public test kit, for the authors of plugins and for the programs that embed `fanout`.

`check_transport` and `check_storage` hold a plugin to its contract; `ScriptedTransport` and `VirtualClock` stand in for
a gateway and for time; `simulator` is the base of stand-ins that speak a gateway's real protocol over TLS on loopback;
`Pushes` collects an application's sends. A broken law is an `AssertionError` that names it: only `pytest_plugin`, which
pytest loads, imports a test framework. It may import anything below it; nothing of `fanout` imports it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fanout.testing.clock import VirtualClock
    from fanout.testing.pushes import Push, Pushes
    from fanout.testing.scripted import ScriptedTransport
    from fanout.testing.storage import check_storage
    from fanout.testing.subject import Gateway, Subject
    from fanout.testing.transport import check_transport

__all__ = [
    "Gateway", "Push", "Pushes", "ScriptedTransport", "Subject", "VirtualClock", "check_storage", "check_transport",
]  # fmt: skip

_HOME = {
    "Gateway": "subject", "Push": "pushes", "Pushes": "pushes", "ScriptedTransport": "scripted", "Subject": "subject",
    "VirtualClock": "clock", "check_storage": "storage", "check_transport": "transport",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imported when first asked for: the simulators' processes need none of it."""
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
