"""The TLS context for gateways, and client certificates."""

from __future__ import annotations

import gc
import ssl
import weakref
from pathlib import Path

import pytest

from fanout.http import client_tls
from tests.http.gateway import HEAD, Certificates, Gateway, failure, gateway
from tests.http.test_trouble import pool_to

pytestmark = pytest.mark.anyio


def test_certificates_and_names_are_checked_and_old_tls_is_not_spoken() -> None:
    context = client_tls()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_ca_file_adds_to_the_systems_store(certificates: Certificates) -> None:
    added = client_tls(ca_file=certificates.ca).cert_store_stats()["x509"]
    assert added == client_tls().cert_store_stats()["x509"] + 1


def test_a_missing_file_is_an_oserror(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(OSError, match=r"."):
        client_tls(ca_file=missing)
    with pytest.raises(OSError, match=r"."):
        client_tls(cert_file=missing)


def test_a_shared_context_is_made_once_for_the_same_files(certificates: Certificates, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Path(certificates.ca).read_bytes())
    first = client_tls(ca_file=str(ca), shared=True)
    assert client_tls(ca_file=str(ca), shared=True) is first
    assert client_tls(ca_file=str(ca), alpn=("http/1.1",), shared=True) is not first
    assert client_tls(shared=True) is not first
    assert client_tls(ca_file=str(ca)) is not first, "one that may be changed is the caller's alone"

    ca.write_bytes(ca.read_bytes() + b"\n")
    assert client_tls(ca_file=str(ca), shared=True) is not first, "other authorities may stand in the file now"
    ca.unlink()
    with pytest.raises(OSError, match=r"."):
        client_tls(ca_file=str(ca), shared=True)


def test_a_shared_context_goes_with_its_last_user(certificates: Certificates) -> None:
    gone = weakref.ref(client_tls(ca_file=certificates.ca, alpn=("x",), shared=True))
    gc.collect()
    assert gone() is None


def demanding(certificates: Certificates, version: ssl.TLSVersion) -> ssl.SSLContext:
    """A server that wants a client certificate of our authority."""
    context = certificates.server()
    context.maximum_version = version
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def answer_one(server: Gateway) -> None:
    peer = await server.accept()
    await peer.hello()
    peer.answer((await peer.request()).stream)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_shown(certificates: Certificates, version: ssl.TLSVersion) -> None:
    context = client_tls(ca_file=certificates.ca, cert_file=certificates.cert, key_file=certificates.key)
    async with gateway(demanding(certificates, version)) as server, pool_to(server.url, context) as pool:
        future = pool.request(HEAD, b"/", b"", b"x")
        await answer_one(server)
        assert (await future).status == 200


@pytest.mark.parametrize(
    ("version", "reason"),
    # asyncio's server hangs up without an alert; with TLS 1.3 the client has finished its handshake by then.
    [(ssl.TLSVersion.TLSv1_2, "tls"), (ssl.TLSVersion.TLSv1_3, "settings")],
)
async def test_without_its_client_certificate_no_connection_comes_about(
    certificates: Certificates, trusting: ssl.SSLContext, version: ssl.TLSVersion, reason: str
) -> None:
    async with gateway(demanding(certificates, version)) as server, pool_to(server.url, trusting) as pool:
        assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", reason)


def strict(certificates: Certificates) -> ssl.SSLContext:
    """As it is by default from Python 3.13 on."""
    context = client_tls(ca_file=certificates.ca)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


async def test_certificates_of_the_tests_pass_the_strict_check(certificates: Certificates) -> None:
    async with gateway(certificates.server()) as server, pool_to(server.url, strict(certificates)) as pool:
        future = pool.request(HEAD, b"/", b"", b"x")
        await answer_one(server)
        assert (await future).status == 200


async def test_what_a_private_authority_lacks_is_named_with_what_to_do(old_certificates: Certificates) -> None:
    async with gateway(old_certificates.server()) as server, pool_to(server.url, strict(old_certificates)) as pool:
        assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", "tls")
        assert "lacks an extension that Python asks for from 3.13 on" in pool.stats.last_trouble
        assert "authorityKeyIdentifier" in pool.stats.last_trouble


async def test_an_authority_that_is_not_known_is_to_be_named(certificates: Certificates) -> None:
    async with gateway(certificates.server()) as server, pool_to(server.url, client_tls()) as pool:
        assert await failure(pool.request(HEAD, b"/", b"", b"x")) == ("no", "tls")
        assert "name the authority that signed it in ca_file" in pool.stats.last_trouble
