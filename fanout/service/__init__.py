"""The notification service: an ASGI app that runs alone or mounts in another, and its parts.

`create_app` makes it. `auth` names the caller, `front` holds the steps that every request passes first, `graph` and
`v1` hold the routes, `feed` is the list that every device of a user reads, and `server` runs it under uvicorn. It may
import everything below it; nothing but the command line imports it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fanout.service.app import create_app, from_config

__all__ = ["create_app", "from_config"]


def __getattr__(name: str) -> Any:
    # Lazily: a program that only signs user tokens (`fanout.service.auth`) needs no FastAPI.
    if name in __all__:
        return getattr(import_module("fanout.service.app"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
