"""A request under uvicorn, with a short way for an answer that is there as a whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

__all__ = ["Cycle"]

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Bytes that no field has (RFC 9110, section 5.5): a line break among them would begin another field."""


class Cycle(RequestResponseCycle):
    """One request, and the maker of its answer. uvicorn makes the object, and the connection then changes its class."""

    def fanout_answer(self, status: int, fields: Sequence[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write an answer in one piece, as two messages to `send` would be written; False where these must be sent.

        `fields` have names in lower case, and none that speaks of the connection or of the body's length.
        """
        if not self.keep_alive or self.response_started or self.disconnected or self.flow.write_paused:
            return False
        if self.scope["method"] == "HEAD":
            return False
        lines = [b"%b: %b" % field for field in (*self.default_headers, *fields)]
        if _CONTROL.search(b"\t".join(lines)):
            raise ValueError("A field of the answer has a control character.")
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(STATUS_LINE[status] + b"\r\n".join(lines) + body)
        self.message_event.set()
        self.on_response()
        return True

    async def receive(self) -> Any:
        """See the ASGI specification. A body that has arrived is given without a wait."""
        if self.more_body or self.waiting_for_100_continue or self.disconnected or self.response_complete:
            return await super().receive()
        if self.flow.read_paused or not self.message_event.is_set():
            return await super().receive()
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}
