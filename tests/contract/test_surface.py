"""The public surface, frozen: what stands in surface.txt is promised, and nothing else is.

A name that is added, renamed or taken away is a decision: change surface.txt with it, and CHANGELOG.md.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest

import fanout

FILE = Path(__file__).with_name("surface.txt")
PROMISED: dict[str, list[str]] = {}
for text in FILE.read_text(encoding="utf-8").splitlines():
    module, _, name = text.partition(" ")
    PROMISED.setdefault(module, []).append(name)


@pytest.mark.parametrize("name", PROMISED)
def test_a_module_offers_exactly_what_is_promised(name: str) -> None:
    assert sorted(import_module(name).__all__) == sorted(PROMISED[name])


@pytest.mark.parametrize("name", PROMISED)
def test_every_name_leads_somewhere_and_explains_itself(name: str) -> None:
    module = import_module(name)
    for public in module.__all__:
        value = getattr(module, public)
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("fanout"):
            assert (value.__doc__ or "").strip(), f"{name}.{public} has no docstring"


def test_what_is_defined_without_an_underscore_is_public() -> None:
    name = "fanout.errors"
    module = import_module(name)
    defined = {
        public
        for public, value in vars(module).items()
        if not public.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == name
    }
    assert defined == set(module.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        fanout.nothing_of_the_kind  # noqa: B018
    assert set(fanout.__all__) <= set(dir(fanout))


def test_every_error_is_one_of_ours_and_outcomes_are_none() -> None:
    for name in fanout.__all__:
        value = getattr(fanout, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            assert issubclass(value, fanout.FanoutError)
    for outcome in ("Accepted", "Rejected", "Gone", "Moved", "Throttled", "Unavailable", "Misconfigured"):
        assert not issubclass(getattr(fanout, outcome), BaseException)
