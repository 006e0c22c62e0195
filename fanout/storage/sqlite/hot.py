"""The statements of its own that SQLite hands in to the operations of `storage.sql`."""

from __future__ import annotations

from fanout.storage.sql.hot import Hot
from fanout.storage.sqlite.audience import look_up
from fanout.storage.sqlite.db import Db
from fanout.storage.sqlite.erasing import blank, forget_in_log
from fanout.storage.sqlite.expansion import audience
from fanout.storage.sqlite.intake import insert
from fanout.storage.sqlite.ledger import Ledger, add_chunks, fill, finish_ready
from fanout.storage.sqlite.registration import enter, known, numbers
from fanout.storage.sqlite.session import as_operation
from fanout.storage.sqlite.settling import add_retries, end, held

__all__ = ["HOT"]


def _nothing_entered(db: Db, app: str, user: str, devices: set[int], now: float) -> None:
    """No other program enters notifications."""


HOT = Hot(
    ledger=lambda db, codes=None: Ledger(db.native, codes),
    held=as_operation(held),
    add_retries=as_operation(add_retries),
    end=as_operation(end),
    add_chunks=as_operation(add_chunks),
    blank=as_operation(blank),
    forget_entered=as_operation(_nothing_entered),
    forget_in_log=as_operation(forget_in_log),
    finish_ready=as_operation(finish_ready),
    look_up=as_operation(look_up),
    fill=as_operation(fill),
    audience=audience,
    known=as_operation(known),
    numbers=as_operation(numbers),
    enter=as_operation(enter),
    insert=as_operation(insert),
)
