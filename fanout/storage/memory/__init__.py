"""The storage without a disk: plain dictionaries in one process, with the semantics of the others and nothing durable.

For trying things out, and the model that the conformance suite compares databases with. Imported through the entry point
`memory` of the group `fanout.storage` and by nobody else.
"""

from collections.abc import Callable

from fanout.plugin import StorageContext, StoragePlugin

__all__ = ["plugin"]


async def _seal(location: str, context: StorageContext, progress: Callable[[int], None]) -> int:
    """There is nothing at rest here, and so nothing to seal."""
    return 0


plugin = StoragePlugin(name="memory", factory="fanout.storage.memory.store:MemoryStorage", seal=_seal)
