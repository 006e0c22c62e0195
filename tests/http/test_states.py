"""Every state of a stream against every frame: the table, and the codec that carries it out."""

from __future__ import annotations

import pytest

from fanout.http.codec import Codec
from fanout.http.frames import END_HEADERS, END_STREAM, ErrorCode, FrameType, frame, rst_stream, settings, window_update
from fanout.http.hpack_encoder import Head
from fanout.http.states import ON_STREAM, Action, Got, StreamState

HEAD = Head("POST", "https", "gateway.test")
EARLY_HINTS = b"\x08\x03103"
GONE = b"\x08\x03410"
TRAILER = b"\x00\x05grade\x01a"

FRAMES = {
    Got.INTERIM: lambda s: frame(FrameType.HEADERS, END_HEADERS, s, EARLY_HINTS),
    Got.INTERIM_END: lambda s: frame(FrameType.HEADERS, END_HEADERS | END_STREAM, s, EARLY_HINTS),
    Got.HEADERS: lambda s: frame(FrameType.HEADERS, END_HEADERS, s, b"\x88"),
    Got.HEADERS_END: lambda s: frame(FrameType.HEADERS, END_HEADERS | END_STREAM, s, b"\x88"),
    Got.TRAILERS: lambda s: frame(FrameType.HEADERS, END_HEADERS, s, TRAILER),
    Got.TRAILERS_END: lambda s: frame(FrameType.HEADERS, END_HEADERS | END_STREAM, s, TRAILER),
    Got.DATA: lambda s: frame(FrameType.DATA, 0, s, b"body"),
    Got.DATA_END: lambda s: frame(FrameType.DATA, END_STREAM, s, b"body"),
    Got.RST_STREAM: lambda s: rst_stream(s, ErrorCode.INTERNAL_ERROR),
    Got.WINDOW_UPDATE: lambda s: window_update(s, 10),
    Got.PRIORITY: lambda s: frame(FrameType.PRIORITY, 0, s, b"\0\0\0\0\1"),
    Got.PUSH_PROMISE: lambda s: frame(FrameType.PUSH_PROMISE, END_HEADERS, s, b"\0\0\0\2\x88"),
}


def codec_in(state: StreamState) -> tuple[Codec, int]:
    """A codec with two streams: the one returned, which is in `state`, and another that waits."""
    codec = Codec()
    codec.start()
    codec.receive(settings([]))
    stream = codec.request("it", HEAD, b"/", b"", b"x")
    codec.request("other", HEAD, b"/", b"", b"x")
    if state is StreamState.IDLE:
        return codec, codec.next_stream
    if state is StreamState.RECEIVING:
        # A refusal: a status of success stands, however its answer ends (`test_begun_answers`).
        codec.receive(frame(FrameType.HEADERS, END_HEADERS, stream, GONE))
    elif state is StreamState.CLOSED:
        codec.receive(FRAMES[Got.HEADERS_END](stream))
        codec.answered.clear()
    codec.take()
    return codec, stream


_LATE = dict.fromkeys(Got, Action.IGNORE) | {Got.PUSH_PROMISE: Action.FATAL}
_OPEN = {
    Got.RST_STREAM: Action.FAIL,
    Got.WINDOW_UPDATE: Action.CREDIT,
    Got.PRIORITY: Action.IGNORE,
    Got.PUSH_PROMISE: Action.FATAL,
}
_BEGINS = {Got.INTERIM: Action.IGNORE, Got.HEADERS: Action.BEGIN, Got.HEADERS_END: Action.FINISH}
_GOES_ON = {Got.DATA: Action.ADD, Got.DATA_END: Action.ADD_FINISH, Got.TRAILERS_END: Action.FINISH}
STANDARD = {
    # Section 5.1: anything but PRIORITY is a connection error; late frames are expected.
    StreamState.IDLE: dict.fromkeys(Got, Action.FATAL) | {Got.PRIORITY: Action.IGNORE},
    StreamState.CLOSED: _LATE,
    # Section 8.1: interim heads, one final head, data, trailers that end the stream; anything else is malformed
    # (8.1.1).
    StreamState.WAITING: dict.fromkeys(Got, Action.MALFORMED) | _OPEN | _BEGINS,
    StreamState.RECEIVING: dict.fromkeys(Got, Action.MALFORMED) | _OPEN | _GOES_ON,
}
"""RFC 9113, written down apart from the table."""


@pytest.mark.parametrize("state", StreamState)
def test_the_table_says_what_the_standard_says(state: StreamState) -> None:
    assert ON_STREAM[state] == STANDARD[state]


def test_the_table_is_total() -> None:
    assert set(ON_STREAM) == set(StreamState)
    for row in ON_STREAM.values():
        assert set(row) == set(Got)


@pytest.mark.parametrize("got", Got)
@pytest.mark.parametrize("state", StreamState)
def test_each_state_takes_each_frame_as_the_table_says(state: StreamState, got: Got) -> None:
    codec, stream = codec_in(state)
    action = ON_STREAM[state][got]
    codec.receive(FRAMES[got](stream))
    answered = [token for token, _ in codec.answered]
    failed = dict(codec.failed)
    if action is Action.FATAL:
        assert codec.closed
        assert {failure.reason for failure in failed.values()} == {"protocol"}
        assert not codec.streams
        assert b"\x07" in codec.take()
        return
    assert not codec.closed
    assert codec.streams.get(3) == "other"
    if action in (Action.FINISH, Action.ADD_FINISH):
        assert answered == ["it"]
        assert 1 not in codec.streams
    elif action is Action.MALFORMED:
        assert failed["it"].reason == "malformed"
        assert codec.take() == rst_stream(1, ErrorCode.PROTOCOL_ERROR)
    elif action is Action.FAIL:
        assert failed["it"].reason == "reset"
        assert failed["it"].code == ErrorCode.INTERNAL_ERROR
        assert codec.take() == b""
    else:
        assert action in (Action.IGNORE, Action.BEGIN, Action.ADD, Action.CREDIT)
        assert not answered
        assert not failed
    assert (stream in codec.partial) == (
        action in (Action.BEGIN, Action.ADD)
        or (state is StreamState.RECEIVING and action in (Action.IGNORE, Action.CREDIT))
    )


@pytest.mark.parametrize("stream", [2, 4, 2**31 - 2])
@pytest.mark.parametrize("got", [got for got in Got if got is not Got.PRIORITY])
def test_streams_of_the_server_do_not_exist(stream: int, got: Got) -> None:
    codec, _ = codec_in(StreamState.WAITING)
    codec.receive(FRAMES[got](stream))
    assert codec.closed
    assert len(codec.failed) == 2


ON_ZERO = {FrameType.SETTINGS, FrameType.PING, FrameType.GOAWAY, FrameType.WINDOW_UPDATE}


@pytest.mark.parametrize("kind", [kind for kind in FrameType if kind is not FrameType.WINDOW_UPDATE])
def test_a_frame_on_the_wrong_kind_of_stream_is_fatal(kind: FrameType) -> None:
    codec, stream = codec_in(StreamState.WAITING)
    codec.receive(frame(kind, 0, stream if kind in ON_ZERO else 0, b"\0" * 8))
    assert codec.closed
    assert codec.fault


@pytest.mark.parametrize("length", [0, 3, 4, 5, 7, 9])
@pytest.mark.parametrize(
    ("kind", "right"),
    [(FrameType.RST_STREAM, 4), (FrameType.WINDOW_UPDATE, 4), (FrameType.PING, 8), (FrameType.PRIORITY, 5)],
)
def test_a_frame_of_the_wrong_size_is_fatal(kind: FrameType, right: int, length: int) -> None:
    codec, stream = codec_in(StreamState.WAITING)
    codec.receive(frame(kind, 0, 0 if kind is FrameType.PING else stream, b"\0\0\0\1\0\0\0\0\0"[:length]))
    assert codec.closed == (length != right)
