"""The storage in a PostgreSQL database (14 or newer): many processes on many machines share it.

Every operation is a fixed number of set-wise statements in one transaction at READ COMMITTED, however many rows it
touches;  row locks, taken in one order everywhere, stand for SQLite's one writer: bindings, notifications, chunks,
sums. Imported through the entry points `postgresql` and `postgres` of the group `fanout.storage` alone; the driver
(asyncpg, extra `postgres`) is imported when the storage is made. `url` lists the parts of a database address.
"""

from dataclasses import replace

from fanout.plugin import StoragePlugin

__all__ = ["plugin", "short"]

plugin = StoragePlugin(
    name="postgresql",
    factory="fanout.storage.postgres.store:make",
    extra="postgres",
    seal="fanout.storage.postgres.sealing:seal",
)
short = replace(plugin, name="postgres")
"""The same for URLs that begin with `postgres:`, as some hosting services hand them out."""
