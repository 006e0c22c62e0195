"""The conformance suite of storages: `check_storage` holds any `fanout.plugin.Storage` to the contract.

It needs no test framework: every check is an async function that raises `AssertionError` with the law that is broken.
`CHECKS` names them one by one, for a test runner to list.

    async def test_mine() -> None:
        await check_storage(my_maker)

    @pytest.mark.parametrize("name", CHECKS)
    async def test_law(name: str) -> None:
        await run_check(name, my_maker)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType, ModuleType

from fanout.errors import FanoutError
from fanout.testing import (
    storage_access,
    storage_audit,
    storage_bursts,
    storage_control,
    storage_counts,
    storage_crash,
    storage_directory,
    storage_due,
    storage_erase,
    storage_explain,
    storage_feed,
    storage_fleet,
    storage_lease,
    storage_manage,
    storage_put,
    storage_repeats,
    storage_subscriptions,
    storage_turns,
)
from fanout.testing.storage_kit import Kit, Maker

__all__ = ["CHECKS", "Kit", "Maker", "check_storage", "run_check"]

Check = Callable[[Kit], Awaitable[None]]


def _checks(*modules: ModuleType) -> dict[str, Check]:
    return {name: getattr(module, name) for module in modules for name in module.__all__}


CHECKS: Mapping[str, Check] = MappingProxyType(
    _checks(
        storage_directory,
        storage_put,
        storage_due,
        storage_lease,
        storage_manage,
        storage_control,
        storage_crash,
        storage_turns,
        storage_explain,
        storage_feed,
        storage_counts,
        storage_bursts,
        storage_repeats,
        storage_subscriptions,
        storage_fleet,
        storage_access,
        storage_audit,
        storage_erase,
    )
)
"""Every check by its name. Each opens its own storage and leaves nothing behind."""


async def run_check(name: str, maker: Maker, again: Maker | None = None) -> None:
    """Run one check. See `check_storage` for the arguments and what it raises."""
    try:
        await CHECKS[name](Kit(maker, again))
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error
    except FanoutError:
        raise
    except (ValueError, IndexError) as error:
        # A check takes an answer apart, and it has another length: what Python says of that names no law.
        raise AssertionError(f"{name}: an answer holds more or fewer values than it must ({error})") from error


async def check_storage(maker: Maker, again: Maker | None = None) -> None:
    """Run every check. Raises `AssertionError` that names the check and the law it found broken.

    `maker` is called with a `StorageContext` and answers with an async context manager of a fresh, empty storage. `again`, for
    a storage that outlives its opener, opens the database that `maker` made last once more: beside it (where `shared` is True)
    or after it was closed. Without it, what needs a second opener is not checked.
    """
    for name in CHECKS:
        await run_check(name, maker, again)
