"""Answers of HTTP/1.1, in every cut: the first deciding head counts, and nothing without one goes on for ever."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.http.http1_parser import AnswerParser, NoAnswer, whole
from fanout.http.http1_values import Http1Response

OK = b"HTTP/1.1 200 OK\r\n"


def parsed(*pieces: bytes, end: bool = False) -> AnswerParser:
    parser = AnswerParser()
    for piece in pieces:
        parser.feed(piece)
    if end:
        parser.end()
    return parser


WHOLE: list[tuple[bytes, int, bytes, bool]] = [
    (OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    (OK + b"Content-Length: 5\r\n\r\nhello", 200, b"hello", True),
    (OK + b"Content-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", True),
    (OK + b"Connection: Keep-Alive, Close\r\nContent-Length: 0\r\n\r\n", 200, b"", False),
    (b"HTTP/1.0 201 Made\r\nContent-Length: 0\r\n\r\n", 201, b"", False),
    (b"HTTP/1.0 201 Made\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", 201, b"", True),
    (b"HTTP/1.1 201\r\nContent-Length: 0\r\n\r\n", 201, b"", True),
    (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", 204, b"", True),
    (b"\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        200,
        b"",
        True,
    ),
    (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi", 200, b"hi", True),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n", 200, b"abcde", True),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", 200, b"abc", True),
    (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n", 200, b"z", True),
    (OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\n", 200, b"z", False),
    (OK + b"X: a\r\n  folded\r\nContent-Length: 0\r\n\r\n", 200, b"", True),
    # what follows a whole answer costs the connection, and nothing else
    (b"HTTP/1.1 204 No Content\r\n\r\nbody", 204, b"", False),
    (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nabcdef", 201, b"ab", False),
    (b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\nHTTP/1.1 500 No\r\n\r\n", 201, b"", False),
    (b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n\0\0", 201, b"", False),
    (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore", 201, b"", False),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\nabc", 304, b"", False),
]


@pytest.mark.parametrize(("said", "status", "body", "kept"), WHOLE)
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_whole_answers(said: bytes, status: int, body: bytes, kept: bool, size: int) -> None:
    parser = parsed(*[said[at : at + size] for at in range(0, len(said), size)])
    assert (parser.status, bytes(parser.body), parser.kept, parser.done) == (status, body, kept, True)
    assert not parser.broken


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 200), max_size=8))
def test_it_does_not_matter_how_an_answer_is_cut(whole: tuple[bytes, int, bytes, bool], cuts: list[int]) -> None:
    said, status, body, kept = whole
    places = sorted({0, len(said), *(min(cut, len(said)) for cut in cuts)})
    parser = parsed(*[said[one:two] for one, two in pairwise(places)])
    assert (parser.status, bytes(parser.body), parser.kept) == (status, body, kept)


FIELDS = st.sampled_from(
    [b"Content-Length: 0", b"content-length:\t2 ", b"Content-Length: 2, 2", b"Content-Length: x", b"X-WNS-Status: received",
     b"x-Content-Length: 2", b"Connection: keep-alive", b"Connection: Close", b"Connection:", b"Transfer-Encoding: chunked",
     b"X: a\r\n folded", b"X:", b"X : a", b"no colon", b"X: \xff\0", b"X: a\rb", b"A: b\nC: d", b": x"]
)  # fmt: skip
LINES = st.sampled_from(
    [b"HTTP/1.1 200 OK", b"HTTP/1.1 201", b"HTTP/1.1 204 No", b"HTTP/1.1 304 Not", b"HTTP/1.1 100 Go", b"HTTP/1.0 200 OK",
     b"HTTP/1.1 200OK", b"HTTP/1.1 999 \xff", b"HTTP/1.1 099 Low", b"\r\nHTTP/1.1 200 OK"]
)  # fmt: skip


@given(LINES, st.lists(FIELDS, max_size=4), st.sampled_from([b"", b"a", b"ab", b"abc"]))
def test_the_short_way_says_what_the_parser_says(line: bytes, fields: list[bytes], body: bytes) -> None:
    said = b"\r\n".join((line, *fields, b"", body))
    found = whole(said)
    parser = AnswerParser()
    try:
        parser.feed(said)
    except NoAnswer:
        assert found is None
        return
    if found is not None:
        assert (parser.done, parser.kept, parser.broken) == (True, True, False)
        assert found[::2] == (parser.status, bytes(parser.body))
        short, long = (Http1Response(200, b"", lines) for lines in (found[1], parser.lines))
        assert short.headers() == long.headers()
        assert short.header("Content-LENGTH") == long.header("content-length")


def test_the_short_way_is_taken() -> None:
    usual = OK + b"Content-Length: 2\r\nX-WNS-Status: received\r\nConnection: Keep-Alive\r\n\r\nab"
    assert whole(usual) == (200, usual[15:-6], b"ab")
    assert whole(usual[:-1]) is None
    assert whole(usual + b"c") is None
    assert whole(OK + b"A: " + b"b" * 32_768 + b"\r\nContent-Length: 0\r\n\r\n") is None


@pytest.mark.parametrize(
    "said",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: five\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1;" + b"e" * 20_000,
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nz\r\n" * 20_000,
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: x\r\n" * 5_000,
    ],
)
def test_a_body_that_breaks_leaves_the_status(said: bytes) -> None:
    parser = parsed(b"HTTP/1.1 201 Created\r\n" + said)
    assert parser.status == 201
    assert parser.broken
    assert not parser.kept
    assert len(parser.body) <= AnswerParser.MOST_FRAMING


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    parser = parsed(OK + b"\r\nall", b" of it", end=True)
    assert (parser.done, parser.broken, parser.kept, bytes(parser.body)) == (True, False, False, b"all of it")
    cut = parsed(OK + b"Content-Length: 10\r\n\r\nhalf", end=True)
    assert (cut.done, cut.broken, bytes(cut.body)) == (False, True, b"half")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"garbage\r\n\r\n", "malformed"),
        (b"HTTP/2 200 OK\r\n\r\n", "malformed"),
        (b"HTTP/1.1 abc\r\n\r\n", "malformed"),
        (b"HTTP/1.1 099 Low\r\n\r\n", "malformed"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "malformed"),
        (OK + b"no colon\r\n\r\n", "malformed"),
        (OK + b"Name : x\r\n\r\n", "malformed"),
        (OK + b"A: b\r\n" * 50_000, "malformed"),
        (OK + b"A: " + b"b" * 40_000, "malformed"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000, "protocol"),
        (b"\r\n" * 40_000, "protocol"),
        (b"HTTP/1.1 100 Continue\r\nA: " + b"b" * 10_000 + b"\r\n\r\n" + b"\r\n" * 20_000, "protocol"),
    ],
)
@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_what_is_no_answer_ends(said: bytes, reason: str, size: int) -> None:
    with pytest.raises(NoAnswer) as caught:
        parsed(*[said[at : at + size] for at in range(0, len(said), size)])
    assert caught.value.reason == reason


@given(st.binary(max_size=300), st.integers(0, 3))
def test_nothing_else_is_raised(noise: bytes, kind: int) -> None:
    starts = (b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n")
    parser = AnswerParser()
    try:
        parser.feed(starts[kind] + noise)
        parser.feed(noise)
        parser.end()
    except NoAnswer:
        assert not parser.status
