"""Header blocks that are not decoded are walked: what no decoder would take ends the connection, and costs no push its
status."""

from __future__ import annotations

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from fanout.http.codec import Codec
from fanout.http.frames import ErrorCode, FrameType, frame, settings
from fanout.http.hpack_encoder import Head, literal
from fanout.http.response import decode_block, sound

HEAD = Head("POST", "https", "gateway.test", [])
_names = st.sampled_from(["apns-id", "date", "server", "x-" + "n" * 200, "location", "content-type"])
_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300).map(str.strip)


def started(requests: int = 1) -> Codec:
    codec = Codec()
    codec.start()
    codec.receive(settings([]))
    for n in range(requests):
        codec.request(n, HEAD, b"/", b"", b"")
    codec.take()
    return codec


@given(st.sampled_from(["200", "400", "410", "503"]), st.lists(st.tuples(_names, _values), max_size=8), st.booleans())
def test_what_an_encoder_makes_is_sound(status: str, fields: list[tuple[str, str]], huffman: bool) -> None:
    encoder = Encoder()
    encoder.header_table_size = 0
    block = encoder.encode([(":status", status), *fields], huffman=huffman)
    assert sound(block)
    assert sound(b"\x20" + block.lstrip(b"\x20"))


@given(st.binary(max_size=60))
def test_what_is_not_sound_no_decoder_takes(block: bytes) -> None:
    if not sound(block):
        with pytest.raises(ValueError, match="cannot be decoded"):
            decode_block(block)


@given(st.lists(st.tuples(_names, _values), max_size=3), st.integers(0, 200), st.integers(0, 255))
def test_damage_is_taken_for_sound_only_where_lengths_still_fit(
    fields: list[tuple[str, str]], place: int, byte: int
) -> None:
    block = bytearray(b"\x88" + b"".join(literal(*field) for field in fields))
    block[place % len(block)] = byte
    if not sound(bytes(block)):
        with pytest.raises(ValueError, match="cannot be decoded"):
            decode_block(bytes(block))


BROKEN = {
    "index 0": b"\x80",
    "an index of the dynamic table": b"\xbe",
    "a name of the dynamic table": b"\x7e\x01a",
    "a longer index": b"\xff\x00",
    "a text beyond the end": b"\x00\x07apns-id\x24" + b"0" * 35,
    "a name beyond the end": b"\x00\x07apns",
    "no length": b"\x00",
    "a length without end": b"\x00\x7f\xff\xff\xff\xff\xff\x0f",
    "a table that is not empty": b"\x3f\xe1\x1f",
    "an update behind a field": b"\x20",
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("start", [b"\x88", b"\x8c", b"\x08\x03410"])
def test_a_block_that_cannot_be_walked_ends_the_connection_and_leaves_its_status(
    what: str, end: bool, start: bytes
) -> None:
    codec = started(2)
    codec.receive(frame(FrameType.HEADERS, 0x5 if end else 0x4, 1, start + BROKEN[what]))
    expected = {b"\x88": 200, b"\x8c": 400}.get(start, 410)
    assert [(token, response.status) for token, response in codec.answered] == [(0, expected)]
    assert [(token, failure.reason) for token, failure in codec.failed] == [(1, "protocol")]
    assert codec.closed
    assert codec.take()[9 + 4 : 9 + 8] == int(ErrorCode.COMPRESSION_ERROR).to_bytes(4, "big")


@pytest.mark.parametrize("stream", [1, 3, 5])
def test_also_on_a_stream_that_nobody_waits_on_and_in_trailers(stream: int) -> None:
    codec = started(3)
    codec.receive(frame(FrameType.HEADERS, 0x5, 1, b"\x88"))
    codec.receive(frame(FrameType.HEADERS, 0x4, 3, b"\x8c"))
    codec.receive(frame(FrameType.DATA, 0x0, 3, b"{}"))
    codec.receive(frame(FrameType.HEADERS, 0x5, stream, b"\x00\x01"))
    assert codec.closed
    assert [(token, response.status) for token, response in codec.answered] == [(0, 200), (1, 400)][: 1 + (stream == 3)]


def test_an_interim_answer_that_cannot_be_walked_is_no_status() -> None:
    codec = started()
    codec.receive(frame(FrameType.HEADERS, 0x4, 1, b"\x08\x03103" + b"\x80"))
    assert codec.answered == []
    assert [failure.reason for _, failure in codec.failed] == ["protocol"]
