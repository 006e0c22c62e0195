"""The four classes of failure, the same for every database. Each driver has one table that says which of its errors is
of which."""

from __future__ import annotations

from enum import Enum

__all__ = ["Kind"]


class Kind(Enum):
    """The kinds of a failure of the database, for its caller."""

    FATAL = "fatal"
    """The disk may differ from memory: nothing more is written until the storage is opened again."""
    CONTENT = "content"
    """This call's values, whenever they come: `ContentRefused`."""
    FULL = "full"
    """No room: `StorageFull`."""
    UNAVAILABLE = "unavailable"
    """Everything else passes, or an operator ends it: `StorageUnavailable`."""
