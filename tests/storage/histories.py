"""The values that the histories of `test_model` draw from."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import strategies as st

from fanout.core.model import Target
from fanout.testing.storage_kit import device

T = TypeVar("T")

USERS = st.sampled_from(["alice", "bob", "carol"])
TOKENS = st.sampled_from("123456")
WORKERS = st.sampled_from(["w1", "w2", "w3"])
BINDINGS = st.sampled_from(["apns", "fcm"])
TAGS = st.sets(st.sampled_from("xy"))
TARGETS = st.one_of(
    USERS.map(Target.user),
    st.just(Target.users(["alice", "bob", "carol"])),
    st.sampled_from("xy").map(Target.topic),
    st.just(Target.all()),
    st.lists(st.integers(1, 8), min_size=1).map(Target.endpoints),
    st.just(Target("addresses", binding="apns", addresses=(device("", "1").address, device("", "i").address))),
)
FATES = st.sampled_from(
    ["accepted", "accepted", "rejected", "gone", "retry", "held", "moved", "doubt", "mark", "mark", "leave"]
)
NUMBERS = st.integers(0, 1000)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Both storages answer without waiting: the coroutine ends at its first step."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        answer: T = stop.value
        return answer
    raise AssertionError("an inline storage waits for nothing")
