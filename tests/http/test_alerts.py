"""A gateway that refuses our certificate says so by an alert: in the handshake, or after it. It is told from a network
in trouble."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from fanout.core.alerts import CERTIFICATE_ALERTS, certificate_alert
from fanout.http import client_tls
from tests.http.alerts import Office, refusing
from tests.http.gateway import HEAD, Certificates, Clock, failure, gateway
from tests.http.test_trouble import pool_to

pytestmark = pytest.mark.anyio

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
OPENSSL = {
    # RFC 8446, section 6.2: the description's number, and how OpenSSL names its reason.
    "no_certificate": "SSLV3_ALERT_NO_CERTIFICATE",
    "bad_certificate": "SSLV3_ALERT_BAD_CERTIFICATE",
    "unsupported_certificate": "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "certificate_revoked": "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "certificate_expired": "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "certificate_unknown": "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "unknown_ca": "TLSV1_ALERT_UNKNOWN_CA",
    "access_denied": "TLSV1_ALERT_ACCESS_DENIED",
    "certificate_required": "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "handshake_failure": "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "decrypt_error": "TLSV1_ALERT_DECRYPT_ERROR",
}


@pytest.mark.parametrize("name", OPENSSL)
def test_openssls_names_of_an_alert(name: str) -> None:
    spoken = OPENSSL[name].lower().replace("_", " ")
    for text in (
        OPENSSL[name],
        f"[SSL: {OPENSSL[name]}] {spoken} (_ssl.c:2580)",
        f"ssl/tls alert {name.replace('_', ' ')}",
    ):
        assert certificate_alert(text) == f"alert {name}"
    assert f"alert {name}" in CERTIFICATE_ALERTS


@pytest.mark.parametrize(
    "text",
    [
        "CERTIFICATE_VERIFY_FAILED",  # we refuse theirs
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:992)",
        "TLSV1_ALERT_INTERNAL_ERROR",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "TLSV1_UNRECOGNIZED_NAME",
        "WRONG_VERSION_NUMBER",
        "",
    ],
)
def test_other_troubles_of_tls_are_not_about_our_certificate(text: str) -> None:
    assert certificate_alert(text) == ""


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("number", "name"),
    [
        (42, "bad_certificate"),
        (43, "unsupported_certificate"),
        (44, "certificate_revoked"),
        (45, "certificate_expired"),
        (46, "certificate_unknown"),
        (48, "unknown_ca"),
        (49, "access_denied"),
    ],
)
async def test_each_alert_in_the_handshake(
    certificates: Certificates, trusting: ssl.SSLContext, version: ssl.TLSVersion, number: int, name: str
) -> None:
    with refusing((certificates.cert, certificates.key), version=version, alert=number) as server:
        async with pool_to(server.url, trusting) as pool:
            assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", f"alert {name}")
            assert "refused our certificate" in pool.stats.last_trouble
            # What is asked while the last connect has just failed waits for the next, and says why too.
            pool._reconnect.until = 0.0
            assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", f"alert {name}")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("expired", "certificate_expired"),
        ("revoked", "certificate_revoked"),
        ("stranger", "unknown_ca"),
        ("purpose", "unsupported_certificate"),
        ("none", "certificate_required"),
    ],
)
async def test_what_openssl_says_of_a_client_certificate(
    certificates: Certificates, tmp_path: Path, version: ssl.TLSVersion, case: str, name: str
) -> None:
    """With TLS 1.3 the alert comes after the client's handshake has ended."""
    (tmp_path / "other").mkdir()
    office, other = Office(tmp_path), Office(tmp_path / "other")
    files: tuple[Path, Path] | None = {
        "expired": lambda: office.client("expired", days=-1),
        "revoked": lambda: office.client("revoked", revoked=True),
        "stranger": lambda: other.client("stranger"),
        "purpose": lambda: office.client("purpose", purpose=ExtendedKeyUsageOID.SERVER_AUTH),
        "none": lambda: None,
    }[case]()
    shown = {"cert_file": str(files[0]), "key_file": str(files[1])} if files else {}
    context = client_tls(ca_file=certificates.ca, **shown)
    if case == "none" and version is ssl.TLSVersion.TLSv1_2:
        name = "handshake_failure"
    pair = (certificates.cert, certificates.key)
    with refusing(pair, version=version, clients=office.ca) as server:
        async with pool_to(server.url, context) as pool:
            assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", f"alert {name}")
    assert len(server.failures) == server.handshakes == 1


async def test_an_alert_on_a_connection_in_use(certificates: Certificates, trusting: ssl.SSLContext) -> None:
    """With TLS 1.3 a server may send its SETTINGS before it has seen the certificate."""
    clock = Clock()
    async with gateway(certificates.server()) as server, pool_to(server.url, trusting, clock) as pool:
        future = pool.request(HEAD, b"/", b"", b"x")
        peer = await server.accept()
        await peer.hello()
        await peer.request()
        error = ssl.SSLError(1, "[SSL] sslv3 alert certificate revoked")
        (connection,) = pool._ready
        transport = connection._transport
        assert transport is not None
        connection.connection_lost(error)
        transport.abort()
        assert await failure(future) == ("unknown", "alert certificate_revoked")
        assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", "alert certificate_revoked")
