"""A notification into the inbox of a PostgreSQL database, as one statement of another program's transaction.

`statement` says what is run, `drivers` runs it in the connection it is given: none of the drivers is imported before
such a connection has come, and nothing here opens one, keeps one, commits or rolls back. Workers empty the inbox
(`fanout.storage.postgres.inbox`). The PostgreSQL storage and `fanout.sync` import it.
"""

from fanout.enqueue.drivers import enqueue, enqueue_async
from fanout.enqueue.statement import Answer, Statement

__all__ = ["Answer", "Statement", "enqueue", "enqueue_async"]
