"""The codec without a loop: what it takes from a peer is bounded, and a breach is the end."""

from __future__ import annotations

import pytest

from fanout.http.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    PADDED,
    ErrorCode,
    FrameType,
    Setting,
    frame,
    ping,
    rst_stream,
    settings,
    settings_ack,
    window_update,
)
from tests.http.codecs import OK, WHOLE, bye, farewell, frames_of, opened, results


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
    assert [token for token, _ in codec.answered] == [1]
    assert [token for token, _ in codec.failed] == [3]


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
    assert [token for token, _ in codec.failed] == [1]
    assert {token for token, _ in codec.answered} == {3, 5}


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
    assert results(codec)[1].status == 200


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
    codec.receive(frame(FrameType.HEADERS, END_HEADERS, 1, b"\x8c"))  # 400
    codec.partial[1].window = 10
    codec.receive(frame(FrameType.DATA, 0, 1, b"z" * 11))
    assert results(codec)[1].code == ErrorCode.FLOW_CONTROL_ERROR
    assert codec.take() == rst_stream(1, ErrorCode.FLOW_CONTROL_ERROR)
    assert not codec.closed
    codec.until_update = -codec.CONNECTION_WINDOW // 2 + 10
    codec.receive(frame(FrameType.DATA, 0, 1, b"z" * 11))
    assert farewell(codec) == ErrorCode.FLOW_CONTROL_ERROR


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
