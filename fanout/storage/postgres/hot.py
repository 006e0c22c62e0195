"""The operations that have statements of their own here."""

from __future__ import annotations

from fanout.storage.postgres import erasing, expansion
from fanout.storage.postgres.audience import look_up
from fanout.storage.postgres.intake import insert
from fanout.storage.postgres.ledger import Ledger, add_chunks, fill, finish_ready
from fanout.storage.postgres.registration import enter, known, numbers
from fanout.storage.postgres.settling import add_retries, end, held
from fanout.storage.sql.hot import Hot

__all__ = ["HOT"]

HOT = Hot(
    ledger=Ledger,
    held=held,
    add_retries=add_retries,
    end=end,
    add_chunks=add_chunks,
    finish_ready=finish_ready,
    look_up=look_up,
    audience=expansion.audience,
    fill=fill,
    known=known,
    numbers=numbers,
    enter=enter,
    insert=insert,
    blank=erasing.blank,
    forget_entered=erasing.forget_entered,
    forget_in_log=erasing.forget_in_log,
)
