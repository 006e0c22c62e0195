"""TLS as the push gateways want it."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from fanout.core.alerts import certificate_alert

__all__ = ["alert_of", "client_tls"]


def client_tls(
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    key_password: str | None = None,
    alpn: Sequence[str] = ("h2",),
) -> ssl.SSLContext:
    """A context for a client of an HTTP/2 gateway: TLS 1.2 or newer, host names checked, ALPN `h2` (RFC 9113, section 3.3).

    `ca_file` adds certificates to the operating system's trust store. `cert_file` and `key_file` (PEM; the key may be in the
    certificate's file) identify the client. Reads files, so make contexts while starting up. Raises `OSError` (of which
    `ssl.SSLError` is one) where a file is missing or malformed.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(alpn))
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    if cert_file is not None:
        context.load_cert_chain(cert_file, key_file, key_password)
    return context


def alert_of(error: BaseException | None) -> str:
    """The peer's alert about our certificate that an error of a connection is (`CERTIFICATE_ALERTS`), else ""."""
    return certificate_alert(getattr(error, "reason", "") or str(error)) if isinstance(error, ssl.SSLError) else ""
