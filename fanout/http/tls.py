"""TLS as the push gateways want it."""

from __future__ import annotations

import errno
import os
import secrets
import ssl
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn
from weakref import WeakValueDictionary

from fanout.core.alerts import certificate_alert

__all__ = ["alert_of", "client_tls", "fault_of"]

_STRICT = (
    "Missing Authority Key Identifier",
    "Missing Subject Key Identifier",
    "CA cert does not include key usage",
    "Basic Constraints of CA",
)
"""OpenSSL's findings about a certificate under its strict check alone (X509_V_FLAG_X509_STRICT), the default from
Python 3.13 on."""


def client_tls(
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    key_password: str | None = None,
    identity: bytes | None = None,
    alpn: Sequence[str] = ("h2",),
    shared: bool = False,
) -> ssl.SSLContext:
    """A context for a client of an HTTP/2 gateway: TLS 1.2 or newer, host names checked, ALPN `h2` (RFC 9113, section
    3.3). Reads files, so make contexts while starting up.

    Args:
        ca_file: A file of certificates (PEM) that are trusted besides the operating system's.
        cert_file: The certificate (PEM) that identifies the client; None for none.
        key_file: The key of the certificate (PEM); None where it is in the certificate's file.
        key_password: The password of an encrypted key; None for a key without one.
        identity: In place of `cert_file`: the text of such a file with a key that is not encrypted.
        alpn: The protocols to offer, the preferred one first (RFC 7301).
        shared: Whether the context may be another caller's too, one that asks for the same of files that have not
            changed: neither may change it. One with the system's 144 authorities takes 0.8 MB. One that identifies the
            client is never shared.

    Returns:
        The context.

    Raises:
        OSError: A file is missing or malformed (`ssl.SSLError`), or a key is encrypted and there is no password: it is
            never asked for at the terminal.
    """
    if shared and cert_file is None and identity is None:
        key = (ca_file, tuple(alpn), *map(_state, (ca_file, *ssl.get_default_verify_paths()[:2])))
        context = _shared.get(key)
        if context is None:
            context = _shared[key] = client_tls(ca_file=ca_file, alpn=alpn)
        return context
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(alpn))
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file, key_password if key_password is not None else _no_prompt)
    if identity is not None:
        _identify(context, identity)
    return context


_shared: WeakValueDictionary[tuple[object, ...], ssl.SSLContext] = WeakValueDictionary()


def _state(path: str | None) -> tuple[int, ...]:
    """The facts that differ once the file, or the folder's list, is another."""
    try:
        found = os.stat(path) if path is not None else None
    except OSError:
        found = None  # loading it names the fault
    return (found.st_ino, found.st_size, found.st_mtime_ns) if found is not None else ()


def alert_of(error: BaseException | None) -> str:
    """The peer's alert about our certificate that an error of a connection is (`CERTIFICATE_ALERTS`), else ""."""
    return certificate_alert(getattr(error, "reason", "") or str(error)) if isinstance(error, ssl.SSLError) else ""


def fault_of(error: ssl.SSLError) -> str:
    """The fault in OpenSSL's words; for a certificate that was not believed, with the remedy."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return error.reason or str(error)
    said: str = error.verify_message
    sentence = f"certificate verify failed: {said}"  # as OpenSSL says it, which people search for
    if said.startswith(_STRICT):
        return (
            f"{sentence}: a certificate of the private authority lacks an extension that Python asks for from 3.13 on. Issue it anew with "
            "subjectKeyIdentifier, authorityKeyIdentifier, and for the authority basicConstraints and keyUsage, both critical"
        )
    if "self-signed" in said or "unable to get local issuer" in said:
        return f"{sentence}: name the authority that signed it in ca_file"
    return sentence


def _no_prompt() -> NoReturn:
    raise OSError(errno.EACCES, "The private key is encrypted, and no passphrase was given")


def _identify(context: ssl.SSLContext, identity: bytes) -> None:
    """Load a certificate and its key from memory. OpenSSL reads only files: this one is in memory too where the system
    can do that."""
    with suppress(AttributeError, OSError):
        number = os.memfd_create("identity", os.MFD_CLOEXEC)
        try:
            os.write(number, identity)
            context.load_cert_chain(f"/proc/self/fd/{number}", password=_no_prompt)
            return
        finally:
            os.close(number)
    with tempfile.TemporaryDirectory() as folder:  # readable by its owner only
        path = Path(folder, f"{secrets.token_hex(8)}.pem")
        path.write_bytes(identity)
        context.load_cert_chain(path, password=_no_prompt)
