"""Faults that a caller can do something about. A delivery's result is never one of them: that is an outcome
(`core.outcome`).

Each message is a sentence that names the offending key or value and the remedy, and never a secret or a device address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = [
    "AddressInvalid",
    "Backlogged",
    "ConfigurationError",
    "Conflict",
    "ContentRefused",
    "EngineClosed",
    "FanoutError",
    "InvalidMessage",
    "MessageTooLarge",
    "NotFound",
    "PartAbsent",
    "PluginError",
    "StorageAbsent",
    "StorageError",
    "StorageFull",
    "StorageRefused",
    "StorageUnavailable",
    "UsageError",
    "WrongLoop",
    "problem_of",
    "refuse",
]


class FanoutError(Exception):
    """The base of every error that `fanout` raises on purpose."""

    _faults: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything that was found wrong, a sentence each; the error's own text is the first of them."""
        return self._faults or (str(self),)


class UsageError(FanoutError, ValueError):
    """The caller passed something that can never work (an empty target, a negative TTL, an unknown app)."""


class AddressInvalid(UsageError):
    """A device address that its transport refuses. Raised at registration; the address itself is not in the text."""


class InvalidMessage(UsageError):
    """The notification cannot be put into a gateway's form. Raised by `send`, before anything is stored."""


class MessageTooLarge(InvalidMessage):
    """The notification, encoded for one binding, is over the gateway's limit.

    Attributes:
        size: The size of the encoded payload, in bytes.
        limit: The gateway's limit of it, in bytes.
    """

    def __init__(self, text: str, *, size: int, limit: int) -> None:
        super().__init__(text)
        self.size = size
        self.limit = limit


class Conflict(FanoutError):
    """The request contradicts the stored state: the idempotency key was used before, for another notification; a host
    name is another's."""


class Backlogged(FanoutError):
    """Too much is waiting already, by the configured bounds: nothing was stored. Send again when there is room.

    `retry_after` is a guess in seconds.
    """

    def __init__(self, text: str, *, retry_after: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class NotFound(FanoutError, LookupError):
    """No notification or endpoint of that id."""


class EngineClosed(FanoutError, RuntimeError):
    """The engine is not open, or is closing and takes nothing more."""


class WrongLoop(EngineClosed, UsageError):
    """The engine is open in another event loop than the caller's, or the caller runs in none. Nothing was done."""


class ConfigurationError(FanoutError, ValueError):
    """A setting is missing, unknown or malformed; the text names its key and what to write instead."""


def refuse(problems: Iterable[str], kind: type[FanoutError] = ConfigurationError) -> None:
    """Raise an error where there are problems: its text is the first of them, and its `faults` are all.

    Args:
        problems: The sentences.
        kind: The class of the error.

    Raises:
        FanoutError: There is a problem; the class is `kind`.
    """
    found = tuple(problems)
    if found:
        error = kind(found[0])
        error._faults = found
        raise error


def problem_of(check: Callable[[], object], kind: type[FanoutError] = ConfigurationError) -> str:
    """The sentence that a check raises: a problem among others (`refuse`).

    Args:
        check: The check, called without arguments.
        kind: The class of the errors that are problems; others pass through.

    Returns:
        The sentence; empty where the check raises nothing.
    """
    try:
        check()
    except kind as error:
        return str(error)
    return ""


class PartAbsent(ConfigurationError):
    """The configured storage lacks an optional part of the contract that the call needs. Nothing was done."""


class PluginError(FanoutError):
    """A plugin cannot be loaded or used, or cannot be told from another of the same name. A plugin that is not there is
    a `ConfigurationError`.
    """


class StorageError(FanoutError):
    """The database failed; earlier acceptances are safe, this request is not done.

    Of exactly this class: for good, until the storage is opened again (a damaged file, a failed fsync, a file that was
    taken away).
    """


class StorageUnavailable(StorageError):
    """The database cannot do this at present: it is away, or too busy. A later call may succeed, and repeats
    nothing."""


class StorageAbsent(StorageError):
    """There is no database of that name, and the caller only looks: a reader creates none."""


class StorageFull(StorageUnavailable):
    """No room on the disk: nothing of this call was stored, and a later call may succeed."""


class StorageRefused(StorageUnavailable):
    """The database does not take this program until an operator mends something: a right, a password, a key of
    addresses.

    When a storage is opened also: of a newer version, of another program, read-only or damaged.
    """


class ContentRefused(StorageError, UsageError):
    """The database cannot hold something of this call, whenever it is asked: nothing of the call was stored."""
