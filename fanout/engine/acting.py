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
    """Within it, and in the tasks that are begun there, every act is that caller's: see `core.audit.Audit.by`."""
    token = _actor.set(by)
    try:
        yield
    finally:
        _actor.reset(token)


def act_as(by: str) -> None:
    """From here on every act of this task is that caller's."""
    _actor.set(by)


def audit(kind: str, user: str = "", **data: Any) -> Audit:
    """A line `audit.` + `kind` about an act of this task."""
    return Audit(kind=AUDIT + kind, by=_actor.get(), user=user, data=data)
