"""Processes under Debian's `faketime`, and the server of the PostgreSQL tests."""

from __future__ import annotations

from tests.postgres.conftest import databases, server

__all__ = ["databases", "server"]
