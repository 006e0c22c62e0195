"""The storage without a disk: plain dictionaries in one process, with the semantics of the others and nothing durable.

For trying things out, and the model that the conformance suite compares databases with. Imported through the entry point
`memory` of the group `fanout.storage` and by nobody else.
"""

from fanout.plugin import StoragePlugin

__all__ = ["plugin"]

plugin = StoragePlugin(name="memory", factory="fanout.storage.memory.store:MemoryStorage")
