"""The facet of keys and host names: `ModelStorage.access`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fanout.core.access import Grant
from fanout.storage.access import made, revoked
from tests.oracle.tables import Tables, write

__all__ = ["ModelAccess"]


class ModelAccess:
    """`plugin.access.Access` over the tables."""

    def __init__(self, tables: Tables) -> None:
        self._t = tables

    async def grants(self) -> list[Grant]:
        """See `Access`."""
        return [grant for _, grant in sorted(self._t.grants.items())]

    async def grant(self, grant: Grant, now: float, *, by: str) -> bool:
        """See `Access`."""
        if grant.id in self._t.grants:
            return False
        self._t.grants[grant.id] = replace(grant, made_at=now, used_at=None)
        write(self._t, grant.app, made(grant, by), now)
        self._t.changes += 1
        return True

    async def revoke(self, app: str, id: str, now: float, *, by: str) -> bool:
        """See `Access`."""
        found = self._t.grants.get(id)
        if found is None or found.app != app:
            return False
        del self._t.grants[id]
        write(self._t, app, revoked(id, found.kind, found.name, by), now)
        self._t.changes += 1
        return True

    async def used(self, moments: Mapping[str, float]) -> None:
        """See `Access`."""
        for id, at in moments.items():
            found = self._t.grants.get(id)
            if found is not None:
                self._t.grants[id] = replace(found, used_at=max(found.used_at or 0.0, at))
