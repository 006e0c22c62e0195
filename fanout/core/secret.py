"""A setting that must not be seen, and a new one with its public part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hmac import compare_digest

from fanout.errors import ConfigurationError

__all__ = ["KeyPair", "Secret"]


class Secret:
    """A key, password or credential. Its text leaves only by `reveal`; `repr`, `str` and pickling show nothing.

    A file is read when the secret is first revealed, so a process that never sends needs no file that it may not read.

    Args:
        text: The secret.
        origin: The place that it came from (a key's name, a file's name), for error messages.
        path: The file that it stands in; empty where it is no file.
    """

    __slots__ = ("_read", "_text", "origin", "path")

    def __init__(self, text: str, origin: str = "", path: str = "") -> None:
        self._text: str | None = text
        self._read: Callable[[], str] | None = None
        self.origin = origin
        self.path = path

    @classmethod
    def later(cls, read: Callable[[], str], origin: str = "", path: str = "") -> Secret:
        """A secret whose text is read once, when it is first revealed.

        Args:
            read: The function that reads the text. Its `ConfigurationError` passes through `reveal`.
            origin: The name of the setting, for errors.
            path: The file that the text comes from; empty where it is no file.

        Returns:
            The secret.
        """
        made = cls("", origin, path)
        made._text, made._read = None, read
        return made

    @property
    def at_hand(self) -> bool:
        """Whether its text is known here without reading anything."""
        return self._text is not None

    def reveal(self) -> str:
        """The secret itself.

        Returns:
            The text. Keep it out of logs and errors.

        Raises:
            ConfigurationError: The file that it stands in cannot be read.

        Example:
            ```python
            key = Secret("correct horse")
            assert key.reveal() == "correct horse"
            assert "horse" not in repr(key)
            ```
        """
        if self._text is None:
            assert self._read is not None
            self._text = self._read()
        return self._text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return False
        try:
            return compare_digest(self.reveal().encode(), other.reveal().encode())
        except ConfigurationError:
            return bool(self.path) and self.path == other.path

    def __hash__(self) -> int:
        return hash("Secret")  # the text may not be known yet

    def __repr__(self) -> str:
        return "Secret(<hidden>)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("A Secret is not pickled: it would be written in the clear.")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """A new credential, as `fanout keys` shows it.

    `private` is for the server: the value of the binding's setting `setting`. `public` is for the clients, which know
    it as `public_name`. `more` holds the settings that the binding wants besides, with values that show their form.
    """

    private: Secret
    setting: str
    public: str
    public_name: str
    more: Mapping[str, str] = field(default_factory=dict)
