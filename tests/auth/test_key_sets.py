"""Which key sets are asked for, and which keys of a set are used."""

from __future__ import annotations

import base64
from pathlib import Path

import orjson
import pytest
from authrig import Rig, outcome, refusal, rig_of, settings_of

from fanout.config import IssuerSettings, ServiceSettings
from fanout.config.service_table import service_settings
from fanout.errors import ConfigurationError
from fanout.service.auth import Caller
from fanout.service.auth.keyset import KeySetUnusable, parse_key_set, verify
from fanout.testing.issuer import Fault, SigningKey
from fanout.testing.simulator import Authority

pytestmark = pytest.mark.anyio


# -- discovery


async def test_the_issuer_in_the_discovery_document_must_be_the_configured_one(rig: Rig) -> None:
    for lie in ("https://evil.example.com", rig.issuer.url + "/", rig.issuer.url.upper(), ""):
        rig.issuer.stated_issuer = lie or None
        rig.issuer.faults["discovery"] = Fault(body=b"{}") if not lie else Fault()
        assert await rig.refused(rig.token()) == (503, "keys")
        rig.clock.advance(60)
    assert not rig.issuer.requests["keys"]
    assert "exactly" in next(iter(rig.auth.problems().values()))


@pytest.mark.parametrize(
    "url", ["http://keys.example.com/", "http://10.0.0.1/keys", "file:///etc/passwd", "ftp://x/", "/keys", "", 5, None]
)
async def test_a_key_set_is_not_fetched_from_anywhere(rig: Rig, url: object) -> None:
    body = orjson.dumps({"issuer": rig.issuer.url, "jwks_uri": url})
    rig.issuer.faults["discovery"] = Fault(body=body)
    assert await rig.refused(rig.token()) == (503, "keys")
    assert "jwks_uri" in next(iter(rig.auth.problems().values()))


async def test_an_issuer_over_https_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    async with rig_of(authority=Authority(tmp_path)) as rig:
        assert rig.issuer.url.startswith("https://localhost:")
        assert (await rig.caller(rig.token())).user == "alice"
        mistrusting = rig.trusting(ServiceSettings(issuers=(settings_of(rig.issuer, ca_file=None),)))
        assert refusal(await outcome(mistrusting, rig.token())) == (503, "keys")
        assert "tls" in next(iter(mistrusting.problems().values()))
        # And from an https issuer no key set over http, even on loopback.
        body = orjson.dumps({"issuer": rig.issuer.url, "jwks_uri": "http://127.0.0.1:1/keys"})
        rig.issuer.faults["discovery"] = Fault(body=body)
        assert "over http" in (await rig.auth.refresh())[rig.issuer.url]


async def test_a_configured_key_set_needs_no_discovery(rig: Rig) -> None:
    auth = rig.trusting(ServiceSettings(issuers=(settings_of(rig.issuer, jwks_uri=f"{rig.issuer.url}/keys"),)))
    assert isinstance(await outcome(auth, rig.token()), Caller)
    assert rig.issuer.requests == {"keys": 1}


async def test_two_issuers_do_not_vouch_for_one_another(rig: Rig) -> None:
    async with rig_of(key=SigningKey.make("key-1")) as other:
        both = rig.trusting(ServiceSettings(issuers=(settings_of(rig.issuer), settings_of(other.issuer))))
        assert isinstance(await outcome(both, rig.token()), Caller)
        assert isinstance(await outcome(both, other.token()), Caller)
        assert refusal(await outcome(both, rig.token(key=other.issuer.keys.current))) == (401, "signature")
        assert refusal(await outcome(both, other.token(iss=rig.issuer.url))) == (401, "signature")


async def test_a_ca_file_that_is_none_is_refused_when_the_service_starts(rig: Rig, tmp_path: Path) -> None:
    for name in ("absent.pem", "empty.pem"):
        (tmp_path / "empty.pem").write_text("")
        with pytest.raises(ConfigurationError, match=name):
            rig.trusting(ServiceSettings(issuers=(settings_of(rig.issuer, ca_file=tmp_path / name),)))


# -- what of a key set is used


def use(*keys: dict[str, object], algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")) -> list[str | None]:
    return [key.kid for key in parse_key_set(orjson.dumps({"keys": keys}), algorithms).keys]


def test_only_public_keys_for_signatures_of_the_configured_algorithms_are_used() -> None:
    good = SigningKey.make("good").public_jwk()
    curve = SigningKey.make("curve", "ES256").public_jwk()
    passed_over: list[dict[str, object]] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "secret", "alg": "HS256"},
        {**good, "use": "enc"},
        {**good, "key_ops": ["encrypt"]},
        {**good, "key_ops": "verify"},
        {**good, "alg": "RS512"},
        {**good, "alg": "HS256"},
        {**good, "kid": 7},
        {**good, "n": ""},
        {**good, "n": "AQAB"},
        {**good, "e": None},
        {**good, "e": "AQ"},
        {**good, "e": "-"},
        {**good, "n": good["n"] * 5},
        {**good, "kty": ["RSA"]},
        {**curve, "crv": "P-384"},
        {**curve, "x": curve["y"]},
        {**curve, "crv": "secp256k1"},
        SigningKey.make("other curve", "ES384").public_jwk(),
        SigningKey.make("weak", bits=1024).public_jwk(),
    ]
    assert use(*passed_over, good, curve) == ["good", "curve"]
    for one in passed_over:
        with pytest.raises(KeySetUnusable):
            use(one)
    assert use({name: value for name, value in good.items() if name in ("kty", "n", "e")}) == [None]


def test_the_private_half_in_a_key_set_is_not_used() -> None:
    public = SigningKey.make("mine").public_jwk()
    (key,) = parse_key_set(orjson.dumps({"keys": [{**public, "d": "AQAB", "p": "AQ"}]}), ("RS256",)).keys
    assert not hasattr(key.public, "sign")


def test_a_key_is_never_tried_with_an_algorithm_of_another_kind() -> None:
    made = [SigningKey.make(kind, kind) for kind in ("RS256", "ES256", "EdDSA")]
    keys = parse_key_set(orjson.dumps({"keys": [key.public_jwk() for key in made]}), ("RS256", "ES256", "EdDSA")).keys
    for key in made:
        signed, _, signature = key.sign(b"{}").rpartition(".")
        proof = base64.urlsafe_b64decode(signature + "==")
        found = [verify(keys, kind, signed.encode(), proof) for kind in ("RS256", "ES256", "EdDSA")]
        assert [one.kid for one in found if one is not None] == [key.kid]


def test_a_key_set_of_thousands_is_refused() -> None:
    good = SigningKey.make("good").public_jwk()
    with pytest.raises(KeySetUnusable, match="64"):
        use(*[good] * 65)


def test_settings_refuse_algorithms_with_a_shared_secret() -> None:
    for algorithm in ("HS256", "none", "RS257"):
        table = {"issuer": "https://x.example", "audience": "a", "apps": {"c": "default"}, "algorithms": [algorithm]}
        with pytest.raises(ConfigurationError, match="algorithms"):
            service_settings({"issuers": [table]}, folder=Path(), environ={}, apps=("default",))
    assert IssuerSettings(issuer="https://x.example", audience="a", apps={"c": "default"}).algorithms == ("RS256",)
