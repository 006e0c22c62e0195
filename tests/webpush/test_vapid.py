"""VAPID keys and tokens, held to RFC 8292 and to PyJWT."""

from __future__ import annotations

import base64
import json
from base64 import urlsafe_b64decode
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fanout.plugin import ConfigurationError, Secret
from fanout_webpush.settings import WebPushSettings, subject_problem
from fanout_webpush.vapid import LIFETIME, MIN_AGE, SLOT, VapidKey, VapidTokens, b64url, make_vapid_keys

ORIGIN = "https://fcm.googleapis.com"
SUBJECT = "mailto:ops@example.com"
NOW = 1_800_000_000.0

EXAMPLE = (
    "vapid t=eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0NTM1MjM3NjgsInN1"
    "YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHz"
    "voD1oA, k=BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
)
"""RFC 8292, section 2.4."""


def raw(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def key() -> VapidKey:
    return VapidKey(ec.generate_private_key(ec.SECP256R1()))


def parts(header: str) -> tuple[str, str]:
    assert header.startswith("vapid t=")
    token, _, public = header.removeprefix("vapid t=").partition(", k=")
    return token, public


def public_key(public: str) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw(public))


def test_the_example_of_rfc_8292_has_the_form_that_ours_have() -> None:
    token, public = parts(EXAMPLE)
    assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "ES256"}
    claims = jwt.decode(
        token,
        public_key(public),
        algorithms=["ES256"],
        audience="https://push.example.net",
        options={"verify_exp": False},
    )
    assert claims == {"aud": "https://push.example.net", "exp": 1453523768, "sub": "mailto:push@example.com"}
    signed = key()
    ours, _ = parts(signed.sign("https://push.example.net", "mailto:push@example.com", 1453523768))
    assert ours.split(".")[:2] == token.split(".")[:2]


def test_a_token_is_what_pyjwt_accepts_for_this_origin_and_no_other() -> None:
    signer = key()
    token, public = parts(signer.sign(ORIGIN, SUBJECT, int(NOW) + LIFETIME))
    assert public == signer.public
    assert len(raw(token.split(".")[2])) == 64
    options = {"verify_exp": False}
    claims = jwt.decode(token, public_key(public), algorithms=["ES256"], audience=ORIGIN, options=options)
    assert claims == {"aud": ORIGIN, "exp": int(NOW) + LIFETIME, "sub": SUBJECT}
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(token, public_key(public), algorithms=["ES256"], audience="https://other.example", options=options)


def test_signatures_with_short_numbers_are_padded() -> None:
    signer = key()
    for expires in range(600):  # one in 128 has a number whose first byte is zero
        header = signer.sign(ORIGIN, SUBJECT, expires)
        assert len(raw(parts(header)[0].split(".")[2])) == 64
        assert signer.verifies(header)
    assert not key().verifies(header)


def claims(header: str) -> dict[str, object]:
    decoded: dict[str, object] = json.loads(raw(parts(header)[0].split(".")[1]))
    return decoded


@pytest.mark.parametrize("offset", [0, 1, SLOT / 2, SLOT - MIN_AGE, SLOT - 1])
def test_a_token_is_good_for_six_to_twelve_hours_and_never_for_more_than_a_day(offset: float) -> None:
    start = NOW // SLOT * SLOT
    tokens = VapidTokens(key(), SUBJECT)
    now = start + offset
    first = tokens.header(ORIGIN, now)
    exp = claims(first)["exp"]
    assert isinstance(exp, int)
    assert 6 * 3600 <= exp - now <= 12 * 3600
    for later in range(int(now), int(now) + 2 * SLOT, 600):
        expires = claims(tokens.header(ORIGIN, later))["exp"]
        assert isinstance(expires, int)
        assert 5 * 3600 <= expires - later <= 12 * 3600


def test_tokens_are_cached_by_origin_and_renewed_by_the_slot() -> None:
    start = NOW // SLOT * SLOT
    tokens = VapidTokens(key(), SUBJECT)
    first = tokens.header(ORIGIN, start)
    assert tokens.header(ORIGIN, start + SLOT - 1) is first
    assert tokens.header("https://web.push.apple.com", start) != first
    assert tokens.header(ORIGIN, start + SLOT) != first


def test_every_process_of_a_fleet_has_the_same_token() -> None:
    signer = key()
    start = NOW // SLOT * SLOT
    here, there = VapidTokens(signer, SUBJECT), VapidTokens(signer, SUBJECT)
    assert here.header(ORIGIN, start + 5) == there.header(ORIGIN, start + SLOT - MIN_AGE)


def test_a_token_is_kept_for_an_hour_even_across_the_end_of_its_slot() -> None:
    start = NOW // SLOT * SLOT
    tokens = VapidTokens(key(), SUBJECT)
    first = tokens.header(ORIGIN, start - 60)
    assert tokens.header(ORIGIN, start + 60) is first
    assert tokens.header(ORIGIN, start - 60 + MIN_AGE) is not first


def test_a_clock_set_back_a_little_signs_nothing_new_and_a_leap_does() -> None:
    tokens = VapidTokens(key(), SUBJECT)
    first = tokens.header(ORIGIN, NOW)
    assert tokens.header(ORIGIN, NOW - 5) is first
    assert tokens.header(ORIGIN, NOW - 2 * 86_400) is not first


def test_no_new_token_within_an_hour_whatever_a_gateway_says() -> None:
    tokens = VapidTokens(key(), SUBJECT)
    first = tokens.header(ORIGIN, NOW)
    assert not tokens.renew(ORIGIN, NOW + MIN_AGE - 1)
    assert tokens.header(ORIGIN, NOW + MIN_AGE - 1) is first
    assert tokens.renew(ORIGIN, NOW + MIN_AGE + 1)
    second = tokens.header(ORIGIN, NOW + MIN_AGE + 1)
    assert second != first
    assert claims(second)["exp"] == int(NOW) + MIN_AGE + 1 + LIFETIME


def test_the_cache_of_tokens_is_bounded() -> None:
    tokens = VapidTokens(key(), SUBJECT, most=3)
    headers = {n: tokens.header(f"https://push{n}.example", NOW) for n in range(4)}
    assert tokens.header("https://push3.example", NOW) is headers[3]
    assert tokens.header("https://push0.example", NOW) is not headers[0]


def test_a_new_pair_loads_and_is_never_shown() -> None:
    pair = make_vapid_keys()
    loaded = VapidKey.load(pair.private_pem)
    assert loaded.public == pair.application_server_key
    assert len(raw(pair.application_server_key)) == 65
    assert "PRIVATE" not in repr(pair)
    assert len(loaded.id) == 8
    assert loaded.id in repr(loaded)


@pytest.mark.parametrize("padding", ["", "="])
def test_the_raw_form_of_other_tools_loads(padding: str) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    scalar = private.private_numbers().private_value.to_bytes(32, "big")
    assert VapidKey.load(Secret(b64url(scalar) + padding)).public == VapidKey(private).public


def _pem(private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-----BEGIN PRIVATE KEY-----\nnope\n-----END PRIVATE KEY-----", "is no VAPID private key"),
        ("SECRETSECRET", "is no VAPID private key"),
        ("A" * 43, "is no VAPID private key"),  # zero is no private key
        ("_" * 42 + "8", "is no VAPID private key"),  # nor is what exceeds the order of the curve
        (_pem(ec.generate_private_key(ec.SECP384R1())), "of another kind than P-256"),
        (_pem(ed25519.Ed25519PrivateKey.generate()), "of another kind than P-256"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as raised:
        VapidKey.load(Secret(text, "vapid.pem"))
    assert "vapid.pem" in str(raised.value)
    assert "fanout keys vapid" in str(raised.value)
    assert text not in str(raised.value)


@pytest.mark.parametrize(
    "subject",
    [
        "mailto:ops@example.com",
        "mailto:o.p+s@mail.example.co.uk",
        "https://example.com",
        "https://example.com/contact?x=1",
    ],
)
def test_subjects_that_every_push_service_takes(subject: str) -> None:
    assert subject_problem(subject) == ""


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "ops@example.com",
        "mailto: ops@example.com",
        "mailto:<ops@example.com>",
        "mailto:ops@localhost",
        "mailto:ops@example.com, me@example.com",
        "mailto:ops@host.local",
        "mailto:ops@10.0.0.1",
        "mailto:ops@example.com\n",
        "http://example.com",
        "https://localhost",
        "https://localhost/contact",
        "https://127.0.0.1/",
        "https://example.com/a b",
        "https://example.com/<me>",
    ],
)
def test_subjects_that_some_push_service_refuses(subject: str) -> None:
    assert subject_problem(subject)
    with pytest.raises(ConfigurationError, match="vapid_subject"):
        WebPushSettings(vapid_private_key=Secret("x"), vapid_subject=subject)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encryption": "rot13"}, "encryption"),
        ({"gateway": "http://127.0.0.1:1"}, "gateway"),
        ({"gateway": "https://host/path"}, "gateway"),
        ({"connections": 0}, "connections"),
        ({"max_hosts": 0}, "max_hosts"),
        ({"request_timeout": 0.0}, "request_timeout"),
        ({"allowed_hosts": ()}, "allowed_hosts"),
        ({"ca_file": Path("/nowhere/ca.pem")}, "ca_file"),
    ],
)
def test_settings_name_what_is_wrong(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        WebPushSettings(vapid_private_key=Secret("x"), vapid_subject=SUBJECT, **changes)  # type: ignore[arg-type]


def test_settings_show_no_key() -> None:
    assert "SECRET" not in repr(WebPushSettings(vapid_private_key=Secret("SECRET"), vapid_subject=SUBJECT))


def _forms() -> dict[str, str]:
    """One key in every form that senders of Web Push write it."""
    key = ec.derive_private_key(int.from_bytes(bytes(range(1, 33)), "big"), ec.SECP256R1())
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    sec1 = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    der8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    der1 = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    scalar = bytes(range(1, 33))
    public = VapidKey(key).public
    url = base64.urlsafe_b64encode
    return {
        "PEM": pkcs8,
        "PEM of OpenSSL": sec1,
        "PEM of OpenSSL behind its parameters": "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        + sec1,
        "PEM with escaped ends of lines": pkcs8.replace("\n", "\\n"),
        "PEM with carriage returns escaped": pkcs8.replace("\n", "\\r\\n"),
        "PEM in quotes": f'"{pkcs8.strip()}"',
        "PEM in one line": pkcs8.replace("\n", " "),
        "PEM with the ends of lines of Windows": pkcs8.replace("\n", "\r\n"),
        "number in base64url (web-push, web-push-php, pywebpush)": url(scalar).decode().rstrip("="),
        "number in base64url, padded": url(scalar).decode(),
        "number in base64": base64.b64encode(scalar).decode(),
        "DER in base64url (py-vapid)": url(der8).decode().rstrip("="),
        "DER in base64": base64.b64encode(der8).decode(),
        "DER of OpenSSL in base64url": url(der1).decode().rstrip("="),
        "DER in lines": base64.encodebytes(der8).decode(),
        "JSON of web-push": f'{{"publicKey":"{public}","privateKey":"{url(scalar).decode().rstrip("=")}"}}',
        "text of web-push": f"\n=====\n\nPublic Key:\n{public}\n\nPrivate Key:\n{url(scalar).decode().rstrip('=')}\n\n=====\n",
        "JWK": f'{{"kty":"EC","crv":"P-256","d":"{url(scalar).decode().rstrip("=")}"}}',
    }


@pytest.mark.parametrize("form", _forms())
def test_a_key_is_read_in_every_form(form: str) -> None:
    forms = _forms()
    assert VapidKey.load(Secret(forms[form])).public == VapidKey.load(Secret(forms["PEM"])).public


@pytest.mark.parametrize(
    "text", ["{}", '{"privateKey": 5}', "A" * 42, "Private Key:", "-----BEGIN PRIVATE KEY-----", "!" * 43, "AA", ""]
)
def test_what_is_no_key_in_any_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no VAPID private key"):
        VapidKey.load(Secret(text))
