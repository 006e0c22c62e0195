"""What a good token allows: whose it is, for which app, and what is a user's and what the app's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from authrig import Rig, outcome, refusal, rig_of, settings_of

from fanout.config import IssuerSettings, ServiceSettings
from fanout.errors import UsageError
from fanout.service.auth import SCOPE, AuthError, Caller
from fanout.service.auth.claims import check_claims, decide_caller
from fanout.service.auth.issuer import discovery_url
from fanout.service.auth.keyset import parse_key_set
from fanout.testing.issuer import Client

pytestmark = pytest.mark.anyio

OURS = IssuerSettings(issuer="https://login.example.com/", audience="us", apps={"c": "shop", "other": "news"})
SUB = IssuerSettings(
    issuer="https://login.example.com/", audience="us", apps={"c": "shop", "other": "news"}, app_tokens="sub"
)
ENTRA = IssuerSettings(issuer="https://login.example.com/", audience="us", apps={"c": "shop"}, user_claim="oid")


def app(scopes: str = "") -> Caller:
    return Caller("shop", None, "c", frozenset(scopes.split()), "app")


def user(name: str, scopes: str = SCOPE) -> Caller:
    return Caller("shop", name, "c", frozenset(scopes.split()), "delegated")


# What the issuers of the world put into their tokens, as their documentation and captured tokens have it.
TOKENS: dict[str, tuple[IssuerSettings, dict[str, Any], Caller | tuple[int, str]]] = {
    "Entra v1, app": (replace(ENTRA, app_tokens="sub"), {"appid": "c", "oid": "sp", "sub": "sp", "roles": ["x"]}, app()),
    "Entra v2, app": (ENTRA, {"azp": "c", "oid": "sp", "sub": "sp", "idtyp": "app"}, app()),
    "Entra v2, app without idtyp": (ENTRA, {"azp": "c", "oid": "sp", "sub": "sp"}, (403, "scope")),
    "Entra v1, user": (ENTRA, {"appid": "c", "oid": "alice", "sub": "p", "scp": f"User.Read {SCOPE}"}, user("alice", f"User.Read {SCOPE}")),
    "Entra v2, user": (ENTRA, {"azp": "c", "oid": "alice", "sub": "p", "scp": SCOPE, "idtyp": "user"}, user("alice")),
    "Entra v2, user without the scope": (ENTRA, {"azp": "c", "oid": "alice", "sub": "p", "scp": "User.Read"}, (403, "scope")),
    "Entra, ID token": (ENTRA, {"azp": "c", "oid": "alice", "sub": "p", "nonce": "n"}, (403, "scope")),
    "Entra, a device": (ENTRA, {"azp": "c", "oid": "d", "sub": "d", "idtyp": "device"}, (401, "type")),
    "RFC 9068, app": (SUB, {"client_id": "c", "sub": "c"}, app()),
    "RFC 9068, user": (OURS, {"client_id": "c", "sub": "alice", "scope": SCOPE}, user("alice")),
    "Auth0, app": (OURS, {"azp": "c", "sub": "c@clients", "gty": "client-credentials", "scope": "send:all"}, app("send:all")),
    "Auth0, user": (OURS, {"azp": "c", "sub": "auth0|alice", "scope": f"openid {SCOPE}"}, user("auth0|alice", f"openid {SCOPE}")),
    "Okta, app": (IssuerSettings(issuer="https://x.example", audience="us", apps={"c": "shop"}, app_claim="cid", app_tokens="sub"),
                  {"cid": "c", "sub": "c", "scp": [SCOPE]}, app(SCOPE)),
    "Okta, user": (IssuerSettings(issuer="https://x.example", audience="us", apps={"c": "shop"}, app_claim="cid"),
                   {"cid": "c", "sub": "alice@example.com", "uid": "0", "scp": ["openid", SCOPE]}, user("alice@example.com", f"openid {SCOPE}")),
    "Cognito, app": (SUB, {"client_id": "c", "sub": "c", "scope": "push/send", "token_use": "access"}, app("push/send")),
    "Keycloak, service account": (OURS, {"azp": "c", "sub": "3f0b", "scope": "email profile"}, (403, "scope")),
    "Keycloak, service account with the mapper": (OURS, {"azp": "c", "sub": "3f0b", "scope": "email", "idtyp": "app"}, app("email")),
    "nothing but a client": (SUB, {"client_id": "c"}, app()),
    "a user and no scope": (OURS, {"client_id": "c", "sub": "alice"}, (403, "scope")),
    "an empty scope": (OURS, {"client_id": "c", "sub": "alice", "scope": ""}, (403, "scope")),
    "a scope that is like it": (OURS, {"client_id": "c", "sub": "alice", "scope": SCOPE.lower() + f" x{SCOPE}"}, (403, "scope")),
    "a scope that is no text": (OURS, {"client_id": "c", "sub": "alice", "scope": {SCOPE: 1}}, (403, "scope")),
    "the scope as a tab-separated text": (OURS, {"client_id": "c", "sub": "alice", "scope": f"a\t{SCOPE}"}, (403, "scope")),
    "no subject, but a user": (ENTRA, {"azp": "c", "oid": "alice"}, (403, "scope")),
    "a user whose sub is her oid, without the scope": (ENTRA, {"azp": "c", "oid": "alice", "sub": "alice", "scp": "User.Read"}, (403, "scope")),
    "scopes and no subject": (OURS, {"client_id": "c", "scope": "User.Read"}, (403, "scope")),
    "a user who calls himself a client": (OURS, {"client_id": "c", "sub": "other", "scope": SCOPE}, user("other")),
    "an unknown client": (OURS, {"client_id": "stranger", "sub": "stranger"}, (403, "client")),
    "azp before client_id": (SUB, {"azp": "other", "client_id": "c", "sub": "other"}, Caller("news", None, "other", frozenset(), "app")),
    "the prefix": (IssuerSettings(issuer="https://x.example", audience="us", apps={"c": "shop"}, user_prefix="b:"),
                   {"azp": "c", "sub": "alice", "scope": SCOPE}, user("b:alice")),
    "another scope's name": (IssuerSettings(issuer="https://x.example", audience="us", apps={"c": "shop"}, scopes=("push", "notify")),
                             {"azp": "c", "sub": "alice", "scope": "notify"}, user("alice", "notify")),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENS)
def test_whose_a_token_is(name: str) -> None:
    settings, claims, expected = TOKENS[name]
    found: Caller | AuthError
    try:
        found = decide_caller(claims, settings)
    except AuthError as error:
        found = error
    if isinstance(expected, Caller):
        assert found == expected
    else:
        assert refusal(found) == expected


# A user who is named like the client, and other tokens without a mark, at each issuer: never the app's, unless its
# table says so.
NAMESAKES: dict[str, dict[str, Any]] = {
    "Entra v1": {"appid": "c", "oid": "c", "sub": "c"},
    "Entra v2": {"azp": "c", "oid": "c", "sub": "c"},
    "Auth0": {"azp": "c", "sub": "c@clients"},
    "Keycloak": {"azp": "c", "sub": "c", "preferred_username": "c"},
    "RFC 9068": {"client_id": "c", "sub": "c"},
}
SCOPES: dict[str, dict[str, Any]] = {
    "the delegated scope": {"scope": f"openid {SCOPE}"},
    "the delegated scope as scp": {"scp": [SCOPE]},
    "other scopes": {"scope": "openid profile"},
    "an empty scope": {"scope": ""},
    "no scope": {},
}


@pytest.mark.parametrize("scopes", SCOPES)
@pytest.mark.parametrize("issuer", NAMESAKES)
def test_a_user_named_like_the_client_is_a_user(issuer: str, scopes: str) -> None:
    claims = {**NAMESAKES[issuer], **SCOPES[scopes]}
    if "delegated" in scopes:
        found = decide_caller(claims, OURS)
        assert (found.kind, found.user) == ("delegated", claims["sub"])
    else:
        with pytest.raises(AuthError) as caught:
            decide_caller(claims, OURS)
        assert (caught.value.status, caught.value.reason) == (403, "scope")
    for mark in ({"idtyp": "app"}, {"gty": "client-credentials"}):
        assert decide_caller({**claims, **mark}, OURS).kind == "app", "a client-credentials token with whatever scope"
    assert decide_caller(claims, SUB).kind == "app"


def test_nobody_becomes_the_app_by_leaving_claims_out() -> None:
    for claims in ({"client_id": "c"}, {"client_id": "c", "oid": "x", "sub": "x"}, {"client_id": "c", "sub": None}):
        with pytest.raises(AuthError):
            decide_caller(claims, OURS)


A, B = "11111111-2222-4333-8444-555555555555", "66666666-7777-4888-8999-000000000000"
TEMPLATE = "https://login.microsoftonline.com/{tenantid}/v2.0"


def tenants(which: Any = (A,), **more: Any) -> IssuerSettings:
    found = {"issuer": TEMPLATE, "audience": "us", "apps": {"c": "shop"}, "user_claim": "oid", "tenants": which, **more}
    return IssuerSettings(**found)


@pytest.mark.parametrize(
    ("which", "iss", "tid", "good"),
    [
        ((A,), A, A, True),
        ((A, B), B, B, True),
        ("any", B, B, True),
        ((A,), B, B, False),
        ((A,), A, B, False),
        ((A,), B, A, False),
        ("any", A, B, False),
        ("any", "common", "common", False),
        ("any", "{tenantid}", "{tenantid}", False),
        ("any", A, None, False),
        ("any", A, [A], False),
        ("any", f"{A}/x", f"{A}/x", False),
        ("any", A.upper(), A.upper(), False) if A.upper() != A else ("any", "", "", False),
    ],
)
def test_the_tenants_of_entra(which: Any, iss: str, tid: Any, good: bool) -> None:
    claims = {"iss": TEMPLATE.replace("{tenantid}", iss), "tid": tid, "aud": "us", "exp": 100}
    if good:
        check_claims(claims, tenants(which), 50.0)
    else:
        with pytest.raises(AuthError) as caught:
            check_claims(claims, tenants(which), 50.0)
        assert (caught.value.status, caught.value.reason) == (401, "issuer")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"issuer": "https://login.microsoftonline.com/common/v2.0", "tenants": ()}, "stands in no token"),
        ({"issuer": "https://login.microsoftonline.com/Organizations/v2.0", "tenants": ()}, "stands in no token"),
        ({"issuer": "https://sts.windows.net/common/", "tenants": ()}, "stands in no token"),
        ({"issuer": "https://login.microsoftonline.com/{tenant}/v2.0"}, "template"),
        ({"issuer": "https://login.example.com/{tenantid}/{tenantid}"}, "template"),
        ({"which": ()}, "tenants"),
        ({"which": ("contoso.onmicrosoft.com",)}, "tenants"),
        ({"which": "all"}, "tenants"),
        ({"issuer": f"https://login.microsoftonline.com/{A}/v2.0"}, "take it out"),
        ({"user_claim": "email"}, "administrator"),
        ({"user_claim": "preferred_username"}, "administrator"),
    ],
)
def test_an_issuer_that_could_match_nobody_is_refused(more: dict[str, Any], word: str) -> None:
    which = more.pop("which", more.pop("tenants", (A,)))
    with pytest.raises(UsageError, match=word):
        tenants(which, **more)


async def test_a_shared_key_set_has_keys_of_single_tenants(rig: Rig) -> None:
    name = rig.issuer.url + "{tenantid}/v2.0" if rig.issuer.url.endswith("/") else rig.issuer.url + "/{tenantid}/v2.0"
    keys = f"{rig.issuer.url.rstrip('/')}/keys"
    auth = rig.trusting(
        ServiceSettings(issuers=(replace(settings_of(rig.issuer), issuer=name, tenants="any", jwks_uri=keys),))
    )

    def token(iss: str, tid: str) -> str:
        return rig.token(iss=name.replace("{tenantid}", iss), tid=tid)

    for tenant in (A, B):
        found = await outcome(auth, token(tenant, tenant))
        assert isinstance(found, Caller), found
    assert refusal(await outcome(auth, token(A, B))) == (401, "issuer")
    body = orjson.dumps({"keys": [{**rig.issuer.keys.current.public_jwk(), "issuer": name.replace("{tenantid}", A)}]})
    found_keys = parse_key_set(body, ["RS256"])
    assert len(found_keys.of(name.replace("{tenantid}", A), A).keys) == 1
    assert found_keys.of(name.replace("{tenantid}", B), B).keys == ()
    shared = parse_key_set(body.replace(A.encode(), b"{tenantid}"), ["RS256"])
    assert len(shared.of(name.replace("{tenantid}", B), B).keys) == 1


def test_entras_document_for_all_tenants() -> None:
    assert discovery_url(TEMPLATE) == "https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration"


@pytest.mark.parametrize("style", ["rfc9068", "entra-v1", "entra-v2"])
async def test_the_loopback_issuers_tokens_in_every_style(style: str) -> None:
    async with rig_of(style=style) as rig:
        own = await rig.caller(rig.issuer.app_token("shop"))
        assert (own.kind, own.app, own.user, own.client_id, own.is_app) == ("app", "default", None, "shop", True)
        delegated = await rig.caller(rig.issuer.sign_in("alice"))
        assert (delegated.kind, delegated.user) == ("delegated", rig.issuer.user_id("alice"))
        assert (delegated.client_id, delegated.scopes, delegated.is_app) == ("page", {SCOPE}, False)
        assert await rig.refused(rig.issuer.sign_in("alice", scopes=["User.Read"])) == (403, "scope")


async def test_row_4_without_the_scope_the_answer_is_403_and_names_it(rig: Rig) -> None:
    found = await outcome(rig.auth, rig.issuer.sign_in("alice", scopes=["User.Read"]))
    assert isinstance(found, AuthError)
    assert found.status == 403
    assert found.headers["WWW-Authenticate"].startswith('Bearer error="insufficient_scope"')
    assert f'scope="{SCOPE}"' in found.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("headers", "reason", "challenge"),
    [
        ({}, "missing", "Bearer"),
        ({"authorization": ""}, "missing", "Bearer"),
        ({"authorization": "Basic YTpi"}, "missing", "Bearer"),
        ({"authorization": "Bearer"}, "malformed", 'Bearer error="invalid_token"'),
        ({"authorization": "Bearer a b"}, "malformed", 'Bearer error="invalid_token"'),
        ([(b"authorization", b"Bearer x"), (b"Authorization", b"Bearer x")], "malformed", 'Bearer error="invalid_token"'),
        ([(b"authorization", b"Bearer \xff\xfe")], "malformed", 'Bearer error="invalid_token"'),
        ({"x-authorization": "Bearer x"}, "missing", "Bearer"),
    ],
)  # fmt: skip
async def test_row_5_a_missing_or_invalid_credential_is_401_with_a_challenge(
    rig: Rig, headers: Any, reason: str, challenge: str
) -> None:
    with pytest.raises(AuthError) as caught:
        await rig.auth.authenticate(headers)
    assert (caught.value.status, caught.value.reason) == (401, reason)
    assert caught.value.headers["WWW-Authenticate"].startswith(challenge)
    assert caught.value.headers["WWW-Authenticate"].isascii()


async def test_two_credentials_are_none(rig: Rig) -> None:
    good = f"Bearer {rig.token()}".encode()
    for other in (good, b"Bearer x", b""):
        for pair in ((good, other), (other, good)):
            with pytest.raises(AuthError) as caught:
                await rig.auth.authenticate([(b"authorization", value) for value in pair])
            assert (caught.value.status, caught.value.reason) == (401, "malformed")


async def test_the_header_as_it_comes(rig: Rig) -> None:
    token = rig.token()
    for headers in (
        {"authorization": f"Bearer {token}"},
        {"AUTHORIZATION": f"bearer   {token} "},
        [(b"host", b"x"), (b"authorization", f"BEARER {token}".encode())],
    ):
        assert (await rig.auth.authenticate(headers)).user == "alice"  # type: ignore[arg-type]


async def test_row_8_who_is_blocked_is_refused_whatever_the_credential(rig: Rig) -> None:
    for blocked in ("page", "default"):
        auth = rig.trusting(ServiceSettings(issuers=(settings_of(rig.issuer),), blocked=(blocked,)))
        for _ in range(2):
            assert refusal(await outcome(auth, rig.token())) == (403, "blocked")
    assert (await rig.caller(rig.token())).user == "alice"


def test_claims_are_held_against_the_issuer_that_they_are_checked_for() -> None:
    claims = {"iss": OURS.issuer, "aud": "us", "exp": 100}
    check_claims(claims, OURS, now=0.0)
    for iss in ("https://login.example.com", "", None, [OURS.issuer]):
        with pytest.raises(AuthError) as caught:
            check_claims({**claims, "iss": iss}, OURS, now=0.0)
        assert caught.value.reason == "issuer"


async def test_apps_come_from_the_client_and_never_from_the_caller() -> None:
    async with rig_of(clients=(Client("a", "s"), Client("b", "t"))) as rig:
        auth = rig.trusting(ServiceSettings(issuers=(settings_of(rig.issuer, apps={"a": "default", "b": "shop"}),)))
        for client, name in (("a", "default"), ("b", "shop")):
            found = await outcome(auth, rig.issuer.app_token(client))
            assert isinstance(found, Caller)
            assert found.app == name
        stranger = rig.token(client_id="c", app="default")
        assert refusal(await outcome(auth, stranger)) == (403, "client")


async def test_all_reasons_have_sentences_that_a_header_can_carry(rig: Rig) -> None:
    for token in (rig.token(exp=1), rig.token(aud="x"), rig.token({"alg": "none"}), rig.token(client_id="x"), "x"):
        found = await outcome(rig.auth, token)
        assert isinstance(found, AuthError)
        text = str(found)
        assert text.endswith(".")
        assert text.isascii()
        assert not set(text) & set('"\\\r\n')
