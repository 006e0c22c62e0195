"""Statuses recognised from their first bytes, headers decoded when asked for, and blocks that are neither."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.http.response import NotAResponse, RequestFailed, Response, decode_block, status_of
from fanout_kit.examples import examples


@pytest.mark.parametrize("huffman", [True, False])
def test_any_status_is_read_however_it_is_written(huffman: bool) -> None:
    for status in (*range(100, 600), 999):
        made = Encoder()
        made.header_table_size = 0
        block = made.encode([(":status", str(status)), ("apns-id", "x")], huffman=huffman)
        assert status_of(block) == status
        assert status_of(block) == status
        assert Response(status, b"", block).headers() == [("apns-id", "x")]


@pytest.mark.parametrize("first", [0x08, 0x18, 0x48, 0x0E, 0x1E, 0x4E])
def test_every_literal_form_is_known(first: int) -> None:
    assert status_of(bytes([first]) + b"\x03410") == 410


@pytest.mark.parametrize(
    "block",
    [b"", b"\x00\x01a\x01b", b"\x08\x0220", b"\x08\x04" + b"2000", b"\x08\x03abc", b"\x08\x03099", b"\x82", b"\x20"],
)
def test_a_block_without_a_status_is_no_response(block: bytes) -> None:
    with pytest.raises(NotAResponse):
        status_of(block)


@pytest.mark.parametrize(
    "block", [b"\xbe", b"\xff\xff\xff\xff\xff\xff\xff", b"\x08\x7f", b"\x08\x83", b"\x3f\xe1\x1f\x88", b"\x80"]
)
def test_a_block_that_cannot_be_decoded_is_an_error(block: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be decoded"):
        status_of(block)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = b"\x88" + b"\x90" * 30_000  # "accept-encoding: gzip, deflate" in one byte, 30,000 times
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode_block(bomb)
    assert Response(200, b"", bomb).headers() == []


def test_a_status_stands_though_the_rest_cannot_be_read() -> None:
    response = Response(status_of(b"\x88\xff\xff"), b"", b"\x88\xff\xff")
    assert response.status == 200
    assert response.header("apns-id") is None


@settings(derandomize=True, deadline=None, max_examples=examples(500))
@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(block: bytes) -> None:
    with suppress(ValueError):
        assert 100 <= status_of(block) <= 999
    Response(200, b"", block).headers()


def test_a_failure_says_whether_it_was_sent_and_nothing_more() -> None:
    assert "was not sent" in str(RequestFailed("no", "refused"))
    assert "may have been sent" in str(RequestFailed("unknown", "reset", b"secret"))
    assert "secret" not in str(RequestFailed("unknown", "reset", b"secret"))
    assert repr(Response(200, b"secret", b"\x88")) == "<Response 200, 6 bytes>"
