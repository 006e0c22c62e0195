"""The header fields of a request, held to RFC 9113, sections 8.2 and 8.3."""

from __future__ import annotations

import re

from fanout.testing.simulator import frames as h2
from fanout.testing.simulator.frames import Violation

__all__ = ["check_field", "check_order"]

_FORBIDDEN = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
_NAME = re.compile(r":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(r"[\0\r\n]|^[ \t]|[ \t]$")
_PSEUDO = {":method", ":scheme", ":path", ":authority"}
_known: set[str] = set()
"""Names found right before; bounded."""


def check_field(name: str, value: str) -> None:
    """One field by itself. Raises `Violation`."""
    if name not in _known:
        if not _NAME.fullmatch(name) or name in _FORBIDDEN or (name[0] == ":" and name not in _PSEUDO):
            raise Violation(h2.PROTOCOL_ERROR, f"field {name} is not allowed")
        if len(_known) < 1000:
            _known.add(name)
    plain = value.isprintable() and " " not in (value[:1], value[-1:])
    if not plain and _BAD_VALUE.search(value):
        raise Violation(h2.PROTOCOL_ERROR, f"the value of field {name} is malformed")
    if name == "te" and value != "trailers":
        raise Violation(h2.PROTOCOL_ERROR, "field te is not allowed")


def check_order(fields: list[tuple[str, str]]) -> dict[str, str]:
    """The pseudo-header fields of a request: before all others, each once, none missing. Raises `Violation`."""
    pseudo: dict[str, str] = {}
    count = 0
    for name, value in fields:
        if name[0] != ":":
            break
        pseudo[name] = value
        count += 1
    if len(pseudo) != count or ":method" not in pseudo or ":scheme" not in pseudo or ":path" not in pseudo:
        raise Violation(h2.PROTOCOL_ERROR, "pseudo-header fields are missing or doubled")
    for name, _ in fields[count:]:
        if name[0] == ":":
            raise Violation(h2.PROTOCOL_ERROR, f"{name} after an ordinary field")
    return pseudo
