"""Every plant, in the order of the path that a notification takes."""

from __future__ import annotations

from tests.mutants.plant import Plant
from tests.mutants.plants import core, engine, http, outcomes, rows, storage

__all__ = ["PLANTS"]

PLANTS: list[Plant] = [*core.PLANTS, *engine.PLANTS, *storage.PLANTS, *http.PLANTS, *outcomes.PLANTS, *rows.PLANTS]
