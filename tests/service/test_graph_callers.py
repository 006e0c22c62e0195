"""Who may post on the Graph facade, and to whom: rows 1 to 9 of the checklist."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from servicerig import Rig, running

pytestmark = pytest.mark.anyio

RAW = {"targetHostName": "shop.example.com", "appNotificationId": "order-42", "payload": {"rawContent": "any app text"}}
PATH = "/beta/me/notifications"


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The error of an answer that is in the envelope of Graph."""
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert isinstance(error["code"], str)
    assert error["code"]
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["innerError"]["request-id"] == answer.headers["request-id"]
    assert error["innerError"]["date"]
    return error


async def nothing_stored(rig: Rig, user: str = "alice") -> None:
    assert await rig.history(user) == []
    await rig.quiet()
    assert rig.gateways.pushes == []


async def test_row_1_client_credentials_with_an_unsid_post(rig: Rig) -> None:
    (unsid,) = await rig.subscribe("alice", "fcm")
    form = {"grant_type": "client_credentials", "client_id": "shop-server", "client_secret": "secret"}
    async with httpx.AsyncClient() as client:
        token = (await client.post(rig.issuer.token_url, data=form)).json()["access_token"]
    answer = await rig.call("POST", PATH, token, json=RAW, headers={"X-UNS-ID": unsid})
    assert answer.status_code == 201, answer.text
    assert [item["id"] for item in await rig.history()] == [answer.json()["id"]]
    (push,) = await rig.gateways.arrived(1)
    assert push.address == "alice-shop-fcm"


@pytest.mark.parametrize("credential", ["token", "key"])
async def test_row_2_an_app_without_an_unsid_is_refused(rig: Rig, credential: str) -> None:
    await rig.subscribe("alice", "fcm")
    send = (
        rig.as_app("POST", PATH, json=RAW) if credential == "key" else rig.call("POST", PATH, rig.app_token(), json=RAW)
    )
    assert "X-UNS-ID" in refused(await send, 400)["message"]
    await nothing_stored(rig)


async def test_row_3_a_delegated_token_posts_to_its_own_user(rig: Rig) -> None:
    await rig.subscribe("alice", "fcm")
    await rig.subscribe("bob", "fcm")
    assertion = rig.issuer.sign_in("alice", "page", audience="shop-server")
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "requested_token_use": "on_behalf_of",
        "assertion": assertion,
        "client_id": "shop-server",
        "client_secret": "secret",
        "scope": "Notifications.ReadWrite.CreatedByApp",
    }
    async with httpx.AsyncClient() as client:
        token = (await client.post(rig.issuer.token_url, data=form)).json()["access_token"]
    answer = await rig.call("POST", PATH, token, json=RAW)
    assert answer.status_code == 201, answer.text
    assert "users('alice')" in answer.json()["@odata.context"]
    assert len(await rig.history("alice")) == 1
    assert await rig.history("bob") == []


async def test_row_3_a_delegated_token_beside_an_unsid_must_be_of_the_same_user(rig: Rig) -> None:
    (alice,), (bob,) = await rig.subscribe("alice", "fcm"), await rig.subscribe("bob", "fcm")
    assert (await rig.post(RAW, headers={"X-UNS-ID": alice})).status_code == 201
    refused(await rig.post(RAW, headers={"X-UNS-ID": bob}), 403)
    assert await rig.history("bob") == []


async def test_row_4_a_delegated_token_without_the_scope_is_refused(rig: Rig) -> None:
    token = rig.issuer.sign_in("alice", "page", scopes=("User.Read",))
    answer = await rig.call("POST", PATH, token, json=RAW)
    refused(answer, 403)
    assert "insufficient_scope" in answer.headers["www-authenticate"]
    await nothing_stored(rig)


async def test_row_5_a_missing_wrong_or_expired_token_is_401_in_graphs_envelope(rig: Rig) -> None:
    good = rig.user_token("alice")
    rig.issuer.desk.lifetime = -1000.0
    expired = rig.user_token("alice")
    rig.issuer.desk.lifetime = 3600.0
    for token in (None, "nonsense", good[:-4] + "AAAA", expired, "fak_000000000000_" + "x" * 43):
        answer = await rig.call("POST", PATH, token, json=RAW)
        assert refused(answer, 401)["code"] == "unauthenticated"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    await nothing_stored(rig)


async def test_row_6_on_behalf_of_brings_a_refresh_token_and_client_credentials_none(rig: Rig) -> None:
    own = {"client_id": "shop-server", "client_secret": "secret"}
    on_behalf = {
        **own,
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "scope": "Notifications.ReadWrite.CreatedByApp offline_access",
        "assertion": rig.issuer.sign_in("alice", "page", audience="shop-server"),
    }
    async with httpx.AsyncClient() as client:

        async def ask(form: dict[str, str]) -> httpx.Response:
            return await client.post(rig.issuer.token_url, data=form)

        assert "refresh_token" not in (await ask({**own, "grant_type": "client_credentials"})).json()
        assert (await ask(on_behalf)).status_code == 400
        whole = {**on_behalf, "requested_token_use": "on_behalf_of"}
        assert (await ask({name: text for name, text in whole.items() if name != "assertion"})).status_code == 400
        found = (await ask(whole)).json()
    assert found["refresh_token"]
    assert (await rig.call("POST", PATH, found["access_token"], json=RAW)).status_code == 201


@pytest.mark.parametrize("host", ["news.example.com", "stranger.example.com"])
async def test_row_7_a_host_name_that_is_not_the_apps_own_is_refused(rig: Rig, host: str) -> None:
    refused(await rig.post({**RAW, "targetHostName": host}), 403)
    await nothing_stored(rig)
    assert (await rig.post({**RAW, "targetHostName": "SHOP.example.com"})).status_code == 201


async def test_row_8_a_blocked_caller_is_refused(rig: Rig) -> None:
    (unsid,) = await rig.subscribe("alice", "fcm")
    refused(await rig.call("POST", PATH, rig.app_token("blocked"), json=RAW, headers={"X-UNS-ID": unsid}), 403)
    await nothing_stored(rig)


async def test_row_9_an_unsid_of_another_app_is_refused(rig: Rig) -> None:
    (unsid,) = await rig.subscribe("alice", "apns", app="news")
    for stranger in (unsid, "made-up", "", "x" * 400):
        body = {"payload": {"rawContent": "text"}}
        refused(await rig.call("POST", PATH, rig.app_token(), json=body, headers={"X-UNS-ID": stranger}), 403)
    await nothing_stored(rig)


async def test_an_unsid_that_has_ended_is_refused(rig: Rig) -> None:
    (unsid,) = await rig.subscribe("alice", "fcm")
    (made,) = await rig.service.feed.subscriptions("shop", "alice")
    await rig.service.feed.unsubscribe("shop", "alice", made.id)
    refused(await rig.call("POST", PATH, rig.app_token(), json=RAW, headers={"X-UNS-ID": unsid}), 403)


async def test_the_issuers_keys_that_cannot_be_had_are_503_with_retry_after(tmp_path: Any) -> None:
    from fanout.testing.issuer.server import Fault

    async with running(tmp_path) as rig:
        rig.issuer.faults["discovery"] = Fault(status=500)
        answer = await rig.post(RAW)
        refused(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
