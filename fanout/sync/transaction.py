"""A notification in a transaction of the caller's own."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from fanout.core.model import Notification, Target

__all__ = ["Enqueued", "enqueue"]


class Enqueued(NamedTuple):
    """The answer of `enqueue`.

    Attributes:
        id: The notification's id, known to `status` from the commit on.
        replayed: Whether the idempotency key was known, so that nothing new was stored and `id` is the earlier
            notification's.
    """

    id: str
    replayed: bool


def enqueue(
    connection: object,
    notification: Notification,
    target: Target | str,
    *,
    app: str = "default",
    at: float | datetime | None = None,
    idempotency_key: str | None = None,
    schema: str = "fanout",
) -> Enqueued:
    """Make a notification part of the transaction that is open in a connection: it is sent if and only if that commits.

    No engine is needed here: a worker (`fanout work`) that serves `app` takes it, within 100 ms of the commit. The
    transaction gets one INSERT and takes no lock that another transaction waits for. An error of the driver passes
    through. A fault that only the worker finds, such as a message too large for a gateway, is the event
    `notification.refused`.

    Args:
        connection: `django.db.connection`, or a connection of psycopg, psycopg2 or SQLAlchemy (a `Session` too), to the
            database of a PostgreSQL storage, with an open transaction.
        notification: The content.
        target: The devices: `Target.user("alice")`, or its short form.
        app: The app whose devices are meant.
        at: The due time, in UNIX seconds or as a datetime with its time zone; None for now.
        idempotency_key: A text of the caller's. The same key with the same request gives the first id again, for a day.
        schema: The schema in which the tables of the storage stand.

    Returns:
        The id of the notification.

    Raises:
        UsageError: The connection is of another kind or in no transaction, or the notification can never be sent, as
            far as that shows without a transport.
        Conflict: The idempotency key was used before, for another request.

    Example:
        ```python
        with transaction.atomic():
            order.save()
            fanout.sync.enqueue(connection, Notification(title="Thank you"), f"user:{order.user}")
        ```
    """
    from fanout.core import given
    from fanout.core.policy import Policy, Retention
    from fanout.core.submission import submission_of
    from fanout.enqueue import Statement
    from fanout.enqueue import enqueue as run

    now = time.time()
    submission = submission_of(
        notification,
        target,
        app=app,
        at=at,
        idempotency_key=idempotency_key,
        now=now,
        random=os.urandom(10),
        zero_ttl_grace=Policy().zero_ttl_grace,
    )
    if at is not None:
        # As it was wished: whether that is past already, the database's clock decides.
        wished = given.instant("at", at)
        submission = replace(submission, due_at=wished, expires_at=submission.expires_at - submission.due_at + wished)
    return Enqueued(*run(connection, Statement(submission, schema, now - Retention().idempotency_keys)))
