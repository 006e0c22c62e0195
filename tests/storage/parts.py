"""A stranger's storage that has the parts which are needed and no other."""

from __future__ import annotations

from typing import Any, Self

from fanout.plugin import ControlPart, DirectoryPart, QueuePart, StorageContext
from fanout.storage.sqlite.in_memory import MemoryStorage

__all__ = ["NEEDED", "Bare"]

NEEDED = (DirectoryPart, QueuePart, ControlPart)
_METHODS = {name for part in NEEDED for name in vars(part) if not name.startswith("_")} | {"changes", "probe"}


class Bare:
    """Directory, queue and control, each method passed on to a database of its own; no optional part, not even as
    None."""

    in_order = False

    def __init__(self, location: str, context: StorageContext, *, shared: bool = False) -> None:
        self.location = f"bare:{location}"
        self.shared = shared
        self._inner = MemoryStorage("", context)

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._inner.__aexit__(*exc)

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS:
            raise AttributeError(name)
        return getattr(self._inner, name)
