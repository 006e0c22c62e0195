"""The codec without a loop: what the oracle cannot say, because it is too well behaved."""

from __future__ import annotations

from struct import iter_unpack

import pytest

from fanout.http.codec import Codec
from fanout.http.frames import (
    ACK,
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
from fanout.http.hpack_encoder import Head
from fanout.http.response import RequestFailed, Response

HEAD = Head("POST", "https", "gateway.test")
OK = b"\x88"
WHOLE = END_HEADERS | END_STREAM


def opened(*values: tuple[int, int], requests: int = 1, body: bytes = b"x", max_body: int = 65_536) -> Codec:
    """A codec after the handshake, with requests on streams 1, 3, … whose tokens are their ids."""
    codec = Codec(max_body=max_body)
    codec.start()
    codec.receive(settings(values))
    for _ in range(requests):
        codec.request(codec.next_stream, HEAD, b"/", b"", body)
    codec.take()
    return codec


def results(codec: Codec) -> dict[int, Response | RequestFailed]:
    return {**dict(codec.answered), **dict(codec.failed)}


def frames_of(data: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def farewell(codec: Codec) -> int:
    """The error code of the GOAWAY that the codec wrote last."""
    kind, _, _, payload = frames_of(codec.take())[-1]
    assert kind == FrameType.GOAWAY
    return int.from_bytes(payload[4:8], "big")


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


def bye(last: int, code: int = 0, debug: bytes = b"") -> bytes:
    raw = goaway(code, debug)
    return raw[:9] + last.to_bytes(4, "big") + raw[13:]


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


@pytest.mark.parametrize("flags", [WHOLE, WHOLE | PADDED])
@pytest.mark.parametrize("payload", [b"", b"\x05", b"\x05\0\0\0\0"])
def test_a_head_too_short_for_what_it_announces_is_fatal_or_malformed(flags: int, payload: bytes) -> None:
    codec = opened()
    codec.receive(frame(FrameType.HEADERS, flags, 1, payload))
    assert results(codec)[1].reason in ("protocol", "malformed")
    assert not codec.streams


def test_data_with_more_padding_than_frame_is_fatal() -> None:
    for payload in (b"", b"\x01", b"\x09abc"):
        codec = opened()
        codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, OK) + frame(FrameType.DATA, PADDED, 1, payload))
        assert codec.closed


def test_a_frame_over_our_limit_is_fatal_at_its_header() -> None:
    codec = opened()
    codec.receive(frame(FrameType.DATA, 0, 1, b"\0" * 16_385)[:9])
    assert farewell(codec) == ErrorCode.FRAME_SIZE_ERROR
    codec = opened()
    codec.receive(frame(FrameType.HEADERS, WHOLE, 1, OK + b"\x88" * 16_384))
    assert farewell(codec) == ErrorCode.FRAME_SIZE_ERROR
    assert results(codec)[1].reason == "protocol"


@pytest.mark.parametrize(
    "between",
    [ping(b"12345678"), frame(FrameType.DATA, 0, 1, b"x"), frame(FrameType.CONTINUATION, 0, 3, b""), frame(99, 0, 1)],
)
def test_nothing_may_come_between_a_head_and_its_continuation(between: bytes) -> None:
    codec = opened(requests=2)
    codec.receive(frame(FrameType.HEADERS, END_STREAM, 1, OK) + between)
    assert farewell(codec) == ErrorCode.PROTOCOL_ERROR
    assert len(codec.failed) == 2


FLOODS = {
    "settings": settings([(Setting.MAX_CONCURRENT_STREAMS, 100)]),
    "settings ack": settings_ack(),
    "ping": ping(b"12345678"),
    "ping ack": ping(b"12345678", ack=True),
    "window of the connection": window_update(0, 1),
    "window of a stream": window_update(1, 1),
    "priority": frame(FrameType.PRIORITY, 0, 1, b"\0\0\0\0\1"),
    "unknown": frame(0x42, 0, 0, b"abc"),
    "empty data": frame(FrameType.DATA, 0, 3, b""),
    "interim": frame(FrameType.HEADERS, END_HEADERS, 1, b"\x08\x03103"),
    "reset of what is closed": rst_stream(5, ErrorCode.CANCEL),
    "head of what is closed": frame(FrameType.HEADERS, WHOLE, 5, OK),
    "goaway": bye(2**31 - 1),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_ends_the_connection(kind: str) -> None:
    codec = opened(requests=3)
    codec.receive(frame(FrameType.HEADERS, END_HEADERS, 3, OK) + frame(FrameType.HEADERS, WHOLE, 5, OK))
    written = 0
    for _ in range(100):
        codec.receive(FLOODS[kind] * 100)
        written += len(codec.take())
    assert codec.closed
    assert codec.fault
    assert written < 64_000
    assert not codec.streams
    assert len(codec.failed) == 2


@pytest.mark.parametrize("kind", FLOODS)
def test_the_same_spread_over_time_is_no_flood(kind: str) -> None:
    codec = opened(requests=3)
    codec.receive(frame(FrameType.HEADERS, END_HEADERS, 3, OK) + frame(FrameType.HEADERS, WHOLE, 5, OK))
    for _ in range(100):
        codec.receive(FLOODS[kind] * 100)
        codec.take()
        codec.calm()
    assert not codec.closed


@pytest.mark.parametrize("piece", [b"", b"\0" * 2000])
def test_a_header_block_without_end_is_cut_off(piece: bytes) -> None:
    codec = opened()
    codec.receive(frame(FrameType.HEADERS, 0, 1, OK))
    for _ in range(40):
        codec.receive(frame(FrameType.CONTINUATION, 0, 1, piece))
    assert farewell(codec) == ErrorCode.ENHANCE_YOUR_CALM
    assert results(codec)[1].reason == "protocol"


@pytest.mark.parametrize("padding", [0, 200])
@pytest.mark.parametrize("size", [999, 1000, 1001, 5000])
def test_a_body_is_kept_up_to_its_cap(size: int, padding: int) -> None:
    codec = opened(max_body=1000)
    codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, OK))
    for start in range(0, size, 100):
        part = b"z" * min(100, size - start)
        payload = bytes([padding]) + part + b"\0" * padding if padding else part
        codec.receive(frame(FrameType.DATA, PADDED if padding else 0, 1, payload))
    codec.receive(frame(FrameType.DATA, END_STREAM, 1, b""))
    ((_, response),) = codec.answered
    assert (response.status, response.body) == (200, b"z" * min(size, 1000))
    assert (rst_stream(1, ErrorCode.CANCEL) in codec.take()) == (size > 1000)


def test_windows_are_topped_up_padding_included() -> None:
    codec = opened(requests=1, max_body=10)
    codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, OK))
    full = b"\xff" + b"\0" * 255
    sent, stream_credit, credit = 0, codec.stream_window, codec.CONNECTION_WINDOW
    while sent < 2 * codec.CONNECTION_WINDOW:
        assert len(full) <= min(stream_credit, credit)
        codec.receive(frame(FrameType.DATA, PADDED, 1, full) * 8)
        sent += 8 * len(full)
        stream_credit -= 8 * len(full)
        credit -= 8 * len(full)
        codec.calm()
        for kind, _, stream, payload in frames_of(codec.take()):
            assert kind == FrameType.WINDOW_UPDATE
            if stream:
                stream_credit += int.from_bytes(payload, "big")
            else:
                credit += int.from_bytes(payload, "big")
    assert not codec.closed
    assert codec.streams


def test_late_data_of_a_stream_that_is_gone_still_counts_for_the_connection() -> None:
    codec = opened()
    codec.cancel(1)
    assert codec.take() == rst_stream(1, ErrorCode.CANCEL)
    for _ in range(codec.CONNECTION_WINDOW // 16_384):
        codec.receive(frame(FrameType.DATA, 0, 1, b"\0" * 16_384))
        codec.calm()
    updates = [frame_ for frame_ in frames_of(codec.take()) if frame_[0] == FrameType.WINDOW_UPDATE]
    assert updates
    assert not codec.closed
    assert not codec.failed


def test_data_beyond_a_window_is_an_error() -> None:
    codec = opened(max_body=0)
    codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, OK))
    codec.partial[1].window = 10
    codec.receive(frame(FrameType.DATA, 0, 1, b"z" * 11))
    assert results(codec)[1].code == ErrorCode.FLOW_CONTROL_ERROR
    assert codec.take() == rst_stream(1, ErrorCode.FLOW_CONTROL_ERROR)
    assert not codec.closed
    codec.until_update = -codec.CONNECTION_WINDOW // 2 + 10
    codec.receive(frame(FrameType.DATA, 0, 1, b"z" * 11))
    assert farewell(codec) == ErrorCode.FLOW_CONTROL_ERROR


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
        codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, OK))
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
    """RFC 9113, section 6.8: the number must not increase. What the first one excluded stays excluded, also where it was sent since."""
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


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ((Setting.ENABLE_PUSH, 1), ErrorCode.PROTOCOL_ERROR),
        ((Setting.INITIAL_WINDOW_SIZE, 2**31), ErrorCode.FLOW_CONTROL_ERROR),
        ((Setting.MAX_FRAME_SIZE, 16_383), ErrorCode.PROTOCOL_ERROR),
        ((Setting.MAX_FRAME_SIZE, 2**24), ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_settings_that_may_not_be_are_fatal(values: tuple[int, int], code: ErrorCode) -> None:
    codec = opened()
    codec.receive(settings([values]))
    assert farewell(codec) == code


@pytest.mark.parametrize(
    "wrong",
    [
        frame(FrameType.SETTINGS, 0, 0, b"\0" * 5),
        frame(FrameType.SETTINGS, ACK, 0, b"\0" * 6),
        frame(FrameType.GOAWAY, 0, 0, b"\0" * 7),
        window_update(0, 0),
        window_update(0, 2**31 - 1),
        frame(FrameType.CONTINUATION, END_HEADERS, 1, b""),
    ],
)
def test_other_breaches_are_fatal_too(wrong: bytes) -> None:
    codec = opened()
    codec.receive(wrong)
    assert codec.closed
    assert results(codec)[1].reason == "protocol"
    codec.take()
    codec.receive(wrong)
    assert codec.take() == b""


def test_a_window_of_a_stream_may_not_overflow() -> None:
    codec = opened(body=b"x" * 100_000)
    codec.receive(window_update(1, 2**31 - 1))
    codec.receive(window_update(1, 2**31 - 1))
    assert results(codec)[1].code == ErrorCode.FLOW_CONTROL_ERROR
    assert not codec.closed
    codec = opened(body=b"x" * 100_000)
    codec.receive(window_update(1, 0))
    assert results(codec)[1].reason == "malformed"
    codec = opened(body=b"x" * 100_000)
    codec.receive(window_update(1, 2**31 - 1 - 1000))
    codec.receive(settings([(Setting.INITIAL_WINDOW_SIZE, 2**31 - 1)]))
    assert farewell(codec) == ErrorCode.FLOW_CONTROL_ERROR


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
