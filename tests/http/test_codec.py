"""The codec without a loop: what the oracle cannot say, because it is too well behaved."""

from __future__ import annotations

from struct import iter_unpack

import pytest

from fanout.http.codec import Codec
from fanout.http.frames import (
    END_HEADERS,
    END_STREAM,
    LAST_STREAM,
    PADDED,
    PREFACE,
    PRIORITY,
    ErrorCode,
    FrameType,
    Setting,
    frame,
    goaway,
    ping,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)
from fanout.http.response import RequestFailed
from tests.http.codecs import HEAD, OK, WHOLE, bye, farewell, frames_of, opened, results


def test_the_first_bytes_are_the_preface_and_settings_without_push_and_table() -> None:
    codec = Codec()
    codec.start()
    data = codec.take()
    assert data.startswith(PREFACE)
    (kind, _, _, payload), (update, _, stream, _) = frames_of(data[len(PREFACE) :])
    assert kind == FrameType.SETTINGS
    values = dict(iter_unpack(">HI", payload))
    assert values[Setting.HEADER_TABLE_SIZE] == 0
    assert values[Setting.ENABLE_PUSH] == 0
    assert (update, stream) == (FrameType.WINDOW_UPDATE, 0)


@pytest.mark.parametrize(
    "first", [ping(b"12345678"), settings_ack(), goaway(0), frame(FrameType.HEADERS, WHOLE, 1, OK), frame(99, 0, 0)]
)
def test_a_connection_that_does_not_begin_with_settings_is_over(first: bytes) -> None:
    codec = Codec()
    codec.start()
    codec.take()
    codec.receive(first)
    assert codec.closed
    assert farewell(codec) == ErrorCode.PROTOCOL_ERROR


def answer_in_every_shape(stream: int) -> bytes:
    """An answer with interim heads, padding, priority, continuations, several DATA frames and trailers."""
    head = OK + b"\x00\x07apns-id\x03one"
    return b"".join(
        [
            frame(FrameType.HEADERS, END_HEADERS, stream, b"\x08\x03103"),
            frame(FrameType.HEADERS, PADDED | PRIORITY, stream, b"\x04" + b"\0\0\0\0\1" + head[:3] + b"\0" * 4),
            frame(FrameType.CONTINUATION, 0, stream, head[3:8]),
            frame(FrameType.CONTINUATION, 0, stream, b""),
            frame(FrameType.CONTINUATION, END_HEADERS, stream, head[8:]),
            frame(FrameType.DATA, PADDED, stream, b"\x03" + b"body" + b"\0" * 3),
            frame(FrameType.DATA, PADDED, stream, b"\0" + b", more"),
            frame(FrameType.DATA, 0, stream, b""),
            frame(0x77, 0xFF, stream, b"unknown"),
            frame(FrameType.HEADERS, WHOLE, stream, b"\x00\x05grade\x01a"),
        ]
    )


@pytest.mark.parametrize("size", range(1, 40))
def test_bytes_may_be_split_anywhere(size: int) -> None:
    codec = opened(requests=3)
    data = answer_in_every_shape(1) + frame(FrameType.HEADERS, WHOLE, 3, OK) + answer_in_every_shape(5)
    for start in range(0, len(data), size):
        codec.receive(data[start : start + size])
    assert not codec.failed
    assert [(token, r.status, r.body, r.header("apns-id")) for token, r in codec.answered] == [
        (1, 200, b"body, more", "one"),
        (3, 200, b"", None),
        (5, 200, b"body, more", "one"),
    ]


@pytest.mark.parametrize(
    "answer", [frame(FrameType.HEADERS, WHOLE, 1, OK), frame(FrameType.HEADERS, WHOLE, 1, b"\x8c")]
)
def test_an_answer_before_the_body_is_out_stops_the_body(answer: bytes) -> None:
    codec = opened(body=b"x" * 100_000)
    assert 1 in codec.outflow.waiting
    codec.receive(answer)
    assert [token for token, _ in codec.answered] == [1]
    assert codec.take() == rst_stream(1, ErrorCode.CANCEL)
    codec.receive(window_update(0, 100_000) + window_update(1, 100_000))
    assert codec.take() == b""


@pytest.mark.parametrize(("body", "sent"), [(b"x" * 100_000, "no"), (b"x", "unknown")])
@pytest.mark.parametrize("end", ["timeout", "reset", "closed"])
def test_a_request_whose_body_waits_for_the_window_was_not_sent(body: bytes, sent: str, end: str) -> None:
    codec = opened(body=body)
    if end == "timeout":
        codec.expire(1)
    elif end == "reset":
        codec.receive(rst_stream(1, ErrorCode.INTERNAL_ERROR))
    else:
        codec.close("closed")
    ((_, failed),) = codec.failed
    assert (failed.sent, failed.reason) == (sent, end)


def test_a_stream_that_ends_frees_nothing_twice() -> None:
    codec = opened(requests=2)
    codec.receive(
        frame(FrameType.HEADERS, WHOLE, 1, OK) * 3 + rst_stream(1, 0) + frame(FrameType.DATA, END_STREAM, 1, b"")
    )
    assert [token for token, _ in codec.answered] == [1]
    assert not codec.failed
    assert list(codec.streams) == [3]


@pytest.mark.parametrize(
    ("code", "begun", "expected"),
    [
        (ErrorCode.REFUSED_STREAM, False, ("no", "refused")),
        (ErrorCode.REFUSED_STREAM, True, ("unknown", "reset")),
        (ErrorCode.CANCEL, False, ("unknown", "reset")),
        (ErrorCode.NO_ERROR, False, ("unknown", "reset")),
        (0xFFFF, False, ("unknown", "reset")),
    ],
)
def test_only_a_refusal_says_that_nothing_was_done(code: int, begun: bool, expected: tuple[str, str]) -> None:
    codec = opened()
    if begun:
        codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, b"\x8c"))  # 400
    codec.receive(rst_stream(1, code))
    failure = results(codec)[1]
    assert isinstance(failure, RequestFailed)
    assert (failure.sent, failure.reason) == expected
    assert failure.code == code


def test_goaway_fails_what_it_excludes_and_awaits_the_rest() -> None:
    codec = opened(requests=5)
    codec.receive(bye(5, 0, b'{"reason":"Shutdown"}'))
    assert [token for token, _ in codec.failed] == [7, 9]
    for _, failure in codec.failed:
        assert (failure.sent, failure.reason, failure.debug) == ("no", "goaway", b'{"reason":"Shutdown"}')
    assert not codec.usable
    codec.receive(b"".join(frame(FrameType.HEADERS, WHOLE, stream, OK) for stream in (1, 3, 5, 7)))
    assert [token for token, _ in codec.answered] == [1, 3, 5]
    assert not codec.streams


def test_a_goodbye_in_two_steps_excludes_at_the_second() -> None:
    codec = opened(requests=3)
    codec.receive(bye(2**31 - 1))
    assert not codec.failed
    assert not codec.usable
    codec.receive(bye(3))
    assert [token for token, _ in codec.failed] == [5]
    codec.receive(bye(2**31 - 1))
    codec.receive(bye(1, ErrorCode.ENHANCE_YOUR_CALM, b"hurry"))
    assert [token for token, _ in codec.failed] == [5, 3]
    codec.close("closed")
    failure = results(codec)[1]
    assert isinstance(failure, RequestFailed)
    assert (failure.sent, failure.reason, failure.debug, failure.code) == ("unknown", "closed", b"hurry", 0xB)


@pytest.mark.parametrize("later", [5, 7, 2**31 - 1])
def test_a_later_goodbye_does_not_raise_the_last_id(later: int) -> None:
    """RFC 9113, section 6.8: the number must not increase. What the first one excluded stays excluded, also where it
    was sent since."""
    codec = opened(requests=2)
    codec.receive(bye(3))
    late = codec.request("late", HEAD, b"/", b"", b"")
    codec.take()
    assert late == 5
    codec.receive(bye(later))
    assert [(token, failure.sent) for token, failure in codec.failed] == [("late", "no")]
    assert set(codec.streams) == {1, 3}


def test_what_was_never_handed_over_was_not_sent() -> None:
    codec = opened(requests=1)
    codec.request(3, HEAD, b"/", b"", b"")
    codec.take()
    codec.request(5, HEAD, b"/", b"", b"x" * 100_000)
    codec.take()
    codec.request(7, HEAD, b"/", b"", b"")
    codec.close("closed", code=0)
    assert codec.take() == goaway(0)
    assert {token: failure.sent for token, failure in codec.failed} == {1: "unknown", 3: "unknown", 5: "no", 7: "no"}
    codec.close("closed")
    codec.receive(frame(FrameType.HEADERS, WHOLE, 1, OK))
    assert len(codec.failed) == 4
    assert not codec.answered


def test_stream_ids_run_out() -> None:
    codec = Codec(first_stream=LAST_STREAM - 2)
    codec.start()
    codec.receive(settings([]))
    assert codec.request("a", HEAD, b"/", b"", b"") == LAST_STREAM - 2
    assert codec.usable
    assert codec.request("b", HEAD, b"/", b"", b"") == LAST_STREAM
    assert not codec.usable


def test_pings_are_answered_and_ours_recognised() -> None:
    codec = opened()
    codec.receive(ping(b"abcdefgh"))
    assert codec.take() == ping(b"abcdefgh", ack=True)
    codec.ping(b"ours....")
    codec.receive(ping(b"another.", ack=True))
    assert codec.pinged == b"ours...."
    codec.receive(ping(b"ours....", ack=True))
    assert codec.pinged is None


def test_a_head_larger_than_a_frame_goes_out_in_continuations() -> None:
    codec = opened(requests=0)
    codec.request("it", HEAD, b"/" + b"p" * 40_000, b"", b"")
    sent = frames_of(codec.take())
    assert [(kind, flags, len(payload)) for kind, flags, _, payload in sent[:2]] == [
        (FrameType.HEADERS, END_STREAM, 16_384),
        (FrameType.CONTINUATION, 0, 16_384),
    ]
    assert sent[2][:2] == (FrameType.CONTINUATION, END_HEADERS)
    codec.request("other", HEAD, b"/" + b"p" * 17_000, b"", b"body")
    sent = frames_of(codec.take())
    assert [(kind, flags) for kind, flags, _, _ in sent] == [
        (FrameType.HEADERS, 0),
        (FrameType.CONTINUATION, END_HEADERS),
        (FrameType.DATA, END_STREAM),
    ]
