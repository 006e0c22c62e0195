"""Storages that are broken on purpose, each with the check that must find it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fanout.plugin import StorageContext
from fanout.testing.storage import run_check
from tests.oracle.store import ModelStorage

Broken = dict[type[ModelStorage], str]
"""Each broken storage, and the check that must find it."""


def entering(broken: Broken) -> Callable[[str], Callable[[type[ModelStorage]], type[ModelStorage]]]:
    """A decorator that enters a broken storage with the check that must find it."""

    def caught_by(check: str) -> Callable[[type[ModelStorage]], type[ModelStorage]]:
        def enter(storage: type[ModelStorage]) -> type[ModelStorage]:
            broken[storage] = check
            return storage

        return enter

    return caught_by


async def must_be_caught(broken: type[ModelStorage], check: str) -> None:
    def make(context: StorageContext) -> ModelStorage:
        return broken("", context)

    with pytest.raises(AssertionError, match=check) as caught:
        await run_check(check, make)
    assert len(str(caught.value)) > 20
