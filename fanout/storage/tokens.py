"""Shared tokens as a database keeps them: sealed where its addresses are, else in clear.

In clear, a reader of the database gains a token that is valid until its end. That is an hour off at most for the tokens
of our own transports. The keys that sign tokens are never stored.
"""

from __future__ import annotations

from fanout.core.fleet import SharedToken
from fanout.plugin import Seal

__all__ = ["kept_token", "opened_token"]


def kept_token(seal: Seal | None, name: str, token: SharedToken) -> str:
    """The text that is stored for it."""
    return token.text if seal is None else seal.seal(_place(name), token.text)


def opened_token(seal: Seal | None, name: str, text: str, made_at: float, expires_at: float) -> SharedToken | None:
    """The token that was stored; None for one that stands there in clear although tokens are sealed, or does not open:
    make another."""
    if seal is None:
        return SharedToken(text, made_at, expires_at)
    (opened,) = seal.open_many([_place(name)], [text])
    return None if opened is None else SharedToken(opened, made_at, expires_at)


def _place(name: str) -> bytes:
    """No app's name begins so: an address does not open as a token."""
    return b"\0token\0" + name.encode()
