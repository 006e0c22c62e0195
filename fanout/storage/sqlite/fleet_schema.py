"""The tables of the fleet: one step of `schema.STEPS`."""

from __future__ import annotations

__all__ = ["FLEET"]

FLEET = """
-- The workers that say they live, until when they count as alive; their parts of rates; the tokens that all present.
CREATE TABLE worker (
  id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, version TEXT NOT NULL, started_at REAL NOT NULL,
  bindings TEXT NOT NULL, seen_at REAL NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE share (
  name TEXT NOT NULL, worker TEXT NOT NULL, counted REAL NOT NULL, demand REAL NOT NULL, PRIMARY KEY (name, worker)
) WITHOUT ROWID;
CREATE TABLE token (
  name TEXT PRIMARY KEY, text TEXT NOT NULL, made_at REAL NOT NULL, expires_at REAL NOT NULL
) WITHOUT ROWID;
-- What is leased, by who holds it: a few chunks for each worker, whatever waits.
CREATE INDEX chunk_owner ON chunk (owner) WHERE owner IS NOT NULL;
"""
