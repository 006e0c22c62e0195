"""TLS in `fanout serve`: a certificate that is renewed in place, and clients' certificates as credentials of an app's
server."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from authority import Authority, Issued
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from edgerig import BEARER, Answer, answers, engine_of, request, settings_of

from fanout.config import CertificateSettings, Limits
from fanout.errors import UsageError
from fanout.service import create_app
from fanout.service.server import serving
from fanout.service.tls import ServerTls

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def secured(tls: ServerTls, *known: Issued, **settings: Any) -> AsyncIterator[tuple[str, int]]:
    certificates = tuple(CertificateSettings(sha256=each.sha256, app="other") for each in known)
    app = create_app(engine_of(), settings_of(certificates=certificates, **settings))
    async with app.state.service as service, serving(app, "127.0.0.1", 0, service.limits, tls=tls) as url:
        assert url.startswith("https://127.0.0.1:")
        yield "127.0.0.1", int(url.rpartition(":")[2])


async def ask(
    address: tuple[str, int],
    authority: Authority,
    *lines: str,
    shown: Issued | None = None,
    path: str = "/v1/endpoints",
) -> tuple[list[Answer], bytes]:
    """The answers over TLS, and the server's certificate (DER)."""
    context = ssl.create_default_context(cafile=str(authority.file))
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    async with asyncio.timeout(120):
        reader, writer = await asyncio.open_connection(*address, ssl=context)
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(request("GET", path, *lines))
        heard = await reader.read()
        writer.close()
    return answers(heard), der


async def test_a_renewed_certificate_is_taken_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first = authority.issue("service")
    tls = ServerTls(first.certificate, first.key)
    async with secured(tls) as address:
        found, shown = await ask(address, authority, f"Authorization: {BEARER}")
        assert [each.status for each in found] == [200]
        assert hashlib.sha256(shown).hexdigest() == first.sha256
        # Half of a renewal is none: the new certificate, and still the old key.
        new = authority.issue("service", "new")
        first.certificate.write_bytes(new.certificate.read_bytes())
        assert [await tls.look() for _ in range(3)] == [False] * 3
        assert [each.status for each in (await ask(address, authority, path="/health"))[0]] == [200]
        first.key.write_bytes(new.key.read_bytes())
        assert True in [await tls.look() for _ in range(2)]
        _, shown = await ask(address, authority, path="/health")
        assert hashlib.sha256(shown).hexdigest() == new.sha256


async def test_a_clients_certificate_is_its_apps_server(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "another authority")
    own, shop, unknown = (authority.issue(each) for each in ("service", "shop", "unknown"))
    foreign = stranger.issue("foreign")
    tls = ServerTls(own.certificate, own.key, authority.file)
    async with secured(tls, shop, foreign) as address:
        for shown, lines, status in (
            (shop, (), 200),
            (unknown, (), 401),
            (None, (), 401),
            (shop, (f"Authorization: {BEARER}",), 200),
            (shop, ("Authorization: Bearer fak_wrong",), 401),  # what is said is judged, and nothing else instead
            (shop, ("Authorization: ",), 401),
            (shop, ("Origin: https://evil.example",), 403),  # a browser shows it for any page
            (None, (f"X-Client-Cert: {shop.sha256}", f"X-SSL-Client-SHA256: {shop.sha256}"), 401),
        ):
            found, _ = await ask(address, authority, *lines, shown=shown)
            assert [each.status for each in found] == [status], (shown, lines)
        # A certificate that nobody known has signed ends the handshake; the client hears of it when it reads.
        heard: list[Answer] = []
        with suppress(ssl.SSLError, ConnectionError):
            heard, _ = await ask(address, authority, shown=foreign)
        assert heard == []


@pytest.mark.parametrize("what", ["absent", "no PEM", "not a pair", "encrypted"])
def test_files_that_cannot_be_used_are_refused_and_nobody_is_prompted(tmp_path: Path, what: str) -> None:
    authority = Authority(tmp_path)
    one, two = authority.issue("one"), authority.issue("two")
    key = one.key
    if what == "absent":
        key = tmp_path / "absent.key"
    elif what == "no PEM":
        key.write_text("nonsense")
    elif what == "not a pair":
        key = two.key
    else:
        made = generate_private_key(SECP256R1())
        key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    with pytest.raises(UsageError, match="--tls-cert and --tls-key"):
        ServerTls(one.certificate, key)


@pytest.mark.parametrize("wrong", ["", "abc", "AA:" * 31 + "GG", "sha256:" + "0" * 64])
def test_a_fingerprint_is_64_digits(wrong: str) -> None:
    assert CertificateSettings(sha256=":".join(["AB"] * 32)).sha256 == "ab" * 32
    with pytest.raises(UsageError, match="openssl"):
        CertificateSettings(sha256=wrong)


@pytest.mark.parametrize("first", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_handshake_that_does_not_end_counts_as_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """20 of one peer, of which one may be open: each gives way to the next one, and the last to a request."""
    monkeypatch.setattr("fanout.service.server.HANDSHAKE", 3600.0)
    authority = Authority(tmp_path)
    made = authority.issue("service")
    limits = Limits(connections=4, connections_per_peer=4)
    async with secured(ServerTls(made.certificate, made.key), limits=limits) as address, asyncio.timeout(120):
        held = [await asyncio.open_connection(*address) for _ in range(20)]
        for _, writer in held:
            with suppress(ConnectionError):
                writer.write(first)
        found, _ = await ask(address, authority, f"Authorization: {BEARER}")
        assert [each.status for each in found] == [200]
        for reader, writer in held:
            with suppress(ConnectionError):
                await reader.read()
            writer.close()


async def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("service")
    assert ServerTls(own.certificate, own.key).context.minimum_version == ssl.TLSVersion.TLSv1_2
