"""Access tokens: what is signed, when they are fetched, and what happens while the token endpoint is in trouble."""

from __future__ import annotations

import asyncio
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fanout.plugin import Accepted, Deferred, Delivery, Misconfigured, Notification, Outcome, Scope, Secret, Unavailable
from fanout.testing.clock import VirtualClock
from fanout.testing.simulator import Reply, Stall
from fanout_fcm.auth import LIFETIME, Signer
from fanout_fcm.credential import read_service_account
from fanout_fcm.simulator import FcmSimulator
from fanout_fcm.transport import FcmTransport

pytestmark = pytest.mark.anyio


async def send(google: FcmSimulator, transport: FcmTransport, number: int = 1) -> Outcome:
    message = transport.prepare(Notification(title="T"))
    return await transport.send(message, Delivery.of(transport.parse_address(google.address(number))))


async def settled() -> None:
    """Let every task that can run do so; a fetch over loopback ends within it."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    fetches = [task for task in others if "_renew" in repr(task.get_coro())]
    if fetches:
        await asyncio.wait(fetches)


def test_the_assertion_is_what_google_asks_for(pem: str) -> None:
    secret = Secret(
        orjson.dumps(
            {
                "type": "service_account",
                "project_id": "p1",
                "private_key_id": "kid-1",
                "private_key": pem,
                "client_email": "a@b.iam.gserviceaccount.com",
            }
        ).decode()
    )
    text = Signer(read_service_account(secret)).assertion(1_800_000_000.9)
    public = load_pem_private_key(pem.encode(), None).public_key()
    assert jwt.get_unverified_header(text) == {"alg": "RS256", "typ": "JWT", "kid": "kid-1"}
    claims = jwt.decode(
        text,
        public,  # type: ignore[arg-type]
        algorithms=["RS256"],
        audience="https://oauth2.googleapis.com/token",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims == {
        "iss": "a@b.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": 1_799_999_970,
        "exp": 1_799_999_970 + LIFETIME,
    }


async def test_many_first_sends_fetch_one_token(opened: Any) -> None:
    async with opened() as (google, transport):
        outcomes = await asyncio.gather(*[send(google, transport, n) for n in range(50)])
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert google.tokens.counters.requests == 1
        assert not google.counters.violations + google.tokens.counters.violations


async def test_it_is_renewed_before_its_end_while_the_old_one_is_used(opened: Any) -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as (google, transport):
        await send(google, transport)
        clock.advance(3200)
        await send(google, transport)
        await settled()
        assert google.tokens.counters.requests == 1
        clock.advance(150)  # within five minutes of the end
        google.tokens.script = lambda request: Stall()
        assert isinstance(await send(google, transport), Accepted)  # not held up by the fetch
        await google.tokens.requested(2)
        assert isinstance(await send(google, transport), Accepted)
        assert google.tokens.counters.requests == 2  # still one fetch under way


async def test_the_old_token_serves_while_the_endpoint_is_down_and_then_the_queue_is_parked(opened: Any) -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as (google, transport):
        await send(google, transport)
        google.tokens.script = lambda request: google.tokens.error("unavailable", request)
        for _ in range(17):
            clock.advance(200)
            assert isinstance(await send(google, transport), Accepted)
            await settled()
        assert google.tokens.counters.requests >= 2
        asked = google.counters.requests
        clock.advance(600)
        outcome = await send(google, transport)
        assert isinstance(outcome, Unavailable)
        assert (outcome.sent, outcome.scope) == ("no", Scope.BINDING)
        assert outcome.after is not None
        assert google.counters.requests == asked  # nothing was sent
        google.tokens.script = None
        clock.advance(120)
        assert isinstance(await send(google, transport), Accepted)


async def test_a_refused_credential_parks_the_binding_with_a_sentence(opened: Any) -> None:
    async with opened() as (google, transport):
        google.tokens.script = lambda request: google.tokens.error("invalid_grant", request)
        outcome = await send(google, transport)
        assert isinstance(outcome, Misconfigured)
        assert outcome.scope is Scope.BINDING
        assert "invalid_grant" in outcome.reason
        assert google.counters.requests == 0


async def test_a_clock_that_is_wrong_is_a_refused_credential(opened: Any) -> None:
    clock = VirtualClock()
    async with opened(clock=clock) as (google, transport):
        google.tokens.clock = lambda: clock.now() - 3600.0
        assert isinstance(await send(google, transport), Misconfigured)


async def test_a_revoked_token_is_replaced_once_for_all_and_nobody_loses_a_push(opened: Any) -> None:
    async with opened() as (google, transport):
        await send(google, transport, 0)
        google.pushes = []
        google.tokens.revoke()
        outcomes = await asyncio.gather(*[send(google, transport, n) for n in range(1, 41)])
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert google.tokens.counters.requests == 2
        assert len({push.address for push in google.pushes}) == len(google.pushes) == 40


async def test_a_second_401_is_a_wrong_configuration_and_not_a_loop(opened: Any) -> None:
    async with opened() as (google, transport):
        google.script = lambda request: google.error("UNAUTHENTICATED", request)
        outcome = await send(google, transport)
        assert outcome == Misconfigured("UNAUTHENTICATED", Scope.BINDING)
        assert google.counters.requests == 2
        assert google.tokens.counters.requests == 2


async def test_a_wrong_apple_credential_renews_nothing(opened: Any) -> None:
    async with opened() as (google, transport):
        await send(google, transport)
        message = transport.prepare(Notification(title="T"))
        for _ in range(5):
            await transport.send(message, Delivery.of(transport.parse_address(google.address(1, "ios"))))
        assert google.tokens.counters.requests == 1


async def test_401_and_then_no_token_parks(opened: Any) -> None:
    async with opened() as (google, transport):
        await send(google, transport)
        google.tokens.revoke()
        google.tokens.script = lambda request: google.tokens.error("unavailable", request)
        outcome = await send(google, transport)
        assert isinstance(outcome, Unavailable)
        assert (outcome.sent, outcome.scope) == ("no", Scope.BINDING)
        google.tokens.script = lambda request: google.tokens.error("invalid_grant", request)


async def test_a_token_endpoint_that_never_answers_is_bounded(opened: Any) -> None:
    async with opened(request_timeout=0.5) as (google, transport):
        google.tokens.script = lambda request: Stall()
        outcomes = await asyncio.gather(*[send(google, transport, n) for n in range(5)])
        assert all(isinstance(outcome, Unavailable) and outcome.sent == "no" for outcome in outcomes)
        assert google.counters.requests == 0


async def test_closing_ends_a_wait_for_a_token(folder: Any, transport_to: Any) -> None:
    async with FcmSimulator(folder=folder) as google:
        transport = transport_to(google)
        await transport.__aenter__()
        google.tokens.script = lambda request: Stall()
        task = asyncio.ensure_future(send(google, transport))
        await google.tokens.requested(1)
        await transport.__aexit__(None, None, None)
        assert await task == Deferred("The token source is closed.")  # an event of our own: no gate closes


async def test_cancelling_one_that_waits_leaves_the_others_their_token(opened: Any) -> None:
    async with opened() as (google, transport):
        google.tokens.script = lambda request: Reply(
            200, {}, orjson.dumps({"access_token": "not.known.here", "expires_in": 3600}), after=0.2
        )
        first = asyncio.ensure_future(send(google, transport, 1))
        second = asyncio.ensure_future(send(google, transport, 2))
        await google.tokens.requested(1)
        google.tokens.script = None
        first.cancel()
        assert isinstance(await second, Accepted)  # with a second token: the gateway does not know the first
        assert first.cancelled()
        assert google.tokens.counters.requests == 2


async def test_tokens_and_assertions_are_in_no_text(opened: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    seen: list[str] = []
    async with opened() as (google, transport):

        def spy(request: Any) -> None:
            seen.extend([request.body.decode(), request.headers.get("authorization", "")])

        google.script = google.tokens.script = spy
        shown = [repr(transport), repr(await send(google, transport)), repr(await transport.check())]
        shown.append(repr(transport._credentials.tokens))
        secrets = [text for text in seen if "Bearer" in text] + [text[-80:] for text in seen if "assertion=" in text]
        assert len(secrets) >= 2
        for text in [*shown, caplog.text]:
            assert not [secret for secret in secrets if secret.removeprefix("Bearer ") in text]
