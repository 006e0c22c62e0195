"""Text that every storage can hold: PostgreSQL takes no NUL, and neither database half a surrogate pair."""

from __future__ import annotations

__all__ = ["REASON_LIMIT", "cleaned", "storable"]

REASON_LIMIT = 1000
"""Characters that are kept of the text of a gateway or a plugin."""


def storable(value: str) -> bool:
    """Whether every storage can hold it as it stands."""
    if "\x00" in value:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def cleaned(value: object, longest: int = REASON_LIMIT) -> str:
    """A text from another program, fit to be stored: U+FFFD stands for each character that cannot be, and a long text
    is cut."""
    text = value if type(value) is str else "" if value is None else str(value)
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if storable(text):
        return text
    return text.replace("\x00", "\ufffd").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
