"""JSON bodies: what is taken means what every parser says it means, and what parsers disagree about is refused."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.config import Limits
from fanout.errors import UsageError
from fanout.service.strict_json import parse

texts = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="\x00"), max_size=12
) | st.sampled_from(["a:b", "::", "\\u003a", '"', "http://example.com/:", "é"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(texts, parts, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans())
@settings(deadline=None)
def test_what_is_in_order_is_read_as_the_standard_library_reads_it(value: Any, ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii).encode()
    assert parse(body, 100) == json.loads(body)


@given(st.dictionaries(texts, values, min_size=1, max_size=4), values, st.booleans(), st.data())
@settings(deadline=None)
def test_a_key_that_is_there_twice_is_refused(
    value: dict[str, Any], other: Any, ascii: bool, data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(value)))
    pairs = [*value.items(), (key, other)]
    inner = (
        "{"
        + ",".join(f"{json.dumps(k, ensure_ascii=ascii)}:{json.dumps(v, ensure_ascii=ascii)}" for k, v in pairs)
        + "}"
    )
    for body in (inner, f'[1,{{"x":{inner}}}]'):
        with pytest.raises(UsageError, match="twice"):
            parse(body.encode(), 100)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a:b":1,"\\u0061:b":2}',
        b'{"a\\u003ab":1,"a:b":2}',
        b'{"a":"\\u003a","a":"x"}',
        b'{"a":":","\\u0061":"x"}',
        b'{"a":1,"a":"\\u003a"}',
        b'{"a":1,"a":{"\\u003A":[]}}',
    ],
)
def test_no_spelling_hides_a_second_key(body: bytes) -> None:
    with pytest.raises(UsageError, match="twice"):
        parse(body, 100)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no JSON"),
        (b"\xff", "no JSON"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        (b"{", "no JSON"),
        (b"NaN", "no JSON"),
        (b'{"a":Infinity}', "no JSON"),
        (b'["\\ud800"]', "no JSON"),
        (b'["\\udc00\\ud800"]', "no JSON"),
        (b'["a\\u0000b"]', "NUL"),
        (b'{"\\u0000":1}', "NUL"),
        (b'[["\\u0000"]]', "NUL"),
        (b"[18446744073709551616]", "64 bits"),
        (b"-9223372036854775809", "64 bits"),
        (b"[" + b"9" * 5000 + b"]", "no JSON|64 bits"),
        (b"[1e400]", "no JSON"),
        (b"[" * 101 + b"]" * 101, "deeply"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "deeply"),
        (b"[" * 100_000, "no JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "no JSON"),
    ],
)
def test_what_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse(body, 100)


@pytest.mark.parametrize("body", [b'"\\\\u0000"', b'{"\\\\u0000":"\\\\u003a"}', b"[1e300]", b"[" * 100 + b"]" * 100])
def test_what_only_looks_like_it_is_taken(body: bytes) -> None:
    assert parse(body, 100) == json.loads(body)


@pytest.mark.parametrize(
    "inner", [b"1e30", b"18446744073709551616", b'"\\u0000"', b'"\\u003a"', b'{"a":1,"a":2}', b"1"]
)
@pytest.mark.parametrize("depth", [33, 200, 600, 1000])
@pytest.mark.parametrize("before", [True, False])
def test_no_number_and_no_escape_hides_depth(inner: bytes, depth: int, before: bool) -> None:
    deep = b"[" * depth + b"]" * depth
    body = b"[" + inner + b"," + deep + b"]" if before else b"[" + deep + b"," + inner + b"]"
    with pytest.raises(UsageError, match=r"deeply|recursion limit"):
        parse(body, 32)
    inside = b'{"a":' * depth + inner + b"}" * depth
    with pytest.raises(UsageError, match=r"deeply|recursion limit"):
        parse(inside, 32)


def test_the_limit_of_depth_stays_below_what_the_encoder_of_json_takes() -> None:
    deepest = Limits(depth=128)
    value = parse(b"[" * deepest.depth + b"]" * deepest.depth, deepest.depth)
    assert orjson.dumps({"payload": {"content": {"data": value}}})
    with pytest.raises(UsageError, match="depth is 129"):
        Limits(depth=129)
