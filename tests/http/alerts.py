"""A TLS server that refuses its client's certificate, by OpenSSL's own alerts, and client certificates with which it
does."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Office:
    """An authority that issues client certificates, good and bad ones. `now` is when it issues."""

    def __init__(self, folder: Path, *, now: datetime.datetime | None = None) -> None:
        self.folder = folder
        self.now = now or datetime.datetime.now(datetime.UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Client CA")
        self.ca = folder / "clients.pem"
        made = self._builder(self._name, self._key, self.now + 365 * _DAY, ca=True).sign(self._key, hashes.SHA256())
        revoked = x509.RevokedCertificateBuilder().serial_number(4711).revocation_date(self.now - _DAY).build()
        crl = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(self.now - _DAY)
            .next_update(self.now + 365 * _DAY)
            .add_revoked_certificate(revoked)
            .sign(self._key, hashes.SHA256())
        )
        self.ca.write_bytes(made.public_bytes(Encoding.PEM) + crl.public_bytes(Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime.datetime, *, ca: bool
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(self.now, until) - 400 * _DAY)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(True, False, False, False, False, ca, ca, False, False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def client(
        self,
        name: str,
        *,
        days: float = 365,
        revoked: bool = False,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> tuple[Path, Path]:
        """The files of a client certificate that ends in `days`, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.USER_ID, "com.example.app"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )
        builder = self._builder(subject, key, self.now + days * _DAY, ca=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if revoked:
            builder = _with_serial(builder, 4711)
        certificate, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key_file


def _with_serial(builder: x509.CertificateBuilder, number: int) -> x509.CertificateBuilder:
    builder._serial_number = number  # the builder takes one only once
    return builder


@dataclass
class Refusing:
    """A server in a thread: OpenSSL's blocking one, for asyncio's hangs up without an alert."""

    url: str
    handshakes: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def refusing(
    server: tuple[str, str],
    *,
    version: ssl.TLSVersion,
    clients: Path | None = None,
    alert: int | None = None,
    after: Callable[[ssl.SSLSocket], None] = lambda sock: None,
) -> Iterator[Refusing]:
    """While entered: a server with this (certificate, key) that wants a client certificate of the authority `clients`,
    or answers each ClientHello with `alert`. `after` is called with a connection whose handshake succeeded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    if alert is not None:
        context.sni_callback = lambda *_: alert
    listener = socket.create_server(("127.0.0.1", 0))
    found = Refusing(f"https://127.0.0.1:{listener.getsockname()[1]}")

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            raw.settimeout(10)
            found.handshakes += 1
            sock = context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False)
            try:
                sock.do_handshake()
                after(sock)
            except ssl.SSLError as error:
                found.failures.append(error.reason or "")
            except OSError:
                pass
            # Closed with unread bytes, it would send a reset, which may overtake the alert.
            with contextlib.suppress(OSError), sock:
                plain = socket.socket(fileno=sock.detach())
                with plain:
                    plain.settimeout(10)
                    plain.shutdown(socket.SHUT_WR)
                    while plain.recv(4096):
                        pass

    thread = threading.Thread(target=serve, name="refusing server")
    thread.start()
    try:
        yield found
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
