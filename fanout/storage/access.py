"""Grants as all storages keep them: the columns of the SQL databases, and the lines of the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fanout.core.access import Grant
from fanout.core.audit import Audit

__all__ = ["COLUMNS", "made", "revoked", "row_of"]

COLUMNS = "id, kind, proof, name, role, expires_at, made_at, used_at"
"""Those of the table `access`, without the app's number."""


def row_of(grant: Grant) -> Sequence[Any]:
    """The values of `COLUMNS`."""
    return [getattr(grant, name) for name in COLUMNS.split(", ")]


def made(grant: Grant, by: str) -> Audit:
    """The line that tells of a new grant."""
    if grant.kind == "host":
        return Audit(kind="audit.host.added", by=by, data={"host": grant.id})
    fields = asdict(grant)
    data = {name: fields[name] for name in ("id", "kind", "name", "role", "expires_at")}
    return Audit(kind="audit.key.made", by=by, data=data)


def revoked(id: str, kind: str, name: str, by: str) -> Audit:
    """The line that tells of a grant that is taken out."""
    if kind == "host":
        return Audit(kind="audit.host.removed", by=by, data={"host": id})
    return Audit(kind="audit.key.revoked", by=by, data={"id": id, "kind": kind, "name": name})
