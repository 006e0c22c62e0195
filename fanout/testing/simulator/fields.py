"""The header fields of a request, as a strict server reads them."""

from __future__ import annotations

from fanout.testing.simulator import frames as h2
from fanout.testing.simulator.frames import Violation

__all__ = ["check_fields", "text"]

_FORBIDDEN = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}


def text(raw: bytes | str) -> str:
    """A name or value as `hpack` gives it, as text."""
    return raw if isinstance(raw, str) else raw.decode("latin-1")


def check_fields(fields: list[tuple[str, str]]) -> None:
    """The rules of RFC 9113, section 8.2 and 8.3, for a request."""
    pseudo: list[str] = []
    ordinary = False
    for name, value in fields:
        if name.startswith(":"):
            if ordinary:
                raise Violation(h2.PROTOCOL_ERROR, f"{name} after an ordinary field")
            pseudo.append(name)
            continue
        ordinary = True
        if not name or name != name.lower() or name in _FORBIDDEN or (name == "te" and value != "trailers"):
            raise Violation(h2.PROTOCOL_ERROR, f"field {name} is not allowed")
        if value != value.strip() or any(c in value for c in "\r\n\0"):
            raise Violation(h2.PROTOCOL_ERROR, f"the value of field {name} is malformed")
    if len(set(pseudo)) != len(pseudo) or not {":method", ":scheme", ":path"} <= set(pseudo):
        raise Violation(h2.PROTOCOL_ERROR, "pseudo-header fields are missing or doubled")
    if not set(pseudo) <= {":method", ":scheme", ":path", ":authority"}:
        raise Violation(h2.PROTOCOL_ERROR, "an unknown pseudo-header field")
