"""The head of a request over HTTP/1.1, as bytes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["apart", "fields_of", "lines_of", "sound"]

_TARGET = re.compile(r"/[\x21-\x7e]*")
_BODILESS = ("GET", "HEAD")


def apart(url: str) -> tuple[str, str]:
    """The origin of a URL, as it stands there, and the request's target. Raises `ValueError` for one without."""
    origin, mark, rest = url.partition("://")
    ends = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    target = rest[ends:].partition("#")[0]
    return f"{origin}{mark}{rest[:ends]}", target if target[:1] == "/" else f"/{target}"


def sound(*targets: str) -> None:
    """Raise `ValueError` for the target of a request that is none."""
    if not all(map(_TARGET.fullmatch, targets)):
        raise ValueError("The target of a request has characters that are not printable ASCII, or no slash.")


def lines_of(fields: Iterable[tuple[str, str]]) -> list[bytes]:
    """Header fields, each with its line end. Raises `ValueError` for one that is more than a line."""
    lines = [f"{name}: {value}\r\n" for name, value in fields]
    text = "".join(lines)
    if not text.count("\r") == text.count("\n") == len(lines) or "\0" in text:
        raise ValueError("A header field has a line end or a NUL in its name or value.")
    return [line.encode() for line in lines]


def fields_of(method: str, authority: str, headers: Mapping[str, str], size: int) -> bytes:
    """The head of a request with a body of `size` bytes, from behind its target to the blank line. Raises as
    `lines_of`."""
    host = () if any(name.lower() == "host" for name in headers) else (("Host", authority),)
    length = (("Content-Length", str(size)),) if size or method not in _BODILESS else ()
    return b" HTTP/1.1\r\n" + b"".join(lines_of((*host, *headers.items(), *length)))
