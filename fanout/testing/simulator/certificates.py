"""A certificate authority for one simulator: a CA, a server certificate for loopback, and client certificates, in a
folder."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["Authority"]

_VALID = timedelta(days=365)


class Authority:
    """Makes missing files in `folder` (which must exist) and keeps the others, so that a restarted simulator is still
    trusted.

    A client must trust `ca_file`. The keys are worth nothing outside of loopback, and are readable by their owner only.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        self._key, self._certificate = self._load_or_make_ca()

    def server_context(self, *, client_certificates: bool = False) -> ssl.SSLContext:
        """TLS 1.2 or newer for 127.0.0.1, ::1 and localhost, with ALPN `h2`; a client certificate of this authority is
        asked for on request."""
        certificate, key = self.server()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["h2"])
        if client_certificates:
            context.load_verify_locations(self.ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def server(self) -> tuple[Path, Path]:
        """The certificate and key files of the server."""
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")), x509.IPAddress(ip_address("::1"))]
        )
        return self._issue("server", x509.Name([_attribute("localhost")]), ExtendedKeyUsageOID.SERVER_AUTH, names)

    def client(self, uid: str, *, name: str = "client") -> tuple[Path, Path]:
        """The files of a client certificate whose subject UID is `uid` (as Apple's name the app's bundle id)."""
        subject = x509.Name([x509.NameAttribute(NameOID.USER_ID, uid), _attribute(name)])
        return self._issue(name, subject, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _load_or_make_ca(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key_file = self.folder / "ca.key"
        if self.ca_file.exists() and key_file.exists():
            certificate = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
            key = serialization.load_pem_private_key(key_file.read_bytes(), None)
            if isinstance(key, ec.EllipticCurvePrivateKey) and certificate.not_valid_after_utc > _soon():
                return key, certificate
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([_attribute("fanout simulator CA")])
        certificate = (
            _builder(name, name, key.public_key(), key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write_key(key_file, key)
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        for old in self.folder.glob("*.crt"):  # of the former authority, which no client trusts any more
            old.unlink()
        return key, certificate

    def _issue(
        self, name: str, subject: x509.Name, purpose: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None
    ) -> tuple[Path, Path]:
        certificate_file, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        if certificate_file.exists() and key_file.exists():
            existing = x509.load_pem_x509_certificate(certificate_file.read_bytes())
            if existing.subject == subject and existing.not_valid_after_utc > _soon():
                return certificate_file, key_file
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, self._certificate.subject, key.public_key(), self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        _write_key(key_file, key)
        certificate_file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return certificate_file, key_file


def _soon() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


def _attribute(common_name: str) -> x509.NameAttribute[str]:
    return x509.NameAttribute(NameOID.COMMON_NAME, common_name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    unused = (
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "encipher_only",
        "decipher_only",
    )
    signs = dict.fromkeys(("key_cert_sign", "crl_sign"), sign_certificates)
    return x509.KeyUsage(digital_signature=True, **signs, **dict.fromkeys(unused, False))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.touch(mode=0o600)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
