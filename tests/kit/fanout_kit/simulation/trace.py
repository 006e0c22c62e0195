"""The events of a run, line by line, and one hash over all of it: the same seed must give the same hash in every
interpreter."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

__all__ = ["Trace", "shown"]


class Trace:
    """The lines of one run. With `keep` they stay readable afterwards; the hash covers them either way.

    `echo`, where given, is handed each line as it is made.
    """

    def __init__(self, *, keep: bool = False, echo: Callable[[str], None] | None = None) -> None:
        self.keep = keep or echo is not None
        self.lines: list[str] = []
        self._echo = echo
        self._hash = blake2b(digest_size=16)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, at: float, who: str, what: str, text: str = "", blob: bytes = b"") -> None:
        """One line: virtual seconds, node, kind, details. Where there is a `blob`, the hash takes that in place of the
        text."""
        self._count += 1
        line = f"{at:11.6f} {who:<8} {what:<8} {'' if blob else text}"
        self._hash.update(line.encode("utf-8", "backslashreplace"))
        if blob:
            self._hash.update(blob)
        if self.keep:
            line = f"{at:11.6f} {who:<8} {what:<8} {text}"
            self.lines.append(line)
            if self._echo is not None:
                self._echo(line)

    @property
    def digest(self) -> str:
        """The hash so far, in hexadecimal."""
        return self._hash.hexdigest()


def shown(value: object) -> str:
    """`repr`, with sets in order: theirs depends on the interpreter's hash seed."""
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(repr, value))) + "}"
    return repr(value)
