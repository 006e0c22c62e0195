"""The conformance suite of storages: `check_storage` holds any `fanout.plugin.Storage` to the contract.

It needs no test framework: every check is an async function that raises `AssertionError` with the law that is broken.
`CHECKS` names them one by one, for a test runner to list.

    async def test_mine() -> None:
        await check_storage(my_maker)

    @pytest.mark.parametrize("name", CHECKS)
    async def test_law(name: str) -> None:
        await run_check(name, my_maker)

A storage without an optional part says so: `check_storage(my_maker, without={"feed"})`, and `checks(without={"feed"})`
names the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from importlib import import_module
from inspect import isfunction, signature
from types import MappingProxyType

from fanout.errors import FanoutError
from fanout.plugin import has_part
from fanout.testing.storage_kit import Kit, Maker, NoSecondOpener, law

__all__ = ["CHECKS", "Kit", "Maker", "check_storage", "checks", "run_check"]

Check = Callable[[Kit], Awaitable[None]]


def _checks(name: str) -> dict[str, Check]:
    """The functions of a module of laws that take a kit and nothing else."""
    found = filter(isfunction, vars(import_module(f"fanout.testing.storage_{name}")).values())
    return {each.__name__: each for each in found if [*signature(each).parameters] == ["kit"]}


_LAWS = (
    "directory", "put", "due", "lease", "manage", "control", "crash", "turns", "explain", "feed", "counts", "bursts", "repeats",
    "subscriptions", "fleet", "access", "audit", "erase",
)  # fmt: skip
_OF_THE_FEED = ("feed", "counts", "bursts", "repeats", "subscriptions", "erase")
CHECKS: Mapping[str, Check] = MappingProxyType({name: check for laws in _LAWS for name, check in _checks(laws).items()})
"""Every check by its name. Each opens its own storage and leaves nothing behind."""
_NEEDS: Mapping[str, Collection[str]] = {
    "feed": {name for laws in _OF_THE_FEED for name in _checks(laws)},
    "fleet": _checks("fleet").keys(),
    "access": _checks("access").keys(),
}
"""The checks that need an optional part. Erased values are looked for in the feed too."""


def checks(*, without: Collection[str] = ()) -> list[str]:
    """The names of the checks for a storage without these optional parts: `feed`, `fleet`, `access`."""
    return [name for name in CHECKS if not any(name in _NEEDS[part] for part in without)]


async def run_check(name: str, maker: Maker, again: Maker | None = None) -> None:
    """Run one check. See `check_storage` for the arguments and the exceptions."""
    try:
        await CHECKS[name](Kit(maker, again))
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error
    except NoSecondOpener:
        return
    except FanoutError:
        raise
    except (ValueError, IndexError) as error:
        # A check takes an answer apart, and it has another length: Python's message for that names no law.
        raise AssertionError(f"{name}: an answer holds more or fewer values than it must ({error})") from error


async def check_storage(maker: Maker, again: Maker | None = None, *, without: Collection[str] = ()) -> None:
    """Run every check for a storage.

    Args:
        maker: Called with a `StorageContext` for each check; answers with an async context manager of a fresh, empty
            storage.
        again: For a storage that outlives its opener: opens the database that `maker` made last once more, beside it
            (where `shared` is True) or after it was closed. None leaves out the checks that need a second opener.
        without: The names of the optional parts that the storage does not have, and must not have: `feed`, `fleet`,
            `access`.

    Raises:
        AssertionError: The text names the check and the law that is broken.

    Example:
        ```python
        @pytest.mark.anyio
        async def test_my_storage_keeps_the_contract():
            await check_storage(lambda context: MyStorage("memory", context), without=["feed", "access"])
        ```
    """
    async with Kit(maker).open() as storage:
        for part in ("feed", "fleet", "access"):
            has = has_part(storage, part)
            law(has == (part not in without), f"parts: {part} is {'there' if has else 'absent'}: say so with `without`")
        law(not storage.shared or "fleet" not in without, "parts: a storage that several processes share has a fleet")
    for name in checks(without=without):
        await run_check(name, maker, again)
