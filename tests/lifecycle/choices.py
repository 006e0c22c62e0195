"""What the state machine draws from: whom, to whom, in which lane, and what a gateway answers."""

from __future__ import annotations

from hypothesis import strategies as st

from fanout.core.model import Repeat, Target
from fanout.core.outcome import ACCEPTED, Deferred, Gone, Misconfigured, Moved, Rejected, Scope, Throttled, Unavailable
from fanout.testing.storage_kit import T0, device

__all__ = ["BINDINGS", "LANES", "NUMBERS", "OUTCOMES", "REPEATS", "TARGETS", "USERS", "WORKERS"]

BINDINGS = st.sampled_from(["apns", "apns", "apns", "fcm"])
LANES = st.sampled_from([1, 1, 0])
USERS = st.sampled_from(["alice", "bob", "carol"])
REPEATS: st.SearchStrategy[Repeat] = st.sampled_from(["prefer_delivery", "prefer_once", "at_most_once"])
NUMBERS = st.integers(0, 1000)
WORKERS = st.sampled_from(["w1", "w2"])
TARGETS = st.one_of(
    USERS.map(Target.user),
    st.just(Target.users(["alice", "bob", "carol"])),
    st.just(Target.topic("x")),
    st.just(Target.all()),
    st.lists(st.integers(1, 14), min_size=1, max_size=4).map(Target.endpoints),
)
OUTCOMES = st.sampled_from(
    [
        ACCEPTED,
        ACCEPTED,
        Rejected("BadTopic"),
        Gone("Unregistered"),
        Gone("Unregistered", since=T0 - 100),
        Moved(device("", "z").address),
        Throttled(5.0),
        Throttled(None, Scope.GROUP),
        Unavailable("no"),
        Unavailable("unknown"),
        Unavailable("unknown", Scope.BINDING),
        Misconfigured("InvalidProviderToken"),
        Deferred("overload"),
        Deferred("deadline of the engine", sent="unknown"),
    ]
)
