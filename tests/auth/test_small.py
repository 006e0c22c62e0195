"""Installations without an issuer: API keys, user tokens, and a service that is not protected at all."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from authrig import outcome, refusal

from fanout.config import ApiKeySettings, ServiceSettings, UserKeySettings
from fanout.core.secret import Secret
from fanout.errors import UsageError
from fanout.service.auth import SCOPE, Authenticator, AuthError, Caller, new_api_key, new_user_key, user_token
from fanout.service.auth.loopback import LoopbackCallers
from fanout.service.edge import Edge, read_request
from fanout.service.request import Request
from fanout.testing import VirtualClock

pytestmark = pytest.mark.anyio

KEY = new_api_key()
USER_KEY = new_user_key()
CLOCK = VirtualClock()
SETTINGS = ServiceSettings(
    keys=(ApiKeySettings(id=KEY.id, hash=KEY.hash, app="shop"),),
    user_keys=(UserKeySettings(id=USER_KEY.id, secret=USER_KEY.secret, app="shop"),),
)
AUTH = Authenticator(SETTINGS, CLOCK, apps=("default", "shop"))


def token(app: str = "shop", user: str = "alice", ttl: float = 900.0, now: float | None = None) -> str:
    return user_token(USER_KEY.secret, app, user, ttl, now=CLOCK.now() if now is None else now)


def forged(payload: Any, secret: Secret = USER_KEY.secret, id: str = USER_KEY.id) -> str:
    """A user token made by hand, as a program in another language makes it."""
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    signed = f"fut_{id}.{base64.urlsafe_b64encode(data).rstrip(b'=').decode()}"
    mac = hmac.new(secret.reveal().encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def claims(**more: Any) -> dict[str, Any]:
    now = int(CLOCK.now())
    return {"app": "shop", "user": "alice", "iat": now, "exp": now + 900, **more}


async def test_a_key_acts_as_its_app() -> None:
    assert await outcome(AUTH, KEY.key.reveal()) == Caller("shop", None, KEY.id, frozenset(), "key")


def test_a_key_is_256_bits_and_found_by_its_id() -> None:
    made = [new_api_key() for _ in range(100)]
    assert len({key.id for key in made}) == len({key.key.reveal() for key in made}) == 100
    for key in made:
        prefix, id, secret = key.key.reveal().split("_", 2)
        assert (prefix, id) == ("fak", key.id)
        assert len(base64.urlsafe_b64decode(secret + "=")) == 32
        assert key.hash == "sha256:" + hashlib.sha256(key.key.reveal().encode()).hexdigest()
        assert secret not in repr(key)
        assert secret not in repr(ApiKeySettings(id=key.id, hash=key.hash))


WRONG_KEYS = [
    "fak_",
    "fak_" + KEY.id,
    KEY.key.reveal()[:-1],
    KEY.key.reveal() + "x",
    KEY.key.reveal()[:-1] + ("A" if KEY.key.reveal()[-1] != "A" else "B"),
    KEY.key.reveal().upper(),
    "fak_" + new_api_key().id + KEY.key.reveal()[16:],
    new_api_key().key.reveal(),
    KEY.hash,
    "fak_" + KEY.id + "_" + KEY.hash[7:50],
    KEY.key.reveal() + "é",
    "fak_" + "x" * 1_000_000,
]


@pytest.mark.parametrize("wrong", WRONG_KEYS, ids=map(str, range(len(WRONG_KEYS))))
async def test_no_other_key_is_let_in(wrong: str) -> None:
    assert refusal(await outcome(AUTH, wrong)) in ((401, "key"), (401, "malformed"))


async def test_a_blocked_key() -> None:
    auth = Authenticator(ServiceSettings(keys=SETTINGS.keys, blocked=(KEY.id,)), CLOCK)
    assert refusal(await outcome(auth, KEY.key.reveal())) == (403, "blocked")


# -- user tokens


async def test_a_user_token_acts_for_its_user() -> None:
    caller = Caller("shop", "alice", USER_KEY.id, frozenset({SCOPE}), "delegated")
    assert await outcome(AUTH, token()) == caller
    assert await outcome(AUTH, forged(claims())) == caller
    assert (await AUTH.authenticate({"authorization": f"Bearer {token(user='Åse 🎈')}"})).user == "Åse 🎈"


async def test_a_user_token_lasts_as_long_as_it_says() -> None:
    clock = VirtualClock()
    auth = Authenticator(SETTINGS, clock)
    one = token(ttl=600, now=clock.now())
    clock.advance(659)
    assert isinstance(await outcome(auth, one), Caller)
    clock.advance(1)
    assert refusal(await outcome(auth, one)) == (401, "expired")


_BODY, _, _MAC = token().rpartition(".")
WRONG_TOKENS = [
    (token(app="default"), "app"),
    (forged(claims(app="default")), "app"),
    (forged(claims(), new_user_key().secret), "signature"),
    (forged(claims(), id=new_user_key().id), "signature"),
    (forged(claims(), Secret(KEY.hash)), "signature"),
    (f"{_BODY}.{'B' if _MAC[0] == 'A' else 'A'}{_MAC[1:]}", "signature"),
    (token().replace(".", "", 1), "signature"),
    (token() + ".x", "signature"),
    (token().rpartition(".")[0] + ".", "signature"),
    ("fut_", "signature"),
    (forged(b"[]"), "signature"),
    (forged(b"not JSON"), "signature"),
    (forged(b"\xff"), "signature"),
    (forged(b"[" * 3000), "signature"),
    (forged({"app": "shop", "user": "alice"}), "signature"),
    (forged(claims(user=7)), "signature"),
    (forged(claims(user=None)), "signature"),
    (forged(claims(user="")), "signature"),
    (forged(claims(user="a\x00")), "signature"),
    (forged(claims(user="u" * 513)), "signature"),
    (forged(claims(exp=True)), "signature"),
    (forged(claims(exp="9999999999")), "signature"),
    (forged(claims(exp=1e12)), "signature"),
    (forged(claims(exp=int(CLOCK.now()) + 90_000)), "not_yet"),
    (forged(claims(iat=int(CLOCK.now()) + 100)), "not_yet"),
    (forged(claims(iat=1, exp=100)), "expired"),
    (forged(claims(exp=10**40)), "not_yet"),
    (forged(claims(exp=10**400)), "not_yet"),
    (forged(claims(iat=10**400)), "not_yet"),
    (forged(claims(iat=-(10**400))), "not_yet"),
]


@pytest.mark.parametrize(("wrong", "reason"), WRONG_TOKENS, ids=map(str, range(len(WRONG_TOKENS))))
async def test_no_other_user_token_is_let_in(wrong: str, reason: str) -> None:
    assert refusal(await outcome(AUTH, wrong)) == (401, reason)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("short", "shop", "alice", 900), "fanout keys api --kind signer"),
        ((KEY.key, "shop", "alice", 900), "fanout keys api --kind signer"),
        ((USER_KEY.secret, "", "alice", 900), "one app"),
        ((USER_KEY.secret, "shop", "", 900), "one user"),
        ((USER_KEY.secret, "shop", "u" * 513, 900), "512"),
        ((USER_KEY.secret, "shop", "alice", 0), "ttl is 0"),
        ((USER_KEY.secret, "shop", "alice", 86_401), "86400"),
        ((USER_KEY.secret, "shop", "alice", float("nan")), "ttl is nan"),
    ],
    ids=map(str, range(8)),
)
def test_what_cannot_be_signed(arguments: tuple[Any, ...], word: str) -> None:
    with pytest.raises(UsageError, match=word) as caught:
        user_token(*arguments)
    assert USER_KEY.secret.reveal() not in str(caught.value)


# -- on one machine, where the host said `unprotected=True`


HERE = {"host": "127.0.0.1:8080"}


def asked(headers: dict[str, str], direct: str = "127.0.0.1", version: str = "1.1") -> Request:
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {"method": "GET", "path": "/", "headers": [(b"host", b"x"), *pairs] if "host" not in headers else pairs}
    found = read_request({**scope, "scheme": "http", "client": (direct, 1)}, Edge.of(ServiceSettings()))
    return replace(found, version=version)


@pytest.mark.parametrize(
    ("headers", "caller"),
    [
        (HERE, Caller("default", None, "unprotected", frozenset(), "app")),
        ({"host": "localhost"}, Caller("default", None, "unprotected", frozenset(), "app")),
        ({"host": "[::1]:8080"}, Caller("default", None, "unprotected", frozenset(), "app")),
        ({**HERE, "X-Fanout-App": "shop"}, Caller("shop", None, "unprotected", frozenset(), "app")),
        ({**HERE, "X-Fanout-User": "alice"}, Caller("default", "alice", "unprotected", frozenset({SCOPE}), "delegated")),
        ({**HERE, "origin": "http://127.0.0.1:8080"}, Caller("default", None, "unprotected", frozenset(), "app")),
    ],
)  # fmt: skip
async def test_an_unprotected_service_believes_its_own_machine(headers: dict[str, str], caller: Caller) -> None:
    auth = LoopbackCallers(("default", "shop"))
    for direct in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"):
        assert await auth.authenticate(asked(headers, direct)) == caller


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"host": "push.example.com"}, "unprotected"),
        ({"host": "rebound.example.com:8080"}, "unprotected"),
        ({"host": "127.0.0.1.example.com"}, "unprotected"),
        ({"host": "0.0.0.0:8080"}, "unprotected"),
        ({"host": "10.0.0.1"}, "unprotected"),
        *(({**HERE, name: "1.2.3.4"}, "unprotected") for name in ("x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-proto", "cf-connecting-ip", "true-client-ip", "x-envoy-external-address", "x-amzn-trace-id")),
        ({**HERE, "origin": "https://evil.example.com"}, "origin"),
        ({**HERE, "origin": "http://127.0.0.1:9090"}, "origin"),
        ({**HERE, "origin": "null"}, "origin"),
        ({**HERE, "origin": "http://[::1"}, "origin"),
        ({**HERE, "x-fanout-app": "nobody"}, "app"),
        ({**HERE, "x-fanout-user": ""}, "user"),
        ({**HERE, "x-fanout-user": "u" * 513}, "user"),
    ],
)  # fmt: skip
async def test_an_unprotected_service_serves_nobody_else(headers: dict[str, str], reason: str) -> None:
    with pytest.raises(AuthError) as caught:
        await LoopbackCallers(("default", "shop")).authenticate(asked(headers))
    assert (caught.value.status, caught.value.reason) == (403, reason)


@pytest.mark.parametrize(("direct", "version"), [("10.0.0.1", "1.1"), ("::ffff:10.0.0.1", "1.1"), ("", "1.1"), ("127.0.0.1", "1.0")])  # fmt: skip
async def test_an_unprotected_service_looks_at_the_connection_and_not_at_host(direct: str, version: str) -> None:
    """nginx's bare `proxy_pass` rewrites Host, adds no mark, and speaks HTTP/1.0."""
    with pytest.raises(AuthError, match="fanout keys api"):
        await LoopbackCallers(("default",)).authenticate(asked(HERE, direct, version))


async def test_without_callers_an_authenticator_knows_nobody() -> None:
    auth = Authenticator(ServiceSettings(), CLOCK)
    for headers in (HERE, {**HERE, "x-fanout-app": "shop"}, {**HERE, "authorization": f"Bearer {KEY.key.reveal()}"}):
        with pytest.raises(AuthError) as caught:
            await auth.authenticate(headers)
        assert caught.value.status == 401


async def test_a_protected_service_does_not_believe_these_headers() -> None:
    for headers in ({**HERE, "x-fanout-app": "shop"}, {**HERE, "x-fanout-user": "alice"}):
        with pytest.raises(AuthError) as caught:
            await AUTH.authenticate(headers)
        assert (caught.value.status, caught.value.reason) == (401, "missing")
