"""The meaning of a frame for a stream: one table of (state, frame) -> action.

Every request is complete when it is sent, so a stream as the client sees it has four states (RFC 9113, section 5.1,
seen from the requesting side; `idle` and `closed` have no entry in the connection's map of streams):

    IDLE --request--> WAITING --response headers--> RECEIVING --END_STREAM--> CLOSED
                         \\--headers with END_STREAM, RST_STREAM either way----/
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["ON_STREAM", "Action", "Got", "StreamState"]


class StreamState(StrEnum):
    IDLE = "idle"
    WAITING = "waiting"
    RECEIVING = "receiving"
    CLOSED = "closed"


class Got(StrEnum):
    """A frame on a stream, told apart as far as the table needs it.

    A header block with a status below 200 is INTERIM, one with a final status HEADERS, and one without any TRAILERS.
    """

    INTERIM = "interim"
    INTERIM_END = "interim, end"
    HEADERS = "headers"
    HEADERS_END = "headers, end"
    TRAILERS = "trailers"
    TRAILERS_END = "trailers, end"
    DATA = "data"
    DATA_END = "data, end"
    RST_STREAM = "rst_stream"
    WINDOW_UPDATE = "window_update"
    PRIORITY = "priority"
    PUSH_PROMISE = "push_promise"


class Action(StrEnum):
    IGNORE = "ignore"
    """Drop it. Late frames on a closed stream are expected (section 5.1) and counted as noise."""
    BEGIN = "begin"
    """Keep the response's head, its body follows."""
    FINISH = "finish"
    """Resolve the request; trailers are dropped."""
    ADD = "add"
    ADD_FINISH = "add, finish"
    FAIL = "fail"
    """The peer gave the stream up."""
    CREDIT = "credit"
    """More room for a body that waits for it."""
    MALFORMED = "malformed"
    """A stream error (section 8.1.1): reset it, the connection goes on."""
    FATAL = "fatal"
    """A connection error of type PROTOCOL_ERROR."""


_IDLE = dict.fromkeys(Got, Action.FATAL) | {Got.PRIORITY: Action.IGNORE}

_WAITING = {
    Got.INTERIM: Action.IGNORE,
    Got.INTERIM_END: Action.MALFORMED,
    Got.HEADERS: Action.BEGIN,
    Got.HEADERS_END: Action.FINISH,
    Got.TRAILERS: Action.MALFORMED,
    Got.TRAILERS_END: Action.MALFORMED,
    Got.DATA: Action.MALFORMED,
    Got.DATA_END: Action.MALFORMED,
    Got.RST_STREAM: Action.FAIL,
    Got.WINDOW_UPDATE: Action.CREDIT,
    Got.PRIORITY: Action.IGNORE,
    Got.PUSH_PROMISE: Action.FATAL,
}

_RECEIVING = {
    Got.INTERIM: Action.MALFORMED,
    Got.INTERIM_END: Action.MALFORMED,
    Got.HEADERS: Action.MALFORMED,
    Got.HEADERS_END: Action.MALFORMED,
    Got.TRAILERS: Action.MALFORMED,
    Got.TRAILERS_END: Action.FINISH,
    Got.DATA: Action.ADD,
    Got.DATA_END: Action.ADD_FINISH,
    Got.RST_STREAM: Action.FAIL,
    Got.WINDOW_UPDATE: Action.CREDIT,
    Got.PRIORITY: Action.IGNORE,
    Got.PUSH_PROMISE: Action.FATAL,
}

_CLOSED = dict.fromkeys(Got, Action.IGNORE) | {Got.PUSH_PROMISE: Action.FATAL}

ON_STREAM: dict[StreamState, dict[Got, Action]] = {
    StreamState.IDLE: _IDLE,
    StreamState.WAITING: _WAITING,
    StreamState.RECEIVING: _RECEIVING,
    StreamState.CLOSED: _CLOSED,
}
"""Total: every state answers every frame. PUSH_PROMISE is fatal everywhere because we send SETTINGS_ENABLE_PUSH = 0
(section 8.4)."""
