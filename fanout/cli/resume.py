"""`fanout resume`: let a paused notification or binding go on, and try a binding again at once."""

from __future__ import annotations

from fanout.cli.options import Config, Json
from fanout.cli.pause import AppOfBinding, Binding, OptionalId, switch

__all__ = ["resume"]


def resume(
    id: OptionalId = None, binding: Binding = None, app: AppOfBinding = None, config: Config = None, json: Json = False
) -> None:
    """Let a paused notification or binding go on. A binding is tried at once, its closed gates and a repaired
    credential too."""
    switch("resume", id, binding, app, config, json=json)
