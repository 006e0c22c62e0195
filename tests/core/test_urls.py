"""Which hosts are this machine by their very name."""

from __future__ import annotations

import pytest

from fanout.core.urls import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "192.0.2.1", "2001:db8::1", "push.example.com", "127.0.0.1.nip.io"]
)
def test_another_one(host: str) -> None:
    assert not is_loopback(host)
