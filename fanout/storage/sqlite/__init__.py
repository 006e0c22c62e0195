"""The storage in one SQLite file: durable at every commit, shared by several processes of one machine.

One thread per opened storage owns the one connection; every read answers with one row of JSON, and every write of many
rows is one statement, because each row stepped over costs a hand-over of the interpreter lock. Imported through the
entry point `sqlite` of the group `fanout.storage` alone; apsw, which is heavy, is imported when the storage is made.
"""

from fanout.plugin import StoragePlugin

__all__ = ["plugin"]

plugin = StoragePlugin(
    name="sqlite", factory="fanout.storage.sqlite.store:SqliteStorage", seal="fanout.storage.sqlite.sealing:seal"
)
