"""The caller of an action, as the audit log names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from fanout.core.audit import AUDIT, Audit

__all__ = ["act_as", "acting", "audit"]

_actor: ContextVar[str] = ContextVar("fanout_actor", default="library")


@contextmanager
def acting(by: str) -> Iterator[None]:
    """Within it, and in the tasks that are begun there, what is done is done by that caller: see `core.audit.Audit.by`."""
    token = _actor.set(by)
    try:
        yield
    finally:
        _actor.reset(token)


def act_as(by: str) -> None:
    """From here on what this task does is done by that caller."""
    _actor.set(by)


def audit(kind: str, user: str = "", **data: Any) -> Audit:
    """A line `audit.` + `kind` about what this task does."""
    return Audit(kind=AUDIT + kind, by=_actor.get(), user=user, data=data)
