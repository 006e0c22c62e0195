"""Any order of requests, answers, windows, settings, resets, cancellations and goodbyes, with hyper-h2 as the server.

The law: hyper-h2 finds nothing wrong with our bytes, every request resolves exactly once, and with the answer meant for
it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, SettingsAcknowledged, StreamEnded, StreamReset
from h2.settings import SettingCodes
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fanout.http.codec import Codec
from fanout.http.frames import PREFACE, ErrorCode, FrameType, frame
from fanout.http.frames import goaway as goaway_frame
from fanout.http.hpack_encoder import Head, literal
from fanout.http.response import RequestFailed, Response
from fanout_kit.examples import examples

HEADS = [
    Head("POST", "https", "gateway.test", [("apns-topic", f"com.example.{'x' * n}"), ("kind", str(n))])
    for n in (1, 40, 900, 5000)
]
STATUSES = ["200", "201", "204", "400", "403", "404", "410", "429", "500", "503", "599"]


HOW = st.sampled_from(["all", "all", "nothing", "3", "20", "100"])


def step(**given: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule after which something is delivered, or not."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(self: Conversation, how: str, **drawn: Any) -> None:
            function(self, **drawn)
            self.move(how)

        run.__name__ = function.__name__
        return rule(how=HOW, **given)(run)

    return decorate


class Asked:
    """One request: what was sent, and what came back."""

    def __init__(self, number: int, body: bytes) -> None:
        self.number = number
        self.body = body
        self.stream = 0
        self.results: list[Response | RequestFailed] = []
        self.cancelled = False
        self.status = ""
        self.answer = bytearray()
        self.refused = False


class Conversation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.client = Codec(max_body=3000)
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.server.initiate_connection()
        self.asked: dict[int, Asked] = {}
        self.arrived: dict[int, bytearray] = {}
        self.whole: set[int] = set()
        self.answering: set[int] = set()
        self.to_server = b""
        self.unread = b""
        self.to_client = b""
        self.said_goodbye = False
        self.last = 2**31 - 1
        self.unacknowledged = True
        self.client.start()
        self.flush_server()

    # -- moving bytes

    def flush_server(self) -> None:
        self.to_client += self.server.data_to_send()

    def hand_to_client(self, data: bytes) -> None:
        self.client.receive(data)
        for asked, response in self.client.answered:
            asked.results.append(response)
        for asked, failure in self.client.failed:
            asked.results.append(failure)
        self.client.answered.clear()
        self.client.failed.clear()

    def hand_to_server(self, data: bytes) -> None:
        # After its own GOAWAY hyper-h2 takes nothing more, though streams below the last one go on.
        if self.said_goodbye:
            return
        self.unread += data
        # It applies a larger frame size only from its next call on, so it is given one frame at a time.
        while len(self.unread) >= 9:
            preface = self.unread.startswith(PREFACE[:9])
            size = len(PREFACE) if preface else 9 + int.from_bytes(self.unread[:3], "big")
            if len(self.unread) < size:
                return
            whole, self.unread = self.unread[:size], self.unread[size:]
            self.serve(whole)

    def serve(self, whole: bytes) -> None:
        for event in self.server.receive_data(whole):
            if isinstance(event, RequestReceived):
                headers = dict(event.headers)
                assert int(headers["number"]) == self.asked[event.stream_id].number
                assert headers[":path"] == f"/{event.stream_id}"
                self.arrived[event.stream_id] = bytearray()
            elif isinstance(event, DataReceived | StreamEnded) and event.stream_id not in self.arrived:
                pass  # the rest of a body whose stream was answered or reset early
            elif isinstance(event, DataReceived):
                self.arrived[event.stream_id] += event.data
            elif isinstance(event, StreamEnded):
                assert self.arrived[event.stream_id] == self.asked[event.stream_id].body
                self.whole.add(event.stream_id)
            elif isinstance(event, StreamReset):
                self.forget(event.stream_id)
            elif isinstance(event, SettingsAcknowledged):
                self.unacknowledged = False
        self.flush_server()

    def forget(self, stream: int) -> None:
        self.arrived.pop(stream, None)
        self.whole.discard(stream)
        self.answering.discard(stream)

    def move(self, how: str) -> None:
        """Deliver nothing, a little, or all that is under way; a little splits frames anywhere."""
        if how == "all":
            self.exchange()
        elif how != "nothing":
            size = int(how)
            self.to_server += self.client.take()
            data, self.to_server = self.to_server[: size * 40], self.to_server[size * 40 :]
            self.hand_to_server(data)
            data, self.to_client = self.to_client[:size], self.to_client[size:]
            self.hand_to_client(data)

    @initialize(how=st.sampled_from(["nothing", "all", "all"]))
    def begin(self, how: str) -> None:
        self.move(how)

    def exchange(self) -> None:
        """Deliver everything, both ways, until nothing is under way."""
        for _ in range(100):
            self.to_server += self.client.take()
            if not self.to_server and not self.to_client:
                return
            data, self.to_server = self.to_server, b""
            self.hand_to_server(data)
            data, self.to_client = self.to_client, b""
            self.hand_to_client(data)
        raise AssertionError("the two never stop talking")

    # -- the client

    @step(
        heads=st.lists(st.sampled_from(HEADS), min_size=1, max_size=3),
        size=st.sampled_from([0, 1, 100, 4096, 20_000, 70_000]),
    )
    def ask(self, heads: list[Head], size: int) -> None:
        for head in heads:
            self.ask_one(head, size)

    def ask_one(self, head: Head, size: int) -> None:
        if not self.client.usable or len(self.client.streams) >= min(self.client.peer_streams, 20):
            return
        stream = self.client.next_stream
        asked = Asked(len(self.asked), bytes([len(self.asked) % 256]) * size)
        self.asked[stream] = asked
        fields = literal("number", str(asked.number), never_indexed=asked.number % 2 == 0)
        asked.stream = self.client.request(asked, head, b"/%d" % stream, fields, asked.body)
        assert asked.stream == stream

    @step(pick=st.integers(0, 1000))
    def cancel(self, pick: int) -> None:
        if self.client.streams:
            stream = sorted(self.client.streams)[pick % len(self.client.streams)]
            self.asked[stream].cancelled = True
            self.client.cancel(stream)

    # -- the server

    def choose(self, pick: int, streams: set[int]) -> int | None:
        """One of `streams` that hyper-h2 still lets us write to."""
        alive = sorted(streams)
        return alive[pick % len(alive)] if alive and not self.said_goodbye else None

    @step(
        pick=st.integers(0, 1000),
        status=st.sampled_from(STATUSES),
        size=st.sampled_from([0, 0, 10, 10, 17_000]),
        end=st.booleans(),
    )
    def answer(self, pick: int, status: str, size: int, end: bool) -> None:
        stream = self.choose(pick, self.arrived.keys() - self.answering)
        if stream is None:
            return
        asked = self.asked[stream]
        asked.status = status
        fields = [(":status", status), ("number", str(asked.number)), ("filler", "y" * size)]
        self.server.send_headers(stream, fields, end_stream=end)
        self.answering.add(stream)
        if end:
            self.forget(stream)
        self.flush_server()

    @step(pick=st.integers(0, 1000), count=st.integers(1, 3))
    def interim(self, pick: int, count: int) -> None:
        stream = self.choose(pick, self.arrived.keys() - self.answering)
        if stream is not None:
            for _ in range(count):
                self.server.send_headers(stream, [(":status", "103"), ("link", "</x>")])
            self.flush_server()

    @step(
        pick=st.integers(0, 1000),
        size=st.sampled_from([0, 1, 500, 2000]),
        padding=st.sampled_from([None, 0, 5, 255]),
        end=st.booleans(),
    )
    def answer_body(self, pick: int, size: int, padding: int | None, end: bool) -> None:
        stream = self.choose(pick, self.answering)
        if stream is None:
            return
        cost = size + (0 if padding is None else padding + 1)
        if self.server.local_flow_control_window(stream) < cost:
            return
        self.asked[stream].answer += b"z" * size
        self.server.send_data(stream, b"z" * size, pad_length=padding, end_stream=end)
        if end:
            self.forget(stream)
        self.flush_server()

    @step(pick=st.integers(0, 1000))
    def trailers(self, pick: int) -> None:
        stream = self.choose(pick, self.answering)
        if stream is not None:
            self.server.send_headers(stream, [("checksum", "0")], end_stream=True)
            self.forget(stream)
            self.flush_server()

    @step(pick=st.integers(0, 1000), code=st.sampled_from(list(ErrorCode)))
    def reset(self, pick: int, code: ErrorCode) -> None:
        stream = self.choose(pick, set(self.arrived))
        if stream is not None:
            self.asked[stream].refused = code == ErrorCode.REFUSED_STREAM and stream not in self.answering
            self.server.reset_stream(stream, code)
            self.forget(stream)
            self.flush_server()

    @step(
        streams=st.sampled_from([None, 0, 1, 3, 100]),
        window=st.sampled_from([None, 0, 10, 65_535, 1_000_000]),
        largest=st.sampled_from([None, 16_384, 17_000, 100_000]),
        table=st.sampled_from([None, 0, 60, 1000, 4096, 65_536]),
    )
    def change_settings(self, streams: int | None, window: int | None, largest: int | None, table: int | None) -> None:
        # hyper-h2 takes any acknowledgement for that of its latest SETTINGS, so only one may be under way.
        if self.said_goodbye or self.unacknowledged:
            return
        self.unacknowledged = True
        values = {
            SettingCodes.MAX_CONCURRENT_STREAMS: streams,
            SettingCodes.INITIAL_WINDOW_SIZE: window,
            SettingCodes.MAX_FRAME_SIZE: largest,
            SettingCodes.HEADER_TABLE_SIZE: table,
        }
        self.server.update_settings({code: value for code, value in values.items() if value is not None})
        self.flush_server()

    @step(pick=st.integers(0, 1000), increment=st.integers(1, 30_000), whole=st.booleans())
    def open_window(self, pick: int, increment: int, whole: bool) -> None:
        if self.said_goodbye:
            return
        stream = self.choose(pick, self.arrived.keys() - self.whole)
        self.server.increment_flow_control_window(increment, None if whole else stream)
        self.flush_server()

    @step()
    def ping(self) -> None:
        if not self.said_goodbye:
            self.server.ping(b"abcdefgh")
            self.flush_server()
        if self.client.usable and self.client.pinged is None:
            self.client.ping(b"12345678")

    @precondition(lambda self: not self.said_goodbye and len(self.asked) > 4)
    @step(back=st.integers(0, 4), twice=st.booleans())
    def goodbye(self, back: int, twice: bool) -> None:
        """GOAWAY with a last stream of the newest that arrived, or some before it."""
        self.flush_server()
        self.said_goodbye = True
        newest = max(self.arrived, default=1)
        last = max(1, newest - 2 * back)
        if twice:
            announced = bytearray(goaway_frame(0))
            announced[9:13] = (2**31 - 1).to_bytes(4, "big")
            self.to_client += bytes(announced)
        final = bytearray(goaway_frame(0, b"bye"))
        final[9:13] = last.to_bytes(4, "big")
        self.to_client += bytes(final)
        self.last = last
        for stream in sorted(stream for stream in self.whole if stream <= last):
            # hyper-h2 refuses to answer after its GOAWAY, so the answers it owes are made by hand.
            if stream not in self.answering:
                self.asked[stream].status = "200"
                block = b"\x88" + literal("number", str(self.asked[stream].number))
                self.to_client += frame(FrameType.HEADERS, 0x5, stream, block)
            else:
                self.to_client += frame(FrameType.DATA, 0x1, stream, b"")

    # -- the law

    @invariant()
    def no_fault(self) -> None:
        assert self.client.fault == ""

    @invariant()
    def each_resolves_at_most_once(self) -> None:
        for stream, asked in self.asked.items():
            assert len(asked.results) + asked.cancelled + (stream in self.client.streams) == 1

    def finish(self) -> None:
        """The server opens all windows, reads every body and ends every answer: nothing may be left."""
        self.exchange()
        self.server.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**20})
        if self.server.inbound_flow_control_window < 2**24:
            self.server.increment_flow_control_window(2**24)
        self.flush_server()
        self.exchange()
        assert self.whole == set(self.arrived)
        for stream in sorted(self.whole):
            if stream in self.answering:
                self.server.send_data(stream, b"", pad_length=7, end_stream=True)
            else:
                self.asked[stream].status = "418"
                fields = [(":status", "418"), ("number", str(self.asked[stream].number))]
                self.server.send_headers(stream, fields, end_stream=True)
        self.flush_server()
        self.exchange()
        assert not self.client.streams

    def teardown(self) -> None:
        self.exchange()
        if not self.said_goodbye:
            self.finish()
        self.client.close("closed")
        self.hand_to_client(b"")
        for asked, failure in self.client.failed:
            asked.results.append(failure)
        for asked in self.asked.values():
            if not asked.cancelled:
                (result,) = asked.results
                self.check(asked, result)
        assert not self.client.streams
        assert not self.client.partial
        assert not self.client.outflow.waiting

    def check(self, asked: Asked, result: Response | RequestFailed) -> None:
        if isinstance(result, Response):
            assert str(result.status) == asked.status
            assert result.header("number") == str(asked.number)
            assert result.body == bytes(asked.answer[:3000])
        elif result.reason == "goaway":
            assert asked.stream > self.last
            assert result.debug == b"bye"
            # A server that excludes a stream which it has begun to answer is not to be believed.
            assert result.sent == "no" or asked.status
        elif result.reason == "refused":
            assert asked.refused
            assert result.sent == "no"
        else:
            assert result.reason in ("reset", "closed")


Conversation.TestCase.settings = settings(
    max_examples=examples(150),
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestConversation = Conversation.TestCase
