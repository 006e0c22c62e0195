"""The corpus of bad tokens: not one is let in, each is refused for its own reason, and good tokens work all the
while."""

from __future__ import annotations

import base64
import hashlib
import hmac
import warnings
from collections.abc import Callable
from typing import Any

import jwt
import orjson
import pytest
from authrig import Rig, rig_of
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fanout.config import IssuerSettings, ServiceSettings
from fanout.testing.issuer import SigningKey

pytestmark = pytest.mark.anyio

FOREIGN = SigningKey.make("key-1")
"""A key that the issuer never had, under the id of the one that it has."""
CURVE = SigningKey.make("key-1", "ES256")


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else orjson.dumps(value)
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hmac_signed(rig: Rig, secret: bytes, alg: str = "HS256") -> str:
    signed = f"{part({'typ': 'JWT', 'alg': alg, 'kid': 'key-1'})}.{part(rig.claims())}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def public_pem(rig: Rig) -> bytes:
    public: bytes = rig.issuer.keys.current.private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    return public


def raw(rig: Rig, header: bytes, claims: bytes | None = None) -> str:
    """Well signed, whatever stands in it."""
    method = jwt.algorithms.get_default_algorithms()["RS256"]
    signed = f"{part(header)}.{part(orjson.dumps(rig.claims()) if claims is None else claims)}"
    return f"{signed}.{part(method.sign(signed.encode(), rig.issuer.keys.current.private))}"


def respelt(token: str) -> str:
    """The same bytes, with one of the last letter's bits set that base64 does not use."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + letters[letters.index(token[-1]) + 1]


HEADER = b'{"alg":"RS256","kid":"key-1"}'
Make = Callable[[Rig], str]

ALGORITHMS: dict[str, tuple[str, Make]] = {
    "none": ("malformed", lambda r: f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(r.claims())}."),
    "none with a signature": ("algorithm", lambda r: r.token({"alg": "none"})),
    "None": ("algorithm", lambda r: r.token({"alg": "None"})),
    "nOnE": ("algorithm", lambda r: r.token({"alg": "nOnE"})),
    "empty": ("algorithm", lambda r: r.token({"alg": ""})),
    "absent": ("malformed", lambda r: r.token({"alg": None})),
    "a list": ("malformed", lambda r: r.token({"alg": ["RS256"]})),
    "lower case": ("algorithm", lambda r: r.token({"alg": "rs256"})),
    "with a blank": ("algorithm", lambda r: r.token({"alg": "RS256 "})),
    "HS256 by the public key in PEM": ("algorithm", lambda r: hmac_signed(r, public_pem(r))),
    "HS256 by the public key's JWK": (
        "algorithm",
        lambda r: hmac_signed(r, orjson.dumps(r.issuer.keys.current.public_jwk())),
    ),
    "HS256 by nothing": ("algorithm", lambda r: hmac_signed(r, b"")),
    "RS256 by HMAC of the public key": ("signature", lambda r: hmac_signed(r, public_pem(r), "RS256")),
    "not pinned, well signed": ("algorithm", lambda r: r.token({"alg": "RS512"})),
    "PS256 of an RSA key": ("algorithm", lambda r: SigningKey("key-1", "PS256", r.issuer.keys.current.private).sign(r.claims())),
    "pinned by name, signed with another": ("signature", lambda r: CURVE.sign(r.claims(), {"alg": "RS256"})),
    "ES256": ("algorithm", lambda r: CURVE.sign(r.claims())),
}  # fmt: skip

HEADERS: dict[str, tuple[str, Make]] = {
    "crit, unknown": ("crit", lambda r: r.token({"crit": ["exp2"], "exp2": 1})),
    "crit, registered": ("crit", lambda r: r.token({"crit": ["exp"]})),
    "crit, empty": ("crit", lambda r: r.token({"crit": []})),
    "crit, null": ("crit", lambda r: raw(r, b'{"alg":"RS256","kid":"key-1","crit":null}')),
    "b64": ("crit", lambda r: r.token({"b64": False})),
    "zip": ("crit", lambda r: r.token({"zip": "DEF"})),
    "embedded jwk": ("signature", lambda r: r.token({"jwk": FOREIGN.public_jwk()}, FOREIGN)),
    "embedded x5c": ("signature", lambda r: r.token({"x5c": ["MIIB"]}, FOREIGN)),
    "jku": ("signature", lambda r: r.token({"jku": f"{r.issuer.url}/keys?mine"}, FOREIGN)),
    "x5u": ("signature", lambda r: r.token({"x5u": f"{r.issuer.url}/keys?mine"}, FOREIGN)),
    "embedded jwk, own id": ("key", lambda r: r.token({"jwk": FOREIGN.public_jwk(), "kid": "mine"}, FOREIGN)),
    "kid of a path": ("key", lambda r: r.token({"kid": "../../dev/null"}, FOREIGN)),
    "kid of SQL": ("key", lambda r: r.token({"kid": "x' OR '1'='1"}, FOREIGN)),
    "kid, empty": ("key", lambda r: r.token({"kid": ""}, FOREIGN)),
    "kid, a number": ("malformed", lambda r: r.token({"kid": 1})),
    "kid, endless": ("malformed", lambda r: r.token({"kid": "k" * 600})),
    "kid absent, foreign key": ("signature", lambda r: r.token({"kid": None}, FOREIGN)),
    "typ of a logout token": ("type", lambda r: r.token({"typ": "logout+jwt"})),
    "typ of a DPoP proof": ("type", lambda r: r.token({"typ": "dpop+jwt"})),
    "typ, a number": ("type", lambda r: r.token({"typ": 1})),
    "alg twice": ("malformed", lambda r: raw(r, b'{"alg":"none","alg":"RS256","kid":"key-1"}')),
}  # fmt: skip

CLAIMS: dict[str, tuple[str, Make]] = {
    "another audience": ("audience", lambda r: r.token(aud="https://other.example.com")),
    "audience, a part": ("audience", lambda r: r.token(aud="https://push.example.co")),
    "audience, longer": ("audience", lambda r: r.token(aud="https://push.example.com/")),
    "audience, case": ("audience", lambda r: r.token(aud="https://PUSH.example.com")),
    "audience, none": ("audience", lambda r: r.token(aud=None)),
    "audience, empty list": ("audience", lambda r: r.token(aud=[])),
    "audience, mixed list": ("audience", lambda r: r.token(aud=["https://push.example.com", 1])),
    "audience, object": ("audience", lambda r: r.token(aud={"https://push.example.com": 1})),
    "another issuer": ("issuer", lambda r: r.token(iss="https://evil.example.com")),
    "issuer, a part": ("issuer", lambda r: r.token(iss=r.issuer.url[:-1])),
    "issuer, longer": ("issuer", lambda r: r.token(iss=r.issuer.url + ".evil.example.com")),
    "issuer, one letter": ("issuer", lambda r: r.token(iss="h")),
    "issuer, empty": ("issuer", lambda r: r.token(iss="")),
    "issuer, slash": ("issuer", lambda r: r.token(iss=r.issuer.url + "/")),
    "issuer, list": ("issuer", lambda r: r.token(iss=[r.issuer.url])),
    "issuer, none": ("issuer", lambda r: r.token(iss=None)),
    "expired": ("expired", lambda r: r.token(exp=int(r.clock.now()) - 60)),
    "no end": ("expired", lambda r: r.token(exp=None)),
    "end, a text": ("malformed", lambda r: r.token(exp="9999999999")),
    "end, true": ("malformed", lambda r: r.token(exp=True)),
    "end, null": ("malformed", lambda r: raw(r, HEADER, orjson.dumps(r.claims()).replace(b'"exp":18', b'"exp":null,"x":18'))),
    "end, infinite": ("malformed", lambda r: raw(r, HEADER, orjson.dumps(r.claims(exp=7)).replace(b'"exp":7', b'"exp":1e999'))),
    "end, NaN": ("malformed", lambda r: raw(r, HEADER, orjson.dumps(r.claims(exp=7)).replace(b'"exp":7', b'"exp":NaN'))),
    "end, enormous": ("malformed", lambda r: raw(r, HEADER, orjson.dumps(r.claims(exp=7)).replace(b'"exp":7', b'"exp":' + b"9" * 5000))),
    "end, larger than any float": ("malformed", lambda r: raw(r, HEADER, orjson.dumps(r.claims(exp=7)).replace(b'"exp":7', b'"exp":' + b"9" * 400))),
    "end, negative": ("malformed", lambda r: r.token(exp=-1)),
    "end twice": ("malformed", lambda r: raw(r, HEADER, orjson.dumps(r.claims()).replace(b"{", b'{"exp":1,', 1))),
    "not yet": ("not_yet", lambda r: r.token(nbf=int(r.clock.now()) + 61)),
    "issued in the future": ("not_yet", lambda r: r.token(iat=int(r.clock.now()) + 61)),
    "not before, a text": ("malformed", lambda r: r.token(nbf="0")),
    "an event": ("type", lambda r: r.token(events={})),
    "an ID token": ("type", lambda r: r.token(at_hash="x")),
    "no client": ("client", lambda r: r.token(client_id=None)),
    "client, a list": ("client", lambda r: r.token(client_id=["page"])),
    "no user": ("user", lambda r: r.token(sub=None)),
    "user, a number": ("user", lambda r: r.token(sub=7)),
    "user, empty": ("user", lambda r: r.token(sub="")),
    "user, endless": ("user", lambda r: r.token(sub="u" * 513)),
    "user, NUL": ("user", lambda r: r.token(sub="alice\x00")),
}  # fmt: skip

FORMS: dict[str, tuple[str, Make]] = {
    "empty": ("malformed", lambda r: ""),
    "a word": ("malformed", lambda r: "token"),
    "dots": ("malformed", lambda r: ".."),
    "two parts": ("malformed", lambda r: r.token().rpartition(".")[0]),
    "four parts": ("malformed", lambda r: r.token() + ".x"),
    "five parts (JWE)": ("malformed", lambda r: "a.b.c.d.e"),
    "no signature": ("malformed", lambda r: r.token().rpartition(".")[0] + "."),
    "signature cut": ("signature", lambda r: r.token()[:-6]),
    "signature changed": ("signature", lambda r: r.token()[:-8] + ("AAAA" if r.token()[-8:-4] != "AAAA" else "BBBB") + r.token()[-4:]),
    "signature of another token": ("signature", lambda r: r.token().rpartition(".")[0] + "." + r.token(sub="bob").rpartition(".")[2]),
    "another spelling of the signature": ("malformed", lambda r: respelt(r.token())),
    "padded": ("malformed", lambda r: r.token() + "=="),
    "base64, not base64url": ("malformed", lambda r: r.token().replace("-", "+").replace("_", "/") + "+"),
    "with a line break": ("malformed", lambda r: r.token().replace(".", ".\n", 1)),
    "NUL": ("malformed", lambda r: r.token() + "\x00"),
    "not ASCII": ("malformed", lambda r: r.token() + "é"),
    "header not JSON": ("malformed", lambda r: raw(r, b"RS256")),
    "header a list": ("malformed", lambda r: raw(r, b'["RS256"]')),
    "header not UTF-8": ("malformed", lambda r: raw(r, b'{"alg":"RS256","x":"\xff"}')),
    "claims not JSON": ("malformed", lambda r: raw(r, HEADER, b"<saml/>")),
    "claims a text": ("malformed", lambda r: raw(r, HEADER, b'"claims"')),
    "claims with more behind": ("malformed", lambda r: raw(r, HEADER, orjson.dumps(r.claims()) + b"{}")),
    "claims in UTF-16": ("malformed", lambda r: raw(r, HEADER, orjson.dumps(r.claims()).decode().encode("utf-16"))),
    "nested": ("malformed", lambda r: raw(r, HEADER, b"[" * 5000)),
    "oversized": ("too_large", lambda r: r.token(more="x" * 12_500)),
    "enormous": ("too_large", lambda r: "a" * 5_000_000),
}  # fmt: skip

ROWS = {
    f"{family}: {name}": row
    for family, rows in (("alg", ALGORITHMS), ("header", HEADERS), ("claims", CLAIMS), ("form", FORMS))
    for name, row in rows.items()
}


async def test_no_token_of_the_corpus_is_let_in_and_good_ones_are(rig: Rig) -> None:
    seen = {}
    for name, (_, make) in ROWS.items():
        seen[name] = await rig.refused(make(rig))
        if seen[name] == (503, "key"):
            rig.clock.advance(11)  # within ten seconds of a fetch an unknown id's key may be a new one
            seen[name] = await rig.refused(make(rig))
        assert (await rig.caller(rig.token(jti=name))).user == "alice", f"a good token was refused after {name}"
    assert seen == {name: (401, reason) for name, (reason, _) in ROWS.items()}
    assert len(ROWS) > 90


async def test_a_token_at_the_edge_of_its_time_is_good(rig: Rig) -> None:
    now = int(rig.clock.now())
    for times in (
        {"exp": now - 59},
        {"nbf": now + 60, "iat": now + 60},
        {"iat": None, "nbf": None},
        {"exp": now + 0.5},
    ):
        assert (await rig.caller(rig.token(**times))).user == "alice"  # type: ignore[arg-type]


async def test_what_a_good_token_may_look_like(rig: Rig) -> None:
    audience = rig.issuer.desk.audience
    for header, claims in (
        ({"typ": None}, {}),
        ({"typ": "at+jwt"}, {}),
        ({"typ": "application/AT+JWT"}, {}),
        ({"kid": None}, {}),  # one key only: there is no choice
        ({"jwk": FOREIGN.public_jwk(), "x5t": "abc"}, {}),  # passed over, and the signature is good
        ({}, {"aud": ["https://other.example.com", audience]}),
        ({}, {"more": "ü" * 2000}),
    ):
        assert (await rig.caller(rig.token(header, **claims))).user == "alice"  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"])  # fmt: skip
async def test_every_algorithm_that_can_be_configured(algorithm: str) -> None:
    async with rig_of(algorithm=algorithm) as rig:
        token = rig.token()
        assert (await rig.caller(token)).user == "alice"
        # Independent of our own parsing: the library's own door agrees that the token is good.
        public = rig.issuer.keys.current.private.public_key()
        assert (
            jwt.decode(
                token, public, [algorithm], options={"verify_aud": False, "verify_iat": False, "verify_nbf": False}
            )["sub"]
            == "alice"
        )
        signed, _, signature = token.rpartition(".")
        for wrong in (
            signature[:-6] + "AAAAAA",
            "",
            signature + signature,
            part(b"\x00" * 64),
            part(b"\x30\x06\x02\x01"),
        ):
            assert (await rig.refused(f"{signed}.{wrong}"))[1] in ("signature", "malformed")


async def test_no_algorithm_reaches_a_key_that_is_not_for_it() -> None:
    """The issuer has keys of all kinds under one id, and every algorithm is allowed: each token fits its own kind
    alone."""
    kinds = ["RS256", "ES256", "ES384", "EdDSA"]
    async with rig_of() as rig:
        settings = rig.issuer.settings()
        keys = [SigningKey.make("same", kind) for kind in kinds]
        rig.issuer.keys.published = keys
        rig.issuer.keys.current = keys[0]
        auth = rig.trusting(ServiceSettings(issuers=(IssuerSettings(**{**settings, "algorithms": tuple(kinds)}),)))
        rig.auth, mine = auth, rig.auth
        rig.others.append(mine)
        for key in keys:
            assert (await rig.caller(key.sign(rig.claims()))).user == "alice"
            for kind in ("RS384", "PS256", "ES512", "HS256"):
                assert await rig.refused(key.sign(rig.claims(), {"alg": kind})) == (401, "algorithm")
            for kind in kinds:
                if kind != key.algorithm:
                    assert await rig.refused(key.sign(rig.claims(), {"alg": kind})) == (401, "signature")


async def test_many_tokens_of_one_bad_caller_leave_no_trace_in_the_cache(rig: Rig) -> None:
    for number in range(50):
        await rig.refused(rig.token(key=FOREIGN, jti=str(number)))
    assert len(rig.auth._verified) == 0


async def test_the_library_gives_no_warning_about_what_it_is_given(rig: Rig) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (await rig.caller(rig.token())).app == "default"
