"""`memory:`, the storage without a disk: the in-memory database of SQLite in one process, with nothing durable.

For trying things out and for tests. Imported through the entry point `memory` of the group `fanout.storage` alone.
"""

from fanout.plugin import StoragePlugin

__all__ = ["plugin"]

plugin = StoragePlugin(
    name="memory", factory="fanout.storage.sqlite.in_memory:MemoryStorage", seal="fanout.storage.sqlite.in_memory:seal"
)
