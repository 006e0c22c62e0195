"""The simulator's header decoder, against the `hpack` library."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.testing.simulator.frames import Violation
from fanout.testing.simulator.hpack_decoder import BadBlock, Decoder
from fanout_kit.examples import examples

NAMES = st.sampled_from([":path", ":method", "apns-id", "authorization", "apns-topic", "accept", "x"]) | st.from_regex(
    r"[a-z0-9-]{1,20}", fullmatch=True
).filter(lambda name: name not in ("connection", "upgrade", "te", "transfer-encoding", "keep-alive"))
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=300)
FIELDS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=12)


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, 0, 100, 4096])), max_size=8))
def test_what_the_library_encodes(blocks: list[tuple[list[tuple[str, str, bool]], bool, int | None]]) -> None:
    encoder, decoder = hpack.Encoder(), Decoder()
    for fields, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        given = [
            hpack.NeverIndexedHeaderTuple(name, value) if never else hpack.HeaderTuple(name, value)
            for name, value, never in fields
        ]
        if sum(len(name) + len(value) + 32 for name, value, _ in fields) > 8000:
            continue
        block = encoder.encode(given, huffman=huffman)
        assert decoder.decode(block) == [(name, value) for name, value, _ in fields]


@settings(derandomize=True, deadline=None, max_examples=examples(1500))
@given(st.binary(max_size=40))
def test_what_the_library_understands_of_noise(block: bytes) -> None:
    oracle = hpack.Decoder(max_header_list_size=8000)
    try:
        expected = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in oracle.decode(block, raw=True)]
    except (hpack.HPACKError, IndexError):
        expected = None
    try:
        decoded = Decoder().decode(block)
    except BadBlock:
        decoded = None
    except Violation:
        return  # a rule of HTTP/2, of which the library knows nothing
    assert decoded == expected


@pytest.mark.parametrize(
    ("block", "word"),
    [
        (b"\x80", "index 0"),
        (b"\xbe", "index 62"),
        (b"\x82\x20", "after a field"),
        (b"\x3f\xe2\x1f", "above SETTINGS"),
        (b"\x04\x05ab", "too early"),
        (b"\x04", "too early"),
        (b"\xff\xff\xff\xff\xff\xff", "beyond all measure"),
        (b"\x04\x81\x00", "Huffman"),
        (b"\x04\x7f\xc2\x3e" + b"x" * 8129, "MAX_HEADER_LIST_SIZE"),
    ],
)
def test_blocks_that_mean_nothing(block: bytes, word: str) -> None:
    with pytest.raises(BadBlock, match=word):
        Decoder().decode(block)
