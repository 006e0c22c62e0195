"""Addresses at rest: looked up by a keyed hash, stored encrypted. The keys come from the configuration and never from
the database.

A database that is sealed holds a record of how (`SealRecord`). Its look-up key is random, is made once and stands in
the record encrypted, so that the keys of the configuration can be replaced without hashing every address anew. The
record also says which key encrypts: all processes that share the database follow it in the same transaction, in
whichever order their own keys stand.
"""

from __future__ import annotations

import hmac
import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fanout.core.address import Address
from fanout.core.secret import Secret
from fanout.errors import StorageError, StorageRefused, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["Seal", "SealRecord", "Sealer", "new_address_key", "place_of"]

_PREFIX = "fsk_"
_KEY = 32
_NONCE = 12
"""Bytes, as NIST SP 800-38D section 8.2.2 has it for random ones: a key is good for 2^32 encryptions (8.3)."""
_MARK = "~"
_HEAD = 5
"""The mark and four characters of Base64, which are the three bytes of the key's id."""


def new_address_key() -> Secret:
    """A line for the file that `addresses.key_file` names: 256 random bits."""
    return Secret(_PREFIX + b2a_base64(os.urandom(_KEY), newline=False).decode(), "a new address key")


def place_of(app: str, binding: str) -> bytes:
    """The place of an address, which is authenticated together with it: of another app or binding it does not open.

    Args:
        app: The app.
        binding: The binding's name.

    Returns:
        The place, for the methods of `Seal`.
    """
    return f"{app}\0{binding}".encode("utf-8", "surrogatepass")


def _expand(key: bytes, purpose: bytes) -> bytes:
    """HKDF-Expand (RFC 5869 section 2.3) with SHA-256 to its one block. The keys are random, so nothing is extracted
    first."""
    return hmac.digest(key, b"fanout addresses 1: " + purpose + b"\x01", "sha256")


@dataclass(frozen=True, slots=True)
class SealRecord:
    """How a database is sealed: its look-up key, encrypted; the key that encrypts now; and those that addresses may be
    under.

    `complete` is False while the addresses of a database that was in clear are being sealed.
    """

    lookup: str
    current: str
    keys: tuple[str, ...]
    complete: bool = True

    def dump(self) -> str:
        """One line of text, for a column."""
        return " ".join([self.lookup, self.current, ",".join(self.keys), "sealed" if self.complete else "sealing"])

    @classmethod
    def load(cls, text: str) -> SealRecord:
        """The inverse of `dump`.

        Args:
            text: The text that `dump` returned.

        Returns:
            The record.

        Raises:
            StorageRefused: The text is no record.
        """
        match text.split(" "):
            case [lookup, current, keys, "sealed" | "sealing" as state]:
                return cls(lookup, current, tuple(keys.split(",")), state == "sealed")
        raise StorageRefused(
            "The database's record of how its addresses are sealed cannot be read: restore it from a backup."
        )


class Sealer:
    """The address keys of a configuration. One of them is named by its id, six hexadecimal digits that tell nothing of
    it.

    Args:
        keys: The keys, 32 random bytes each. The first seals new addresses; all open.

    Raises:
        UsageError: A key has another length or is there twice, or there is none.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not keys or any(len(key) != _KEY for key in keys):
            raise UsageError("An address key has 32 bytes, and there must be one: `fanout keys address` makes it.")
        self._ciphers: dict[str, AESGCM] = {}
        self._wraps: dict[str, AESGCM] = {}
        for key in keys:
            id = _expand(key, b"id")[:3].hex()
            if id in self._ciphers:
                raise UsageError(f"The address key {id} is there twice: keep one of the lines.")
            self._ciphers[id] = AESGCM(_expand(key, b"address"))
            self._wraps[id] = AESGCM(_expand(key, b"look-up key"))

    @classmethod
    def of(cls, secret: Secret) -> Sealer:
        """The sealer of the keys in `addresses.key`: a key a line, as `new_address_key` makes them.

        Args:
            secret: The value of the setting.

        Returns:
            The sealer.

        Raises:
            UsageError: A line is no key, a key is there twice, or there is none.
        """
        keys = []
        lines = [line.strip() for line in secret.reveal().splitlines()]
        for number, line in enumerate(lines, 1):
            if line and not line.startswith("#"):
                keys.append(_parse(line, number))
        return cls(keys)

    @property
    def ids(self) -> tuple[str, ...]:
        """The keys' ids, in order."""
        return tuple(self._ciphers)

    def begin(self, *, complete: bool) -> SealRecord:
        """The record of a database that is sealed from now on.

        Args:
            complete: Whether the database holds no address yet.

        Returns:
            The record.
        """
        current = self.ids[0]
        return SealRecord(_wrap(self._wraps[current], os.urandom(_KEY)), current, (current,), complete)

    def rotate(self, record: SealRecord, location: str) -> SealRecord:
        """The record under the first key, with which everything is encrypted from now on.

        Args:
            record: The record that the database keeps.
            location: The database, as errors name it.

        Returns:
            The record.

        Raises:
            StorageRefused: A key is missing, or is another.
        """
        current = self.ids[0]
        lookup = _wrap(self._wraps[current], self._lookup(record, location))
        return replace(record, lookup=lookup, current=current, keys=tuple(dict.fromkeys([current, *record.keys])))

    def settle(self, record: SealRecord) -> SealRecord:
        """The record once every address is under the current key: the other keys are needed no more.

        Args:
            record: The record that the database keeps.

        Returns:
            The record.
        """
        return replace(record, keys=(record.current,), complete=True)

    def open(self, record: SealRecord, location: str) -> Seal:
        """The object that seals and opens addresses of that database.

        Args:
            record: The record that the database keeps.
            location: The database, as errors name it.

        Returns:
            The seal.

        Raises:
            StorageRefused: A key is missing, or is another.
        """
        lookup = self._lookup(record, location)
        return Seal(lookup, {id: self._ciphers[id] for id in record.keys}, record.current)

    def _lookup(self, record: SealRecord, location: str) -> bytes:
        missing = [id for id in record.keys if id not in self._ciphers]
        if missing:
            raise StorageRefused(
                f"The addresses in {location} are sealed with the address key {' and '.join(missing)}, and the configuration has "
                f"{', '.join(self.ids)}: put the missing line back into the file of addresses.key_file."
            )
        found = _unwrap(self._wraps[record.current], record.lookup)
        if found is None:
            raise StorageRefused(
                f"The look-up key in {location} does not open with the address key {record.current}: the record was changed; "
                "restore the database from a backup."
            )
        return found


class Seal:
    """Seals and opens the addresses of one database. `place` is `place_of` an app and binding.

    Made by `Sealer.open` of `lookup` (the look-up key), `ciphers` by the ids of their keys, and `current`, the id of
    the key that encrypts.
    """

    __slots__ = ("_cipher", "_ciphers", "_head", "_lookup")

    def __init__(self, lookup: bytes, ciphers: dict[str, AESGCM], current: str) -> None:
        self._lookup = lookup
        self._ciphers = {_head(id): cipher for id, cipher in ciphers.items()}
        self._cipher = ciphers[current]
        self._head = _head(current)

    def digest(self, place: bytes, address: Address) -> str:
        """The key of an address in the directory, in the stead of `Address.digest`.

        Args:
            place: The value of `place_of` for the app and binding.
            address: The device address.

        Returns:
            16 bytes of HMAC-SHA256, in hexadecimal.
        """
        identity = (address.identity or address.value).encode()
        return hmac.digest(self._lookup, b"a\0%b\0%b" % (place, identity), "sha256")[:16].hex()

    def mac(self, digest: bytes) -> bytes:
        """A hash in the stead of another digest that addresses went into, which cannot be made from a guessed address.

        Args:
            digest: The digest that addresses went into.

        Returns:
            16 bytes.
        """
        return hmac.digest(self._lookup, b"d\0" + digest, "sha256")[:16]

    def seal(self, place: bytes, text: str) -> str:
        """Encrypt a text with AES-256-GCM and a random nonce. The empty text is no address and stays.

        Args:
            place: The value of `place_of` for the app and binding.
            text: The address, as text.

        Returns:
            The sealed text, printable.
        """
        if not text:
            return ""
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, text.encode(), place)
        return self._head + b2a_base64(nonce + sealed, newline=False).decode()

    def open(self, place: bytes, text: str) -> str:
        """The inverse of `seal`.

        Args:
            place: The value of `place_of` for the app and binding.
            text: The sealed text.

        Returns:
            The text.

        Raises:
            StorageError: The sealed text was changed, or belongs to another place.
        """
        (found,) = self.open_many([place], [text])
        if found is None:
            raise StorageError(
                "An address in the database cannot be opened: it was changed, or is another binding's. Restore it from a backup, "
                "or register the device again."
            )
        return found

    def open_many(self, places: Iterable[bytes], texts: Iterable[str]) -> list[str | None]:
        """`open` for many, 1.7 us each.

        Args:
            places: The values of `place_of`, one for each text.
            texts: The sealed texts.

        Returns:
            The texts, in their order; None for one that does not open, so that it spoils no other.
        """
        from cryptography.exceptions import InvalidTag

        ciphers = self._ciphers
        found: list[str | None] = []
        for place, text in zip(places, texts, strict=True):
            try:
                raw = a2b_base64(text[_HEAD:])
                found.append(ciphers[text[:_HEAD]].decrypt(raw[:_NONCE], raw[_NONCE:], place).decode() if text else "")
            except (KeyError, ValueError, InvalidTag):
                found.append(None)
        return found

    def is_current(self, text: str) -> bool:
        """Whether the text is under the key that encrypts now.

        Args:
            text: The sealed text.

        Returns:
            Whether it is; the empty text is.
        """
        return not text or text.startswith(self._head)


def _head(id: str) -> str:
    return _MARK + b2a_base64(bytes.fromhex(id), newline=False).decode()


def _parse(line: str, number: int) -> bytes:
    try:
        key = a2b_base64(line.removeprefix(_PREFIX)) if line.startswith(_PREFIX) else b""
    except Base64Error:
        key = b""
    if len(key) != _KEY:
        raise UsageError(
            f"line {number} is no address key: `fanout keys address` makes one, which begins with {_PREFIX}."
        )
    return key


def _wrap(cipher: AESGCM, key: bytes) -> str:
    nonce = os.urandom(_NONCE)
    return b2a_base64(nonce + cipher.encrypt(nonce, key, None), newline=False).decode()


def _unwrap(cipher: AESGCM, text: str) -> bytes | None:
    from cryptography.exceptions import InvalidTag

    try:
        raw = a2b_base64(text)
        return cipher.decrypt(raw[:_NONCE], raw[_NONCE:], None)
    except (Base64Error, ValueError, InvalidTag):
        return None
