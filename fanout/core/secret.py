"""A setting that must not be seen, and a new one with what may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest

__all__ = ["KeyPair", "Secret"]


class Secret:
    """A key, password or credential. Its text leaves only by `reveal`; `repr`, `str` and pickling show nothing.

    `origin` says where it came from (a key's name, a file's name), for error messages. `path` is the file that it was read from,
    if it was: it is read again when that file is replaced.
    """

    __slots__ = ("_text", "origin", "path")

    def __init__(self, text: str, origin: str = "", path: str = "") -> None:
        self._text = text
        self.origin = origin
        self.path = path

    def reveal(self) -> str:
        """The secret itself."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __repr__(self) -> str:
        return "Secret(<hidden>)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A Secret is not pickled: it would be written in the clear.")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A new credential, as `fanout keys` shows it.

    `private` is for the server: the value of the binding's setting `setting`. `public` is for the clients, who know it as
    `public_name`. `more` holds the settings that the binding wants besides, with values that show their form.
    """

    private: Secret
    setting: str
    public: str
    public_name: str
    more: Mapping[str, str] = field(default_factory=dict)
