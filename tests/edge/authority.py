"""Certificates for tests, of an authority of their own. Imported by the tests of this folder."""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

PLAIN = NoEncryption()


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(frozen=True)
class Issued:
    """A certificate in a file, with its key."""

    certificate: Path
    key: Path

    @property
    def sha256(self) -> str:
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        return hashlib.sha256(der).hexdigest()


class Authority:
    """Signs certificates of servers and clients, in one folder."""

    def __init__(self, folder: Path, subject: str = "an authority") -> None:
        self._folder = folder
        self._key = generate_private_key(SECP256R1())
        self._name = name(subject)
        made = self._sign(self._name, self._key, authority=True)
        self.file = folder / f"{subject}.pem"
        self.file.write_bytes(made.public_bytes(Encoding.PEM))

    def issue(self, subject: str, file: str = "") -> Issued:
        key = generate_private_key(SECP256R1())
        made = self._sign(name(subject), key, authority=False)
        found = Issued(self._folder / f"{file or subject}.crt", self._folder / f"{file or subject}.key")
        found.certificate.write_bytes(made.public_bytes(Encoding.PEM))
        found.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN))
        return found

    def _sign(self, subject: x509.Name, key: EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            # From 3.13 on Python asks for both (VERIFY_X509_STRICT).
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, authority, authority, False, False), critical=True
            )
            .sign(self._key, hashes.SHA256())
        )
