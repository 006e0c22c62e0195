"""Frozen dataclasses that are made quickly are the same dataclasses."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from fanout.core.frozen import fast_init, unchecked_maker
from fanout.core.model import Notification, Target
from fanout.core.records import Put, Settled, Status, Submission
from fanout.engine.intake import Request
from fanout.engine.receipt import Receipt
from fanout.errors import UsageError
from fanout.service.auth import Caller
from fanout.service.request import Request as Asked

QUICK = [Notification, Submission, Put, Settled, Status, Target, Request, Receipt, Caller, Asked]


@dataclass(frozen=True, slots=True)
class Plain:
    """All kinds of fields."""

    first: int
    second: str = "two"
    third: Mapping[str, int] = field(default_factory=dict)
    unseen: int = field(default=0, compare=False, repr=False)
    named: int = field(default=5, kw_only=True)
    needed: float = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise UsageError("first is negative")


@fast_init
@dataclass(frozen=True, slots=True)
class Quick:
    """The same."""

    first: int
    second: str = "two"
    third: Mapping[str, int] = field(default_factory=dict)
    unseen: int = field(default=0, compare=False, repr=False)
    named: int = field(default=5, kw_only=True)
    needed: float = field(kw_only=True)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise UsageError("first is negative")


CALLS = [
    ((1,), {"needed": 1.0}),
    ((1, "b", {"c": 3}, 4), {"named": 6, "needed": 2.0}),
    ((), {"first": 3, "needed": 1.0, "third": {}}),
]


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_the_fields_are_those_of_the_dataclass(call: tuple[tuple[object, ...], dict[str, object]]) -> None:
    args, kwargs = call
    made, plain = Quick(*args, **kwargs), Plain(*args, **kwargs)  # type: ignore[arg-type]
    assert type(made) is Quick
    assert dataclasses.asdict(made) == dataclasses.asdict(plain)
    assert repr(made) == repr(plain).replace("Plain", "Quick")
    assert made == Quick(*args, **kwargs) == replace(made) == copy.copy(made)  # type: ignore[arg-type]


@pytest.mark.parametrize("slots", [{}, {"__slots__": ()}, {"__slots__": ("more",)}], ids=str)
def test_an_object_of_a_subclass_keeps_its_class(slots: dict[str, tuple[str, ...]]) -> None:
    for kind in (Plain, Quick):
        sub = type("Sub", (kind,), dict(slots))
        made = sub(1, needed=1.0)
        assert (type(made), made.third, made.named) == (sub, {}, 5)
        with pytest.raises(UsageError):
            sub(-1, needed=1.0)
    assert type(type("Mine", (Target,), {})("user", ("alice",))).__name__ == "Mine"


def test_a_factory_makes_a_new_value_for_each() -> None:
    assert Quick(1, needed=1.0).third is not Quick(1, needed=1.0).third


@pytest.mark.parametrize(
    "call", [((), {}), ((1,), {}), ((1,), {"needed": 1.0, "none": 2}), ((1, "", {}, 0, 6), {})], ids=str
)
def test_arguments_are_refused_as_the_dataclass_refuses_them(
    call: tuple[tuple[object, ...], dict[str, object]],
) -> None:
    args, kwargs = call
    for kind in (Plain, Quick):
        with pytest.raises(TypeError):
            kind(*args, **kwargs)  # type: ignore[arg-type]


def test_what_is_checked_when_it_is_made_is_checked_still() -> None:
    with pytest.raises(UsageError, match="first is negative"):
        Quick(-1, needed=1.0)
    with pytest.raises(UsageError):
        Target("someone")  # type: ignore[arg-type]


def test_no_object_can_be_changed() -> None:
    made = Quick(1, needed=1.0)
    for each in (made, Put(), Target.user("alice"), Settled(False)):
        name = dataclasses.fields(each)[0].name
        with pytest.raises(FrozenInstanceError):
            setattr(each, name, None)
        with pytest.raises(FrozenInstanceError):
            delattr(each, name)


@pytest.mark.parametrize("kind", QUICK, ids=lambda kind: kind.__name__)
def test_the_signature_is_that_of_the_fields(kind: type) -> None:
    parameters = inspect.signature(kind).parameters
    known = dataclasses.fields(kind)
    assert [*parameters] == [each.name for each in known]
    for each in known:
        found = parameters[each.name]
        assert found.kind is (found.KEYWORD_ONLY if each.kw_only else found.POSITIONAL_OR_KEYWORD)
        if each.default_factory is dataclasses.MISSING:
            assert found.default == (found.empty if each.default is dataclasses.MISSING else each.default)


def test_a_stamped_object_has_the_values_in_the_order_of_the_fields_and_is_not_checked() -> None:
    note = Notification(title="Hello", data={"a": 1}, ttl=60)
    stamp = unchecked_maker(Notification)
    made = stamp(*(getattr(note, each.name) for each in dataclasses.fields(note)))
    assert type(made) is Notification
    assert made == note
    assert unchecked_maker(Plain)(-1, "two", {}, 0, 5, 1.0).first == -1
    with pytest.raises(FrozenInstanceError):
        made.title = "Other"
