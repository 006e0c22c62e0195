"""Where metrics may be served."""

from __future__ import annotations

import pytest

from fanout.errors import UsageError
from fanout.metrics import listen_address


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_an_address(text: str, meant: tuple[str, int]) -> None:
    assert listen_address(text) == meant


@pytest.mark.parametrize(
    "text", ["", "loopback", "host:", ":9464", "host:99999", "host:1/path", "http://host:1", "a@b:1"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="write HOST:PORT"):
        listen_address(text)
