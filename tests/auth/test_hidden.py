"""No credential appears where it should not: in logs, exceptions or `repr`."""

from __future__ import annotations

import dataclasses
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from authrig import Rig, settings_of

from fanout.client import ClientCredentials, OnBehalfOf, TokenError
from fanout.config import ApiKeySettings, ServiceSettings, UserKeySettings
from fanout.config.service_table import service_settings
from fanout.errors import FanoutError
from fanout.service.auth import AuthError, new_api_key, new_user_key, user_token
from fanout.testing.issuer import Client, Fault, SigningKey

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield


def shown(error: BaseException) -> str:
    """All that a handler of last resort would write down, causes and contexts too."""
    parts = ["".join(traceback.format_exception(error)), repr(error), str(vars(error))]
    parts += [shown(other) for other in (error.__cause__, error.__context__) if other is not None]
    return "".join(parts)


def pieces(*secrets: str) -> set[str]:
    """Each secret's parts that would give it away."""
    return {part for secret in secrets for part in [*secret.split("."), secret[8:40]] if len(part) > 12}


def assert_hidden(where: str, *secrets: str) -> None:
    for piece in pieces(*secrets):
        assert piece not in where


async def test_a_refused_credential_is_not_repeated(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    key, user_key = new_api_key(), new_user_key()
    auth = rig.trusting(
        ServiceSettings(
            issuers=(settings_of(rig.issuer),),
            keys=(ApiKeySettings(id=key.id, hash=key.hash),),
            user_keys=(UserKeySettings(id=user_key.id, secret=user_key.secret),),
        )
    )
    foreign = SigningKey.make("canary-kid-0123456789")
    canary = rig.claims(sub="canary-user-0123456789", jti="canary-jti-0123456789")
    tokens = [
        foreign.sign(canary),
        foreign.sign(canary, {"kid": "key-1"}),
        foreign.sign(canary, {"alg": "canary-alg-0123456789"}),
        foreign.sign({**canary, "exp": 1}),
        foreign.sign({**canary, "aud": "canary-aud-0123456789"}),
        foreign.sign({**canary, "iss": "canary-iss-0123456789"}),
        rig.issuer.keys.current.sign({**canary, "client_id": "canary-client-0123456789"}),
        rig.issuer.keys.current.sign({**canary, "scope": "canary-scope-0123456789"}),
        "canary-0123456789" * 2000,
        "canary-word-0123456789",
        new_api_key().key.reveal(),
        key.key.reveal()[:-1] + "~",
        user_token(new_user_key().secret, "default", "canary-user-0123456789", now=rig.clock.now()),
        user_token(user_key.secret, "other-app-0123456789", "canary-user-0123456789", now=rig.clock.now()),
    ]
    text = ""
    for token in tokens:
        with pytest.raises(AuthError) as caught:
            await auth.authenticate({"authorization": f"Bearer {token}"})
        text += shown(caught.value) + str(caught.value.headers)
    await auth.authenticate({"authorization": f"Bearer {rig.token(sub='canary-user-0123456789')}"})
    rig.issuer.faults["keys"] = Fault(status=500)
    assert (await auth.refresh())[rig.issuer.url]
    text += caplog.text + repr(auth) + repr(vars(auth))
    assert "answered 500" in caplog.text
    assert_hidden(text, *tokens, key.key.reveal(), user_key.secret.reveal())
    # The cached caller of the good token holds the user's name; nothing else of a token is anywhere.
    assert "0123456789" not in text.replace("user='canary-user-0123456789'", "")


async def test_the_clients_secret_and_tokens_are_not_shown(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.issuer.desk.clients["shop"] = Client("shop", "canary-secret-0123456789")
    text = repr(rig.issuer.desk.clients)
    form: dict[str, Any] = {"monotonic": rig.clock.monotonic}
    own = ClientCredentials(rig.issuer.token_url, "shop", "canary-secret-0123456789", **form)
    users = OnBehalfOf(rig.issuer.token_url, "shop", "canary-secret-0123456789", scope="Notifications", **form)
    assertion = rig.issuer.sign_in("alice", audience="shop")
    alice = users.for_user(assertion)
    tokens = [await own.token(), await alice.token()]
    text += repr((own, users, alice, vars(own)["_kept"]))
    for fault in (Fault(down=True), Fault(status=400), Fault(status=500), Fault(body=b"{}")):
        rig.issuer.faults["token"] = fault
        rig.clock.advance(4000)
        for source in (own, alice):
            with pytest.raises(TokenError) as caught:
                await source.token()
            text += shown(caught.value)
    await own.aclose()
    await users.aclose()
    assert_hidden(text + caplog.text, "canary-secret-0123456789", assertion, *tokens)


def test_the_configuration_hides_what_is_secret(tmp_path: Path) -> None:
    key, user_key = new_api_key(), new_user_key()
    table: dict[str, Any] = {
        "keys": [{"id": key.id, "hash": key.hash}],
        "user_keys": [{"id": user_key.id, "secret": user_key.secret.reveal()}],
    }
    settings = service_settings(table, folder=tmp_path, environ={}, apps=("default",))
    assert_hidden(repr(settings) + repr(user_key) + repr(key), user_key.secret.reveal(), key.key.reveal(), key.hash)
    assert dataclasses.replace(settings) == settings
    wrong: list[dict[str, Any]] = [
        {"keys": [{"id": key.id, "hash": key.key.reveal()}]},
        {"keys": [{"id": key.key.reveal(), "hash": key.hash}]},
        {"keys": [{"id": key.id, "hash": key.hash, "key": key.key.reveal()}]},
        {"keys": key.key.reveal()},
        {"keys": [key.key.reveal()]},
        {"user_keys": [{"id": key.id, "secret": user_key.secret.reveal()}]},
        {"user_keys": [{"id": user_key.id, "secret": user_key.secret.reveal() + "x"}]},
    ]
    for one in wrong:
        with pytest.raises(FanoutError) as caught:
            service_settings(one, folder=tmp_path, environ={}, apps=("default",))
        assert_hidden(shown(caught.value), user_key.secret.reveal(), key.key.reveal(), key.hash)
