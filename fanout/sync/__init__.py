"""The engine for callers without an event loop: a script, a Django view. Open it once per process and use it from any
thread.

    with fanout.sync.open("fanout.toml") as engine:
        receipt = engine.send(fanout.Notification(title="Hello"), "user:alice")
        print(receipt.wait(timeout=30).counts)

Each call does the same as the asynchronous engine's call of that name, without `await`; a program that needs one that
is not here uses `fanout.open`. The work happens in one background thread with a loop of its own. `enqueue` needs no
engine: it makes a notification part of a transaction of the caller's own in PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from fanout.sync.background import refuse_in_loop
from fanout.sync.directory import Endpoints
from fanout.sync.engine import Engine
from fanout.sync.receipt import Receipt
from fanout.sync.transaction import Enqueued, enqueue

if TYPE_CHECKING:
    from fanout import bootstrap

__all__ = ["Endpoints", "Engine", "Enqueued", "Receipt", "enqueue", "open"]

P = ParamSpec("P")
T = TypeVar("T")


def _takes_what(model: Callable[P, object]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Give a function the signature of `model`, for type-checkers."""
    return lambda function: function


def _open(*args: Any, **kwargs: Any) -> Engine:
    """An open engine. Returns when the database is open. Close it with `with` or `close`.

    Args:
        *args: As `fanout.open` takes them.
        **kwargs: As `fanout.open` takes them.

    Returns:
        The engine.

    Raises:
        StorageError: The database cannot be opened.
        UsageError: Arguments contradict each other, or an event loop runs in this thread.
        ConfigurationError: A setting is missing, unknown or malformed, or a transport or storage of that name is not
            installed.
        PluginError: A plugin cannot be loaded or used, such as for a package that it needs; or two have its name.

    Example:
        ```python
        with fanout.sync.open(storage="memory:", transports={"pigeon": ScriptedTransport()}) as engine:
            engine.endpoints.register(user="alice", binding="pigeon", address="phone")
            print(engine.send(Notification(title="Hello"), "user:alice").wait(10).counts)
        ```
    """
    from fanout import bootstrap

    refuse_in_loop()
    return Engine(bootstrap.open(*args, **kwargs))


# A program that only enqueues is not to import the engine, and the signature is needed by type-checkers alone.
if TYPE_CHECKING:
    open = _takes_what(bootstrap.open)(_open)
else:
    open = _open
    open.__name__ = open.__qualname__ = "open"
