"""The encoder against the `hpack` library's decoder, which stands for the peer."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hpack import Decoder
from hypothesis import given, settings

from fanout.http.hpack_encoder import Head, HeadTable, integer, literal
from fanout_kit.examples import examples

NAMES = st.sampled_from(["apns-topic", "authorization", "content-type", "x", "user-agent", "ttl"])
VALUES = st.sampled_from(["", "a", "alert", "com.example.app", "v" * 200, "w" * 1000, "x" * 5000])
HEADS = st.builds(
    lambda authority, fields: Head("POST", "https", authority, fields),
    st.sampled_from(["one.test", "two.test"]),
    st.lists(st.tuples(NAMES, VALUES), max_size=6),
)
STEPS = st.lists(
    st.one_of(st.integers(0, 5), st.sampled_from([0, 33, 100, 500, 4095, 4096, 65_536]).map(lambda n: -1 - n)),
    max_size=40,
)


@settings(derandomize=True, deadline=None, max_examples=examples(300))
@given(heads=st.lists(HEADS, min_size=6, max_size=6), steps=STEPS)
def test_a_decoder_reads_every_head_whatever_the_table_size_does(heads: list[Head], steps: list[int]) -> None:
    table, decoder = HeadTable(), Decoder(max_header_list_size=10**6)
    for step in steps:
        if step < 0:
            size = -1 - step
            table.resize(size)
            decoder.max_allowed_table_size = size
            continue
        head = heads[step]
        before, after, length = table.ready.get(head) or table.encode(head)
        assert length == len(before) + len(after)
        block = before + b"\x05/path" + after + literal("apns-id", "1")
        expected = [*head.pseudo, (b":path", b"/path"), *head.fields, (b"apns-id", b"1")]
        assert [tuple(field) for field in decoder.decode(block, raw=True)] == expected
        assert decoder.header_table_size <= 4096


def test_from_the_second_use_on_a_head_costs_a_byte_a_field() -> None:
    table = HeadTable()
    head = Head("POST", "https", "api.push.apple.com", [("apns-topic", "com.example.app"), ("apns-priority", "10")])
    first = table.encode(head)
    assert head not in table.ready
    second = table.encode(head)
    assert table.ready[head] == second
    assert first[2] > 50
    assert second == (b"\x83\x87\xc0\x04", b"\xbf\xbe", 6)


def test_another_head_moves_the_indices_and_forgets_the_bytes() -> None:
    table = HeadTable()
    one, two = Head("POST", "https", "a.test"), Head("POST", "https", "b.test")
    table.encode(one)
    before = table.encode(one)
    table.encode(two)
    assert one not in table.ready
    assert table.encode(one) != before


def test_heads_beyond_the_bound_are_forgotten_not_gathered() -> None:
    table = HeadTable()
    for _ in range(3 * table.MOST_READY):
        table.encode(Head("POST", "https", "a.test"))
    assert 0 < len(table.ready) <= table.MOST_READY


@pytest.mark.parametrize(
    ("value", "bits", "encoded"),
    [(10, 5, b"\x0a"), (1337, 5, b"\x1f\x9a\x0a"), (42, 8, b"\x2a"), (127, 7, b"\x7f\x00"), (31, 5, b"\x1f\x00")],
)
def test_integers_are_those_of_the_standard(value: int, bits: int, encoded: bytes) -> None:
    assert integer(value, bits) == encoded  # RFC 7541, appendix C.1


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 511, 512, 5000])
@pytest.mark.parametrize("name", ["apns-id", "authorization", "user-agent"])
def test_literals_decode_to_themselves_and_enter_no_table(name: str, size: int) -> None:
    decoder = Decoder()
    for never in (False, True):
        (field,) = decoder.decode(literal(name, "v" * size, never_indexed=never))
        assert tuple(field) == (name, "v" * size)
        assert (type(field).__name__ == "NeverIndexedHeaderTuple") == never
    assert len(decoder.header_table.dynamic_entries) == 0


@pytest.mark.parametrize("value", ["a\r\nb", "a\nb", "a\0", "\x7f", "é", " a", "a ", "\ta"])
def test_a_value_that_could_smuggle_is_refused_and_not_shown(value: str) -> None:
    for attempt in (lambda: literal("x", value), lambda: Head("POST", "https", "a.test", [("x", value)])):
        with pytest.raises(ValueError, match="The value of 'x'") as refusal:
            attempt()
        assert value not in str(refusal.value)


@pytest.mark.parametrize("name", ["", "Apns-Id", "a b", "a\n", ":path", "a:b", "é", "connection", "transfer-encoding"])
def test_a_name_that_http2_forbids_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="field"):
        literal(name, "x")


def test_a_head_hides_its_values() -> None:
    assert "secret" not in repr(Head("POST", "https", "a.test", [("authorization", "bearer secret")]))
