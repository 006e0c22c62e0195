"""One answer of HTTP/1.1 (RFC 9112), read from bytes in pieces of any size. Pure.

The first head with a status from 200 on decides: a fault behind it costs the body and the connection, never the status.
Bytes without such a head are bounded, as frames that move no request forward are in HTTP/2.
"""

from __future__ import annotations

import re

__all__ = ["AnswerParser", "NoAnswer", "whole"]

_STATUS = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: [^\r\n]*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_END = re.compile(rb"\r?\n\r?\n")
_NUMBER = re.compile(rb"[0-9]{1,15}")
_USUAL = re.compile(
    rb"HTTP/1\.1 ([2-9][0-9]{2})(?: [^\r\n]*+)?+((?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]++:[^\r\n]*+)++)\r\n\r\n"
)
"""A final head with its lines ended and its fields named as RFC 9112 wants it."""


def whole(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Status, field lines and body of bytes that are exactly one answer of the usual form: one head, a Content-Length,
    as many bytes behind it, on a connection that is kept. None for all else, which `AnswerParser` reads; of these it
    says the same, at six times the cost.
    """
    found = _USUAL.match(data)
    if found is None or found[1] in (b"204", b"304"):
        return None
    end, fields = found.end(), found[2]
    names = fields.lower()
    at = names.find(b"\r\ncontent-length:")
    if at < 0 or end > AnswerParser.MOST_HEAD or b"\r\ntransfer-encoding:" in names:
        return None
    length = names[at + 17 :].partition(b"\r\n")[0].strip()
    if not _NUMBER.fullmatch(length) or names.find(b"\r\ncontent-length:", at + 17) >= 0:
        return None
    at = names.find(b"\r\nconnection:")
    if at >= 0 and (
        names[at + 13 :].partition(b"\r\n")[0].strip() != b"keep-alive" or names.find(b"\r\nconnection:", at + 13) >= 0
    ):
        return None
    if len(data) - end != int(length):
        return None
    return int(found[1]), fields, data[end:]


class NoAnswer(Exception):
    """The bytes are no answer and will be none. `reason` is one of the words of `RequestFailed`."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class AnswerParser:
    """Fed with the server's bytes for one request.

    `status` is 0 until the deciding head is here; then `fields` are its header fields (names as they came) and `body`
    is the part of the body that has come since it was last emptied. `done`: the answer is complete. `broken`: its body
    will not become complete. `kept`: the connection may carry another request, once it is done.
    """

    MOST_HEAD = 32_768
    """Bytes before the end of the deciding head: its own, interim answers, blank lines."""

    MOST_FRAMING = 16_384
    """Bytes of a chunked body that are not content: sizes, extensions, line ends, trailers."""

    def __init__(self) -> None:
        self.status = 0
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.done = False
        self.broken = False
        self.kept = True
        self.began = False
        self._rest = bytearray()
        self._searched = 0
        self._before = 0
        self._framing = 0
        self._left = 0  # bytes of content to come; -1: up to the end of the connection
        self._chunk = ""  # the next element of a chunked body: "size", "data", "end", "trailers"

    def feed(self, data: bytes) -> None:
        """Take the bytes that came. Raises `NoAnswer`, before `status` is known only."""
        self.began = True
        if self.done or self.broken:
            self.kept = self.kept and not data
            return
        if not self.status:
            self._rest += data
            self._head()
        elif self._chunk:
            self._rest += data
            self._chunked()
        else:
            self._plain(data)

    def end(self) -> None:
        """The connection has ended. Raises `NoAnswer` where there is no status yet."""
        if not self.status:
            raise NoAnswer("closed", "the connection ended before an answer")
        self.kept = False
        if self._left < 0 and not self._chunk:
            self.done = True
        self.broken = not self.done

    @property
    def lines(self) -> bytes:
        """The header fields as `whole` gives them."""
        return b"".join(b"\r\n%b: %b" % field for field in self.fields)

    # -- the head

    def _head(self) -> None:
        rest = self._rest
        while True:
            blank = len(rest) - len(rest.lstrip(b"\r\n"))
            if (
                blank and not self._searched
            ):  # RFC 9112, section 2.2, for requests; servers leave them behind a body too
                del rest[:blank]
                self._before += blank
            found = _END.search(rest, max(0, self._searched - 3))
            size = found.end() if found is not None else len(rest)
            if self._before + size > self.MOST_HEAD:
                flood = self._before > size
                raise NoAnswer("protocol" if flood else "malformed", "bytes without end before an answer")
            if found is None:
                self._searched = len(rest)
                if self._searched and not b"HTTP/1.".startswith(rest[:7]):
                    raise NoAnswer("malformed", "no HTTP/1.1")
                return
            head = bytes(rest[: found.start()])
            del rest[:size]
            self._searched = 0
            self._before += size
            if self._decide(head):
                break
        left = bytes(rest)
        rest.clear()
        if left or self.done:
            self.feed(left)

    def _decide(self, head: bytes) -> bool:
        """Read one head; whether it is the deciding one."""
        line, _, lines = head.partition(b"\n")
        said = _STATUS.fullmatch(line.rstrip(b"\r"))
        if said is None or said[2] < b"100" or said[2] == b"101":
            raise NoAnswer("malformed", "no status line of an answer")
        status = int(said[2])
        if status < 200:
            return False
        fields = _fields(lines)
        if fields is None:
            raise NoAnswer("malformed", "header fields that are none")
        self.status, self.fields = status, fields
        self._framed(said[1] == b"1")
        return True

    def _framed(self, modern: bool) -> None:
        """How long the body is (RFC 9112, section 6.3), and whether the connection is kept (section 9.3)."""
        options = self._listed(b"connection")
        self.kept = b"close" not in options and (modern or b"keep-alive" in options)
        codings, lengths = self._listed(b"transfer-encoding"), self._listed(b"content-length")
        if self.status in (204, 304):
            self.done = True
        elif codings:
            self.kept = self.kept and not lengths
            if codings[-1] == b"chunked":
                self._chunk = "size"
            else:
                self._left = -1
        elif not lengths:
            self._left = -1
        elif len(set(lengths)) == 1 and _NUMBER.fullmatch(lengths[0]):
            self._left = int(lengths[0])
            self.done = not self._left
        else:
            self._break()
        self.kept = self.kept and self._left >= 0

    def _listed(self, name: bytes) -> list[bytes]:
        values = [value for field, value in self.fields if field.lower() == name]
        return [item.strip().lower() for value in values for item in value.split(b",") if item.strip()]

    # -- the body

    def _break(self) -> None:
        self.broken = True
        self.kept = False
        self._rest.clear()

    def _plain(self, data: bytes) -> None:
        if self._left < 0:
            self.body += data
            return
        self.body += data[: self._left]
        over = len(data) - self._left
        self._left = max(0, -over)
        if over >= 0:
            self.done = True
            self.kept = self.kept and not over

    def _chunked(self) -> None:
        rest = self._rest
        at = 0
        while not self.broken and not self.done:
            if self._chunk == "data":
                piece = rest[at : at + self._left]
                self.body += piece
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._chunk = "end"
            stop = rest.find(b"\n", at)
            line_end = stop if stop >= 0 else len(rest)
            if self._framing + line_end - at > self.MOST_FRAMING:
                self._break()
                return
            if stop < 0:
                break
            line = bytes(rest[at:stop]).rstrip(b"\r")
            self._framing += stop + 1 - at
            at = stop + 1
            self._line(line)
        if not self.broken:
            del rest[:at]
            if self.done:
                self.kept = self.kept and not rest
                rest.clear()

    def _line(self, line: bytes) -> None:
        if self._chunk == "trailers":
            self.done = not line
        elif self._chunk == "end":
            self._chunk = "size"
            if line:
                self._break()
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                self._break()
                return
            self._left = int(size[1], 16)
            self._chunk = "data" if self._left else "trailers"


def _fields(lines: bytes) -> list[tuple[bytes, bytes]] | None:
    """The header fields, a folded one in one line (RFC 9112, section 5.2); None where a line is no field."""
    fields: list[tuple[bytes, bytes]] = []
    for line in lines.split(b"\n") if lines else ():
        line = line.rstrip(b"\r")
        if line[:1] in (b" ", b"\t") and fields:
            name, value = fields[-1]
            fields[-1] = (name, value + b" " + line.strip())
            continue
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            return None
        fields.append((name, value.strip()))
    return fields
