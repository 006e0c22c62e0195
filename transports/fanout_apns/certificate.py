"""A push certificate: read from PEM, PKCS #12 or DER, with or without a passphrase, and how long it is good."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fanout.plugin import ConfigurationError, Secret

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["AHEAD", "PushCertificate", "Validity", "load", "parse"]

AHEAD = 30 * 86_400.0
"""Seconds before its end from which a certificate is warned of."""


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate is good, in UNIX seconds."""

    begins: float
    ends: float

    def over(self, now: float) -> bool:
        """Whether it has ended."""
        return now > self.ends

    def problem(self, now: float) -> str:
        """Why it is not good at `now`, in a sentence; "" where it is."""
        if self.over(now):
            return (
                f"The push certificate ended on {_day(self.ends)}: make a new one on Apple's developer site and put it at cert_file "
                "(a key in key_file does not end)."
            )
        if now < self.begins:
            return f"The push certificate is good from {_day(self.begins)} on: set this machine's clock right, or wait until then."
        return ""

    def warning(self, now: float) -> str:
        """That its end is near, in a sentence; "" where it is not, or has come."""
        left = self.ends - now
        if not 0 <= left < AHEAD:
            return ""
        return (
            f"The push certificate ends on {_day(self.ends)}, in {int(left // 86_400)} days: make a new one on Apple's developer site. "
            "Put at cert_file, it is taken into use without a restart."
        )


@dataclass(frozen=True, slots=True)
class PushCertificate:
    """`identity` is the certificate, its chain and its key in PEM, without a passphrase. `uid` is the bundle id that it
    names, or ""."""

    identity: bytes = field(repr=False)
    validity: Validity
    uid: str


def load(cert_file: Path, cert_key_file: Path | None, cert_passphrase: Secret | None) -> PushCertificate:
    """The certificate in `cert_file`, with its key there or in a file of its own. Reads files. Raises
    `ConfigurationError`."""
    try:
        raw = cert_file.read_bytes()
        key = cert_key_file.read_bytes() if cert_key_file is not None else None
    except OSError as error:
        raise ConfigurationError(
            f"cert_file or cert_key_file cannot be read ({error.strerror}): check the paths and their permissions."
        ) from None
    return parse(raw, key, cert_passphrase.reveal().encode() if cert_passphrase is not None else None)


def parse(raw: bytes, key: bytes | None, passphrase: bytes | None) -> PushCertificate:
    """The certificate in the text `raw` of cert_file, with its key there or in `key`. Raises `ConfigurationError`,
    without a secret."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
    from cryptography.x509.oid import NameOID

    private, certificates = _read(raw, key, passphrase)

    def public(owner: Any) -> bytes:
        der: bytes = owner.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return der

    own = [certificate for certificate in certificates if public(certificate) == public(private)]
    if not own:
        raise ConfigurationError(
            "cert_file and its key do not belong together: use the key that the certificate was requested with."
        )
    leaf = max(own, key=lambda certificate: certificate.not_valid_after_utc)
    chain = [leaf, *(certificate for certificate in certificates if certificate not in own)]
    identity = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
    identity += private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    names = leaf.subject.get_attributes_for_oid(NameOID.USER_ID)
    validity = Validity(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())
    return PushCertificate(identity, validity, str(names[0].value) if names else "")


def _read(raw: bytes, key: bytes | None, passphrase: bytes | None) -> tuple[Any, list[Certificate]]:
    """The private key, and every certificate that stands beside it."""
    from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificates

    if b"-----BEGIN" in raw:
        try:
            certificates = load_pem_x509_certificates(raw)
        except ValueError:
            raise ConfigurationError(
                "cert_file holds no certificate in PEM: use the certificate with its key, or a .p12 file."
            ) from None
        return _private(
            key if key is not None else raw, passphrase, "cert_key_file" if key is not None else "cert_file"
        ), certificates
    try:
        certificates = [load_der_x509_certificate(raw)]
    except ValueError:
        return _from_p12(raw, key, passphrase)
    if key is None:
        raise ConfigurationError(
            "cert_file is a certificate without its key (a .cer file): export both from Keychain Access as a .p12 file, or set cert_key_file."
        )
    return _private(key, passphrase, "cert_key_file"), certificates


def _from_p12(raw: bytes, key: bytes | None, passphrase: bytes | None) -> tuple[Any, list[Certificate]]:
    from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates

    if key is not None:
        raise ConfigurationError(
            "cert_key_file is set, and cert_file is no certificate in PEM or DER: a .p12 file has its key in it."
        )
    found, wrong = None, False
    # A file without a passphrase is written with none, or with an empty one (RFC 7292, appendix B.1).
    for word in (passphrase,) if passphrase is not None else (None, b""):
        try:
            found = load_key_and_certificates(raw, word)
            break
        except ValueError as error:
            wrong = "password" in str(error).lower() or "mac" in str(error).lower()
    if found is None:
        if wrong:
            raise ConfigurationError(_passphrase("cert_file", passphrase))
        raise ConfigurationError(
            "cert_file is neither PEM nor a .p12 file: export certificate and key from Keychain Access as .p12."
        )
    private, certificate, more = found
    if private is None or certificate is None:
        raise ConfigurationError("cert_file is a .p12 file without certificate and key: export both together.")
    return private, [certificate, *more]


def _private(pem: bytes, passphrase: bytes | None, name: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if b"PRIVATE KEY-----" not in pem:
        raise ConfigurationError(f"{name} holds no private key in PEM: put it there, or set cert_key_file to it.")
    encrypted = b"BEGIN ENCRYPTED PRIVATE KEY" in pem or b"Proc-Type: 4,ENCRYPTED" in pem
    if encrypted and passphrase is None:
        raise ConfigurationError(_passphrase(name, None))
    if not encrypted and passphrase is not None:
        raise ConfigurationError(
            f"cert_passphrase is set, and the key in {name} is not encrypted: take cert_passphrase out."
        )
    try:
        # The block after the label is looked for by itself: a file may begin with the certificate, or with comments.
        return load_pem_private_key(pem[_label(pem) :], passphrase)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        if encrypted:
            raise ConfigurationError(_passphrase(name, passphrase)) from None
        raise ConfigurationError(f"The private key in {name} cannot be read: export it again.") from None


def _label(pem: bytes) -> int:
    """Where the private key begins."""
    return pem.rindex(b"-----BEGIN", 0, pem.index(b"PRIVATE KEY-----"))


def _passphrase(name: str, given: bytes | None) -> str:
    if given is None:
        return f"The key in {name} is encrypted: set cert_passphrase_file to a file with its passphrase."
    return f"The key in {name} cannot be opened with cert_passphrase: correct the passphrase."


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
