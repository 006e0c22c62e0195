"""Addresses as a database keeps them: sealed with the configuration's address keys, or in clear where there are
none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fanout.core.address import Address
from fanout.core.codec import digest
from fanout.core.model import Target
from fanout.core.records import Submission
from fanout.errors import StorageError, StorageRefused
from fanout.plugin import Seal, Sealer, SealRecord

__all__ = [
    "IN_CLEAR",
    "UNREADABLE",
    "Seals",
    "kept",
    "lookup_digest",
    "masked",
    "open_all",
    "opened",
    "target_key",
    "unfinished",
]

IN_CLEAR = (
    "The addresses in {} stand there in clear, and addresses.key is configured: end the other programs that use the database, and run "
    "`fanout endpoints seal`."
)

UNREADABLE = "unreadable"
"""The state that a send sees of an endpoint whose address does not open: its deliveries end as cancelled, and no
other's."""


def unfinished(location: str, record: SealRecord) -> StorageError:
    """For an operator that replaces a key while addresses are still being sealed with another."""
    return StorageError(
        f"The addresses in {location} are being sealed with the address key {record.current}: put that key first until this command has "
        "come to its end, and the new one afterwards."
    )


class Seals:
    """The seals of one database's addresses, kept from one transaction to the next.

    Every transaction that touches addresses asks with the record as it finds it, so that none goes on as before once
    the database has been sealed, or under another key.
    """

    __slots__ = ("_known", "_location", "_sealer")

    def __init__(self, sealer: Sealer | None, location: str) -> None:
        self._sealer = sealer
        self._location = location
        self._known: tuple[str | None, Seal | None] = (None, None)

    def of(self, record: str | None) -> Seal | None:
        """The seal of this record; None where there is neither record nor key. Raises `StorageRefused`."""
        if record == self._known[0] and (record is not None or self._sealer is None):
            return self._known[1]
        if record is None:
            raise StorageRefused(IN_CLEAR.format(self._location))
        if self._sealer is None:
            raise StorageRefused(
                f"The addresses in {self._location} are sealed with the address key {SealRecord.load(record).current}: "
                "name the file that holds it as addresses.key_file, and start again."
            )
        found = SealRecord.load(record)
        seal = self._sealer.open(found, self._location)
        if not found.complete:
            raise StorageRefused(
                f"The addresses in {self._location} are sealed only in part: let `fanout endpoints seal` come to its end."
            )
        self._known = (record, seal)
        return seal


def lookup_digest(seal: Seal | None, place: bytes, address: Address) -> str:
    """The digest by which the directory finds an address, in hexadecimal."""
    return address.digest if seal is None else seal.digest(place, address)


def kept(seal: Seal | None, place: bytes, address: Address) -> tuple[str, str]:
    """The columns `address` and `identity` of an address."""
    if seal is None:
        return address.value, address.identity
    return seal.seal(place, address.value), seal.seal(place, address.identity)


def opened(seal: Seal | None, place: bytes, value: str, kind: str, group: str, identity: str) -> Address:
    """The address of those columns. Raises `StorageError` for one that was changed."""
    if seal is None:
        return Address(value, kind, group, identity)
    return Address(seal.open(place, value), kind, group, seal.open(place, identity))


def open_all(seal: Seal, places: Sequence[bytes], texts: list[str], states: list[str]) -> None:
    """Open the column `address` of many endpoints in its place. The state of one that does not open becomes
    `UNREADABLE`."""
    for i, text in enumerate(seal.open_many(places, texts)):
        if text is None:
            states[i] = UNREADABLE
        texts[i] = text or ""


def target_key(seal: Seal | None, target: Target) -> bytes:
    """The key by which one target differs from another, for the collapse key."""
    found = digest(b"", target, None)
    return seal.mac(found) if seal is not None and target.kind == "addresses" else found


def masked(seal: Seal | None, submissions: Sequence[Submission]) -> Sequence[Submission]:
    """The submissions with digests that a guessed address cannot be tried against. Only explicit addresses go into a
    digest."""
    if seal is None:
        return submissions
    return [
        replace(sub, digest=seal.mac(sub.digest)) if sub.digest and sub.target.kind == "addresses" else sub
        for sub in submissions
    ]
