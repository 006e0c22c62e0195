"""A certificate authority of our own, made anew for each run."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fanout.http import client_tls
from tests.http.gateway import Certificates


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool,
    old: bool = False,
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=12))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not old:
        # From Python 3.13 on, the default is OpenSSL's strict check, which asks for these (RFC 5280, sections 4.2.1.1
        # to 4.2.1.3).
        usage = x509.KeyUsage(True, False, False, False, False, ca, ca, False, False)
        builder = (
            builder.add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
    if not ca:
        names = x509.SubjectAlternativeName(
            [
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                x509.IPAddress(ipaddress.ip_address("127.0.0.2")),
                x509.DNSName("gateway.test"),
            ]
        )
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return _made(tmp_path_factory.mktemp("tls"), old=False)


@pytest.fixture(scope="session")
def old_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """As a private authority issued them that was set up before anybody asked for key identifiers."""
    return _made(tmp_path_factory.mktemp("old-tls"), old=True)


def _made(folder: Path, *, old: bool) -> Certificates:
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    (folder / "ca.pem").write_bytes(_certificate("Test CA", ca_key, "Test CA", ca_key, ca=True, old=old))
    (folder / "cert.pem").write_bytes(_certificate("gateway.test", key, "Test CA", ca_key, ca=False, old=old))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Certificates(str(folder / "ca.pem"), str(folder / "cert.pem"), str(folder / "key.pem"))


@pytest.fixture(scope="session")
def trusting(certificates: Certificates) -> ssl.SSLContext:
    return client_tls(ca_file=certificates.ca)
