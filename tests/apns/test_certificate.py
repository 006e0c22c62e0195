"""Push certificates: in every form that Apple's tools write, near their end, past it, and refused."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import pty
import random
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from fanout.bootstrap import SystemClock
from fanout.plugin import (
    CERTIFICATE_ALERTS,
    ConfigurationError,
    Context,
    Delivery,
    Diagnosis,
    Misconfigured,
    Notification,
    Scope,
    Secret,
    Unavailable,
)
from fanout.testing.clock import VirtualClock
from fanout.testing.simulator.certificates import Authority
from fanout_apns.certificate import Validity, parse
from fanout_apns.diagnosis import diagnose, judge
from fanout_apns.making import make
from fanout_apns.outcome import of_failure
from fanout_apns.settings import ApnsSettings
from fanout_apns.simulator import ApnsSimulator
from tests.http.alerts import Office, refusing

pytestmark = pytest.mark.anyio

DAY = 86_400.0
P256 = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def p12(certificate: bytes, key: bytes, passphrase: bytes | None) -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    private: Any = load_pem_private_key(key, None)
    return serialize_key_and_certificates(
        b"push", private, x509.load_pem_x509_certificate(certificate), None, encryption
    )


def encrypted(key: bytes, passphrase: bytes, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return load_pem_private_key(key, None).private_bytes(Encoding.PEM, form, BestAvailableEncryption(passphrase))


def by_openssl(folder: Path, certificate: Path, key: Path, *more: str) -> bytes:
    """A .p12 file as Keychain Access writes it: RC2 and triple DES."""
    out = folder / "out.p12"
    words = ["openssl", "pkcs12", "-export", "-in", str(certificate), "-inkey", str(key), "-out", str(out), *more]
    subprocess.run([*words, "-passout", "pass:word"], check=True, capture_output=True, timeout=30)
    return out.read_bytes()


# -- the forms


@pytest.mark.parametrize("passphrase", [None, b"pass word"])
@pytest.mark.parametrize("form", ["pem", "one pem", "traditional", "p12", "der"])
async def test_every_form_is_taken(office: Office, form: str, passphrase: bytes | None) -> None:
    certificate, key = (path.read_bytes() for path in office.client("push"))
    shown = encrypted(key, passphrase) if passphrase else key
    if form == "traditional" and passphrase:
        shown = encrypted(key, passphrase, PrivateFormat.TraditionalOpenSSL)
    match form:
        case "pem" | "traditional":
            found = parse(certificate, shown, passphrase)
        case "one pem":
            found = parse(b"Bag Attributes\n" + shown + b"\nsubject=x\n" + certificate, None, passphrase)
        case "p12":
            found = parse(p12(certificate, key, passphrase), None, passphrase)
        case _:
            der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
            found = parse(der, shown, passphrase)
    assert found.uid == "com.example.app"
    assert 364 * DAY < found.validity.ends - office.now.timestamp() <= 365 * DAY
    assert b"PRIVATE KEY" not in repr(found).encode()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    (office.folder / "identity.pem").write_bytes(found.identity)
    context.load_cert_chain(office.folder / "identity.pem", password=lambda: pytest.fail("it is encrypted"))


@pytest.mark.external
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("more", [("-legacy",), ()])
def test_a_p12_as_openssl_and_keychain_access_write_it(office: Office, more: tuple[str, ...]) -> None:
    raw = by_openssl(office.folder, *office.client("push"), *more)
    assert parse(raw, None, b"word").uid == "com.example.app"
    with pytest.raises(ConfigurationError, match="correct the passphrase"):
        parse(raw, None, b"wrong")
    with pytest.raises(ConfigurationError, match="set cert_passphrase_file"):
        parse(raw, None, None)


def test_the_certificate_of_the_key_comes_first_and_the_rest_is_its_chain(office: Office) -> None:
    certificate, key = (path.read_bytes() for path in office.client("push"))
    ca = x509.load_pem_x509_certificate(office.ca.read_bytes()).public_bytes(Encoding.PEM)
    found = parse(ca + certificate, key, None)
    assert found.uid == "com.example.app"
    assert found.identity.startswith(certificate)
    assert ca in found.identity


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c, k, o: (c, encrypted(k, b"word"), None),
            "The key in cert_key_file is encrypted: set cert_passphrase_file",
        ),
        (lambda c, k, o: (c + encrypted(k, b"word"), None, None), "The key in cert_file is encrypted"),
        (lambda c, k, o: (c, encrypted(k, b"word", PrivateFormat.TraditionalOpenSSL), None), "is encrypted"),
        (lambda c, k, o: (c, encrypted(k, b"word"), b"other"), "cannot be opened with cert_passphrase"),
        (lambda c, k, o: (c, k, b"word"), "is not encrypted: take cert_passphrase out"),
        (lambda c, k, o: (p12(c, k, b"word"), None, None), "The key in cert_file is encrypted"),
        (lambda c, k, o: (p12(c, k, b"word"), None, b"other"), "cannot be opened with cert_passphrase"),
        (lambda c, k, o: (p12(c, k, b"word"), k, b"word"), "a .p12 file has its key in it"),
        (lambda c, k, o: (c, o, None), "do not belong together"),
        (lambda c, k, o: (c, None, None), "cert_file holds no private key"),
        (lambda c, k, o: (k, None, None), "holds no certificate"),
        (lambda c, k, o: (c, k[:80] + b"!" + k[81:], None), "cannot be read"),
        (lambda c, k, o: (b"\x30\x00garbage", None, None), "neither PEM nor a .p12"),
        (lambda c, k, o: (b"", None, None), "neither PEM nor a .p12"),
        (lambda c, k, o: (x509.load_pem_x509_certificate(c).public_bytes(Encoding.DER), None, None), "a .cer file"),
    ],
)
def test_what_cannot_be_used_is_named(office: Office, change: Callable[..., Any], said: str) -> None:
    certificate, key = (path.read_bytes() for path in office.client("push"))
    _, other = (path.read_bytes() for path in office.client("other"))
    with pytest.raises(ConfigurationError, match=said) as caught:
        parse(*change(certificate, key, other))
    assert "word" not in str(caught.value).replace("passwords", "").replace("pass word", "").split()


def test_a_passphrase_belongs_to_a_certificate() -> None:
    with pytest.raises(ConfigurationError, match="cert_passphrase is set without cert_file"):
        ApnsSettings(topic="a.b", team_id="A" * 10, key_id="B" * 10, key=Secret(P256), cert_passphrase=Secret("y"))


@pytest.mark.parametrize("client", ["fanout", "aioapns"])
async def test_a_p12_with_a_passphrase_file_is_enough(tmp_path: Path, client: str) -> None:
    async with ApnsSimulator(auth="certificate") as apple:
        certificate, key = (path.read_bytes() for path in apple.authority.client(apple.topic, name="push"))
        (tmp_path / "push.p12").write_bytes(p12(certificate, key, b"word"))
        values = ApnsSettings(
            cert_file=tmp_path / "push.p12",
            cert_passphrase=Secret("word"),
            gateway=apple.url,
            ca_file=Path(apple.ca_file),
            client=client,  # type: ignore[arg-type]
        )
        context = Context(app="default", binding="apns", clock=VirtualClock(), rng=random.Random(1))
        async with make(values, context) as transport:
            delivery = Delivery.of(transport.parse_address(apple.address(1)))
            assert (
                await transport.send(transport.prepare(Notification(title="t")), delivery)
            ).__class__.__name__ == "Accepted"


PROMPTED = """
import asyncio, random, sys
from pathlib import Path
from fanout.http import client_tls
from fanout.plugin import ConfigurationError, Context
from fanout.testing.clock import VirtualClock
from fanout.testing.simulator.certificates import Authority
from fanout_apns.settings import ApnsSettings
from fanout_apns.making import make
async def main():
    settings = ApnsSettings(topic="a.b", cert_file=Path(sys.argv[1]), cert_key_file=Path(sys.argv[2]), client=sys.argv[3])
    try:
        async with make(settings, Context(app="default", binding="apns", clock=VirtualClock(), rng=random.Random(1))):
            print("opened")
    except ConfigurationError as error:
        print(error)
asyncio.run(main())
try:
    client_tls(cert_file=sys.argv[1], key_file=sys.argv[2])
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("client", ["fanout", "aioapns"])
def test_an_encrypted_key_never_prompts(office: Office, client: str) -> None:
    """OpenSSL asks at the controlling terminal, so the child gets one."""
    certificate, key = office.client("push")
    key.write_bytes(encrypted(key.read_bytes(), b"word"))
    number, terminal = pty.openpty()
    try:
        child = subprocess.run(
            [sys.executable, "-c", PROMPTED, str(certificate), str(key), client],
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=terminal,
            start_new_session=True,
            timeout=60,
            check=True,
        )
    finally:
        os.close(terminal)
        os.set_blocking(number, False)
        try:
            asked = os.read(number, 4096)
        except OSError:
            asked = b""
        os.close(number)
    assert b"set cert_passphrase_file" in child.stdout
    assert b"no passphrase was given" in child.stdout
    assert b"pass phrase" not in asked.lower() + child.stdout


# -- its end


@pytest.mark.parametrize(
    ("days", "problem", "warning"),
    [
        (31, "", ""),
        (30.01, "", ""),
        (29.5, "", "in 29 days"),
        (0.5, "", "in 0 days"),
        (0, "", "in 0 days"),
        (-0.01, "ended on 1970-01-11", ""),
        (-400, "ended on 1970-01-11", ""),
    ],
)
def test_the_end_is_seen_thirty_days_ahead(days: float, problem: str, warning: str) -> None:
    ends = 10 * DAY
    validity = Validity(-1000 * DAY, ends)
    now = ends - days * DAY
    assert problem in validity.problem(now)
    assert warning in validity.warning(now)
    assert (bool(validity.problem(now)), bool(validity.warning(now))) == (bool(problem), bool(warning))


def test_a_certificate_of_the_future_says_that_a_clock_may_be_wrong() -> None:
    assert "clock" in Validity(100 * DAY, 200 * DAY).problem(DAY)


def test_doctor_judges_the_end_beside_apples_answer() -> None:
    well, gone = Diagnosis(detail="Apple accepts it."), Diagnosis("It gave no answer (tls).", "alert")
    near, over = Validity(0, 20 * DAY), Validity(0, DAY)
    assert judge(well, near, DAY).ok
    assert "in 19 days" in judge(well, near, DAY).warning
    assert "ended on" in judge(gone, over, 2 * DAY).problem
    # One witness each: what Apple accepts has not ended, whatever this machine's clock says.
    assert judge(well, over, 2 * DAY).ok
    assert "clock is wrong" in judge(well, over, 2 * DAY).warning
    assert judge(gone, Validity(0, 400 * DAY), DAY) == gone


@pytest.mark.parametrize(("days", "level"), [(400.0, None), (20.0, "WARNING"), (-1.0, "ERROR")])
async def test_the_end_is_logged_at_the_start_and_every_day(
    office: Office, days: float, level: str | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fanout_apns.transport._DAY", 0.001)
    certificate, key = office.client("push", days=days)
    settings = ApnsSettings(topic="a.b", cert_file=certificate, cert_key_file=key, gateway="https://127.0.0.1:9")
    context = Context(app="shop", binding="apns", clock=VirtualClock(office.now.timestamp()), rng=random.Random(1))
    with caplog.at_level(logging.WARNING, "fanout.apns"):
        async with make(settings, context):
            while level is not None and len(caplog.records) < 3:
                await asyncio.sleep(0.001)
    assert {record.levelname for record in caplog.records} == ({level} if level else set())
    assert all("shop/apns: The push certificate end" in record.message for record in caplog.records)


# -- refused


@pytest.mark.parametrize("alert", sorted(CERTIFICATE_ALERTS))
def test_each_alert_is_misconfigured_and_has_its_remedy(alert: str) -> None:
    outcome, _ = of_failure("no", alert, b"")
    assert outcome == Misconfigured(alert, Scope.BINDING)
    for settings in (
        ApnsSettings(cert_file=Path(__file__)),
        ApnsSettings(topic="a.b", team_id="A" * 10, key_id="B" * 10, key=Secret(P256)),
    ):
        found = diagnose(outcome, settings)
        assert "certificate" in found.problem
        assert "{" not in found.problem


class Behind(SystemClock):
    """The machine's clock, so many seconds behind."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> float:
        return super().now() - self._seconds


@pytest.mark.parametrize("client", ["fanout", "aioapns"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("case", ["expired", "revoked"])
async def test_a_refused_certificate_parks_the_binding(
    office: Office, tmp_path: Path, client: str, version: ssl.TLSVersion, case: str
) -> None:
    authority = Authority(tmp_path)
    server = authority.server()
    certificate, key = office.client("push", days=-1 if case == "expired" else 300, revoked=case == "revoked")
    pair = (str(server[0]), str(server[1]))
    with refusing(pair, version=version, clients=office.ca) as gateway:
        settings = ApnsSettings(
            topic="com.example.app",
            cert_file=certificate,
            cert_key_file=key,
            gateway=gateway.url,
            ca_file=authority.ca_file,
            client=client,  # type: ignore[arg-type]
        )
        # A clock that calls the certificate good: the alert alone says what is wrong. It runs, for the next connect
        # comes within a second.
        clock = Behind(datetime.timedelta(days=100).total_seconds())
        context = Context(app="default", binding="apns", clock=clock, rng=random.Random(1))
        async with make(settings, context) as transport:
            message = transport.prepare(Notification(title="t"))
            outcome = await transport.send(message, Delivery.of(transport.parse_address("ab" * 32)))
            assert outcome == Misconfigured(f"alert certificate_{case}", Scope.BINDING)
            diagnosis = await transport.check()
            assert not diagnosis.ok
            assert case.replace("expired", "ended") in diagnosis.problem


async def test_a_lost_alert_of_an_ended_certificate_is_told_by_its_end(office: Office, tmp_path: Path) -> None:
    """The gateway hangs up without a word: with a certificate that has ended, that is why."""
    hung_up = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = hung_up.sockets[0].getsockname()[1]
    async with hung_up:
        for days, wanted in (
            (-1.0, Misconfigured("certificate expired")),
            (300.0, Unavailable("no", Scope.GROUP, "tls")),
        ):
            certificate, key = office.client(f"push{days}", days=days)
            settings = ApnsSettings(
                topic="a.b", cert_file=certificate, cert_key_file=key, gateway=f"https://127.0.0.1:{port}"
            )
            clock = VirtualClock(office.now.timestamp())
            context = Context(app="default", binding="apns", clock=clock, rng=random.Random(1))
            async with make(settings, context) as transport:
                message = transport.prepare(Notification(title="t"))
                assert await transport.send(message, Delivery.of(transport.parse_address("ab" * 32))) == wanted
