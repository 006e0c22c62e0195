"""The caller's side of both flows, against the loopback issuer, and the tokens that it gets against the service."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from authrig import Rig, rig_of

from fanout.client import (
    BearerSource,
    ClientCredentials,
    OnBehalfOf,
    SignInNeeded,
    TokenError,
    TokenRefused,
    TokenUnavailable,
)
from fanout.client.token_endpoint import read_answer
from fanout.errors import UsageError
from fanout.service.auth import SCOPE
from fanout.testing.issuer import Client, Fault
from fanout.testing.simulator import Authority

pytestmark = pytest.mark.anyio


def credentials(rig: Rig, secret: str = "shop-secret", **more: Any) -> ClientCredentials:
    more = {"scope": f"{rig.issuer.desk.audience}/.default", "monotonic": rig.clock.monotonic, **more}
    return ClientCredentials(rig.issuer.token_url, "shop", secret, rng=random.Random(1), **more)


def on_behalf(rig: Rig, **more: Any) -> OnBehalfOf:
    more = {"scope": f"{rig.issuer.desk.audience}/{SCOPE} offline_access", "monotonic": rig.clock.monotonic, **more}
    return OnBehalfOf(rig.issuer.token_url, "shop", "shop-secret", rng=random.Random(1), **more)


def assertion(rig: Rig, user: str = "alice") -> str:
    """What the user's client sends to its own app: a token for that app."""
    return rig.issuer.sign_in(user, audience="shop", scopes=["access_as_user"])


async def got(source: BearerSource) -> str | TokenError:
    try:
        return await source.token()
    except TokenError as error:
        return error


async def test_row_1_client_credentials_bring_the_apps_own_token(rig: Rig) -> None:
    for more in ({}, {"scope": None, "resource": rig.issuer.desk.audience}, {"scope": None, "extra": {"audience": rig.issuer.desk.audience}}):  # fmt: skip
        async with credentials(rig, **more) as source:
            caller = await rig.caller(await source.token())
            assert (caller.kind, caller.app, caller.client_id) == ("app", "default", "shop")


async def test_row_3_on_behalf_of_brings_the_users_token() -> None:
    for style in ("rfc9068", "entra-v1", "entra-v2"):
        async with rig_of(style=style) as rig, on_behalf(rig) as source:
            caller = await rig.caller(await source.for_user(assertion(rig)).token())
            assert (caller.kind, caller.user, caller.client_id) == ("delegated", rig.issuer.user_id("alice"), "shop")
            assert caller.scopes == {SCOPE}


async def test_row_6_only_on_behalf_of_brings_a_refresh_token_and_only_with_all_it_takes(rig: Rig) -> None:
    def ask(**form: str) -> tuple[int, dict[str, Any]]:
        return rig.issuer.desk.answer({"client_id": "shop", "client_secret": "shop-secret", **form}, None)

    status, own = ask(grant_type="client_credentials", scope=f"{rig.issuer.desk.audience}/.default")
    assert (status, sorted(own)) == (200, ["access_token", "expires_in", "token_type"])
    whole = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": assertion(rig),
        "requested_token_use": "on_behalf_of",
        "scope": SCOPE,
    }
    status, delegated = ask(**whole)
    assert (status, sorted(delegated)) == (200, ["access_token", "expires_in", "refresh_token", "scope", "token_type"])
    for missing, error in (
        ("assertion", "invalid_grant"),
        ("requested_token_use", "invalid_request"),
        ("scope", "invalid_scope"),
        ("grant_type", "unsupported_grant_type"),
    ):
        status, answer = ask(**{name: value for name, value in whole.items() if name != missing})
        assert (status, answer["error"]) == (400, error)
    for wrong in (
        rig.issuer.app_token("shop"),  # nobody's
        rig.issuer.sign_in("alice"),  # not for this client
        rig.token(aud="shop", scope=None),  # an ID token
        rig.token(aud="shop", exp=int(rig.clock.now()) - 1),
        assertion(rig)[:-6] + "AAAAAA",
    ):
        status, answer = ask(**{**whole, "assertion": wrong})
        assert (status, answer["error"]) == (400, "invalid_grant")
    for client in ({"client_secret": "wrong"}, {"client_id": "nobody"}, {"client_id": "page", "client_secret": ""}):
        status, answer = ask(**{**whole, **client})
        assert (status, answer["error"]) == (401, "invalid_client")


async def test_a_token_is_asked_for_once_and_kept_until_shortly_before_its_end(rig: Rig) -> None:
    async with credentials(rig) as source:
        tokens = set(await asyncio.gather(*(source.token() for _ in range(100))))
        assert len(tokens) == 1
        rig.clock.advance(3600 - 301)
        assert await source.token() in tokens
        assert rig.issuer.requests["token"] == 1
        rig.clock.advance(2)
        assert await source.token() not in tokens
        assert rig.issuer.requests["token"] == 2


async def test_the_old_token_serves_while_the_issuer_is_down(rig: Rig) -> None:
    async with credentials(rig) as source:
        token = await source.token()
        rig.issuer.faults["token"] = Fault(status=503)
        rig.clock.advance(3600 - 290)
        for _ in range(280):
            assert await source.token() == token
            rig.clock.advance(1)
        assert rig.issuer.requests["token"] <= 25
        rig.clock.advance(10)
        with pytest.raises(TokenUnavailable, match="503"):
            await source.token()
        rig.issuer.faults.clear()
        rig.clock.advance(30)
        assert await source.token() != token


@pytest.mark.parametrize("told", [360_000, "360000", 1, 1.5, "7"])
async def test_a_lifetime_that_is_a_lie_costs_one_renewal(rig: Rig, told: object) -> None:
    """Too long, and the service's 401 brings one new token for however many heard it; too short, and it is asked for
    more often."""
    rig.issuer.desk.stated_lifetime = told
    async with credentials(rig) as source:
        token = await source.token()
        rig.clock.advance(3700)
        late = await source.token()
        assert rig.issuer.requests["token"] == (1 if late == token else 2)
        if late == token:
            assert await rig.refused(late) == (401, "expired")
            for _ in range(1000):
                source.invalidate(late)
            renewed = set(await asyncio.gather(*(source.token() for _ in range(100))))
            assert len(renewed) == 1
            assert rig.issuer.requests["token"] == 2
            rig.clock.advance(20)
            source.invalidate(late)  # somebody who hears it late
            (late,) = renewed
            assert await source.token() == late
        assert (await rig.caller(late)).kind == "app"


async def test_a_service_that_refuses_every_token_does_not_make_the_issuer_be_stormed(rig: Rig) -> None:
    async with credentials(rig) as source:
        for _ in range(60):
            source.invalidate(await source.token())
            rig.clock.advance(1)
        assert rig.issuer.requests["token"] <= 7


@pytest.mark.parametrize("told", [0, -1, "soon", True, None, 1e300, [], {}])
def test_a_lifetime_that_cannot_be_meant_is_an_error(told: object) -> None:
    with pytest.raises(TokenUnavailable, match="expires_in"):
        read_answer(200, orjson.dumps({"access_token": "x", "expires_in": told}), None)
    assert read_answer(200, b'{"access_token":"x"}', None).lifetime == 3600.0


BODIES: list[tuple[int, bytes, type[TokenError], str]] = [
    (200, b"", TokenUnavailable, "usable access_token"),
    (200, b"<html>", TokenUnavailable, "usable access_token"),
    (200, b"[]", TokenUnavailable, "usable access_token"),
    (200, b'{"access_token":7}', TokenUnavailable, "usable access_token"),
    (200, b'{"access_token":"two words"}', TokenUnavailable, "usable access_token"),
    (200, b'{"access_token":"x\\r\\nEvil: 1"}', TokenUnavailable, "usable access_token"),
    (200, b'{"access_token":"x","token_type":"DPoP"}', TokenRefused, "Bearer"),
    (200, b'{"access_token":"x","token_type":1}', TokenRefused, "Bearer"),
    (302, b"", TokenRefused, "302"),
    (400, b'{"error":"invalid_scope"}', TokenRefused, "400, invalid_scope"),
    (400, b'{"error":"invalid_grant","error_description":"secret s3 of alice"}', SignInNeeded, "sign in again"),
    (400, b'{"error":"interaction_required"}', SignInNeeded, "interaction_required"),
    (401, b'{"error":"Evil\\r\\n"}', TokenRefused, "401"),
    (429, b'{"error":"slow_down"}', TokenUnavailable, "429"),
    (500, b'{"error":"invalid_grant"}', TokenUnavailable, "500"),
]


@pytest.mark.parametrize(("status", "body", "kind", "word"), BODIES, ids=map(str, range(len(BODIES))))
def test_what_the_endpoint_may_answer(status: int, body: bytes, kind: type[TokenError], word: str) -> None:
    with pytest.raises(kind, match=word) as caught:
        read_answer(status, body, 7.0)
    assert type(caught.value) is kind
    assert "s3" not in str(caught.value)
    assert caught.value.after == (7.0 if status in (429, 500) else None)


async def test_a_wrong_secret_is_said_at_once_and_not_tried_over_and_over(rig: Rig) -> None:
    async with credentials(rig, "wrong-secret") as source:
        for _ in range(3):
            found = await asyncio.gather(*(got(source) for _ in range(20)))
            assert {type(one) for one in found} == {TokenRefused}
            assert {getattr(one, "code", "") for one in found} == {"invalid_client"}
            assert "wrong-secret" not in repr(found) + repr(source)
        assert rig.issuer.requests["token"] == 1


ENDLESS = orjson.dumps({"access_token": "x", "expires_in": 60, "more": "x" * 70_000})


@pytest.mark.parametrize("fault", [Fault(down=True), Fault(status=500), Fault(body=ENDLESS), Fault(body=b"")], ids=["down", "500", "endless", "empty"])  # fmt: skip
async def test_trouble_of_the_endpoint(rig: Rig, fault: Fault) -> None:
    rig.issuer.faults["token"] = fault
    async with credentials(rig) as source:
        for _ in range(10):
            assert isinstance(await got(source), TokenUnavailable)
        assert rig.issuer.requests["token"] == 1
        rig.issuer.faults.clear()
        rig.clock.advance(30)
        assert isinstance(await got(source), str)


async def test_an_endpoint_that_nobody_answers_at() -> None:
    async with ClientCredentials("http://127.0.0.1:1/token", "a", "s3cret") as source:
        with pytest.raises(TokenUnavailable) as caught:
            await source.token()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://login.example.com/token", "ftp://x/", "https://a:b@x/", "https://x/#f", "token", ""])  # fmt: skip
def test_a_secret_is_not_sent_in_the_clear(url: str) -> None:
    for make in (lambda: ClientCredentials(url, "a", "b"), lambda: OnBehalfOf(url, "a", "b", scope="x")):
        with pytest.raises(UsageError, match="token_url"):
            make()


def test_a_ca_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for name in ("absent.pem", "empty.pem"):
        with pytest.raises(UsageError, match=name):
            ClientCredentials("https://x.example/token", "a", "b", ca_file=tmp_path / name)


async def test_over_tls_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with rig_of(authority=authority) as rig:
        async with credentials(rig, ca_file=authority.ca_file) as source:
            assert (await rig.caller(await source.token())).kind == "app"
        async with credentials(rig) as mistrusting:
            assert isinstance(await got(mistrusting), TokenUnavailable)


# -- on behalf of users


async def test_each_user_has_tokens_of_her_own(rig: Rig) -> None:
    async with on_behalf(rig) as source:
        names = [f"user{n}" for n in range(20)]
        proofs = {name: assertion(rig, name) for name in names}
        for _ in range(3):
            tokens = await asyncio.gather(*(source.for_user(proofs[name]).token() for name in names))
            assert [(await rig.caller(token)).user for token in tokens] == names
        assert rig.issuer.requests["token"] == 20


async def test_a_made_up_assertion_with_her_name_brings_nothing(rig: Rig) -> None:
    async with on_behalf(rig) as source:
        await source.for_user(assertion(rig)).token()
        forged = assertion(rig)[:-6] + "AAAAAA"
        assert isinstance(await got(source.for_user(forged)), SignInNeeded)


async def test_it_goes_on_by_the_refresh_token_and_then_wants_the_user(rig: Rig) -> None:
    async with on_behalf(rig) as source:
        alice = source.for_user(assertion(rig))
        seen = {await alice.token()}
        for _ in range(5):  # the assertion has expired long since
            rig.clock.advance(3600)
            token = await alice.token()
            assert (await rig.caller(token)).user == "alice"
            seen.add(token)
        assert len(seen) == 6
        assert rig.issuer.requests["token"] == 6
        rig.issuer.desk.revoke("alice")
        rig.clock.advance(3600)
        for _ in range(5):
            assert isinstance(await got(alice), SignInNeeded)
            rig.clock.advance(100)
        assert rig.issuer.requests["token"] == 8  # the refresh token and the assertion, once each
        # She signs in again.
        assert (await rig.caller(await source.for_user(assertion(rig)).token())).user == "alice"


async def test_a_refused_user_token_is_replaced_by_the_refresh_token(rig: Rig) -> None:
    async with on_behalf(rig) as source:
        alice = source.for_user(assertion(rig))
        token = await alice.token()
        rig.clock.advance(20)
        alice.invalidate(token)
        assert await alice.token() != token
        assert rig.issuer.requests["token"] == 2


async def test_few_users_are_remembered_and_whoever_is_held_goes_on(rig: Rig) -> None:
    async with on_behalf(rig, users=3) as source:
        proofs = [assertion(rig, f"user{n}") for n in range(5)]
        first = source.for_user(proofs[0])
        await first.token()
        for proof in proofs[1:]:
            await source.for_user(proof).token()
        assert len(source._users) == 3
        assert (await rig.caller(await first.token())).user == "user0"
        assert rig.issuer.requests["token"] == 5
        await source.for_user(proofs[2]).token()  # the oldest of the three, and now the last to go
        await source.for_user(proofs[0]).token()
        await source.for_user(proofs[1]).token()
        assert rig.issuer.requests["token"] == 7
        await source.for_user(proofs[2]).token()
        assert rig.issuer.requests["token"] == 7


async def test_who_is_cancelled_and_who_closes(rig: Rig) -> None:
    makes: list[Callable[[], Any]] = [
        lambda: (source := credentials(rig), source),
        lambda: (source := on_behalf(rig), source.for_user(assertion(rig))),
    ]
    for make in makes:
        held = asyncio.Event()
        rig.issuer.faults["token"] = Fault(hold=held)
        rig.issuer.requests.clear()
        owner, source = make()
        tasks = [asyncio.ensure_future(got(source)) for _ in range(4)]
        while not rig.issuer.requests["token"]:
            await asyncio.sleep(0.001)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        assert tasks[0].cancelled()
        await owner.aclose()
        assert {type(one) for one in await asyncio.gather(*tasks[1:])} == {TokenUnavailable}
        assert isinstance(await got(source), TokenUnavailable)
        await owner.aclose()
        held.set()


async def test_the_sign_in_page_for_people_with_curl(rig: Rig) -> None:
    async with aiohttp.ClientSession() as session:
        form = {"user": "alice", "client_id": "page"}
        async with session.post(f"{rig.issuer.url}/sign_in", data=form) as response:
            token = (await response.json())["access_token"]
        assert (await rig.caller(token)).user == "alice"
        async with session.post(f"{rig.issuer.url}/sign_in", data={"client_id": "page"}) as response:
            assert response.status == 400
        basic = {"Authorization": "Basic " + base64.b64encode(b"shop:shop-secret").decode()}
        form = {"grant_type": "client_credentials"}
        async with session.post(rig.issuer.token_url, data=form, headers=basic) as response:
            assert (await rig.caller((await response.json())["access_token"])).kind == "app"
        async with session.post(rig.issuer.token_url, data=form, headers={"Authorization": "Basic !"}) as response:
            assert response.status == 401


async def test_clients_of_ones_own() -> None:
    async with (
        rig_of(clients=(Client("mine", "s"),)) as rig,
        ClientCredentials(rig.issuer.token_url, "mine", "s") as source,
    ):
        assert (await rig.caller(await source.token())).client_id == "mine"
