"""TLS alerts that are about the certificate of the side that receives them: OpenSSL's names, and those of the RFCs.
Pure."""

from __future__ import annotations

import re

__all__ = ["CERTIFICATE_ALERTS", "certificate_alert"]

_NAMES = (
    "no_certificate",
    "bad_certificate",
    "unsupported_certificate",
    "certificate_revoked",
    "certificate_expired",
    "certificate_unknown",
    "unknown_ca",
    "access_denied",
    "certificate_required",
    "handshake_failure",
    "decrypt_error",
)
"""RFC 8446, section 6.2, and RFC 5246, section 7.2.2.

TLS 1.2 has no `certificate_required`: a server that was shown none answers `handshake_failure` (RFC 5246, section
7.4.6). It and `decrypt_error` (a signature by another key than the certificate's) are told for other things too, none
of which mends itself.
"""

CERTIFICATE_ALERTS = frozenset(f"alert {name}" for name in _NAMES)
"""The words of `RequestFailed` for a peer that refuses our certificate, or misses one."""

_ALERT = re.compile(rf"\balert ({'|'.join(_NAMES)})\b".replace("_", " "))


def certificate_alert(text: str) -> str:
    """The alert by which a peer refuses our certificate, of an error of OpenSSL.

    OpenSSL writes `TLSV13_ALERT_CERTIFICATE_REQUIRED`, `sslv3 alert bad certificate` or `ssl/tls alert certificate
    expired`.

    Args:
        text: The `reason` or the text of an `ssl.SSLError`.

    Returns:
        One of `CERTIFICATE_ALERTS`; empty for another error.
    """
    found = _ALERT.search(text.lower().replace("_", " "))
    return f"alert {found.group(1).replace(' ', '_')}" if found else ""
