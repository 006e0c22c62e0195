"""What one binding does on the wire, and what it does when the wire fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from fanout.plugin import (
    Accepted,
    ConfigurationError,
    Deferred,
    Delivery,
    Gone,
    Moved,
    Notification,
    Outcome,
    Scope,
    Throttled,
    Unavailable,
)
from fanout.testing.clock import VirtualClock
from fanout.testing.simulator import Faults, Reply, Request
from fanout_fcm.simulator import FcmSimulator
from fanout_fcm.transport import FcmTransport

pytestmark = pytest.mark.anyio

TITLE = Notification(title="T", id="01890a5d-ac96-774b-bcce-b302099a8057")


async def send(google: FcmSimulator, transport: FcmTransport, number: int = 1, **changes: Any) -> Outcome:
    message = transport.prepare(changes.pop("notification", TITLE))
    address = transport.parse_address(google.address(number, changes.pop("behaviour", "good")))
    return await transport.send(message, Delivery.of(address, **changes))


def spied(google: FcmSimulator) -> list[Request]:
    seen: list[Request] = []
    google.script = lambda request: seen.append(request)  # type: ignore[func-returns-value]
    return seen


async def test_the_request_is_what_google_documents(opened: Any) -> None:
    async with opened() as (google, transport):
        await send(google, transport)
        seen = spied(google)
        assert isinstance(await send(google, transport, ttl=77), Accepted)
        (request,) = seen
        assert (request.method, request.path) == ("POST", "/v1/projects/simulated-project/messages:send")
        assert request.headers["content-type"] == "application/json"
        assert request.headers["authorization"].startswith("Bearer ya29.")
        assert set(request.headers) == {"content-type", "authorization"}
        body = orjson.loads(request.body)
        assert body["message"]["token"] == google.address(1)
        assert body["message"]["android"]["ttl"] == "77s"
        assert not google.counters.violations


async def test_the_project_of_the_settings_is_used(opened: Any) -> None:
    async with opened(project_id="other-project") as (google, transport):
        outcome = await send(google, transport)
        assert google.counters.rejected == {"PERMISSION_DENIED": 1}
        assert getattr(outcome, "scope", None) is Scope.BINDING


async def test_every_kind_of_device(opened: Any) -> None:
    async with opened() as (google, transport):
        kinds = {word: await send(google, transport, behaviour=word) for word in google.behaviours}
        names = {word: type(outcome).__name__ for word, outcome in kinds.items()}
        assert names == {
            "good": "Accepted",
            "fid": "Accepted",
            "slow": "Accepted",
            "dead": "Gone",
            "bad": "Gone",
            "other": "Gone",
            "ios": "Misconfigured",  # one device alone
            "throttled": "Throttled",
        }
        assert getattr(kinds["ios"], "scope", None) is Scope.ENDPOINT
        assert isinstance(await send(google, transport, number=2, behaviour="ios", endpoint=2), Moved)
        assert isinstance(await send(google, transport, behaviour="throttled"), Accepted)


async def test_overrides_by_binding_and_by_transport(opened: Any) -> None:
    async with opened(binding="fcm_eu") as (google, transport):
        seen = spied(google)
        for name in ("fcm_eu", "fcm"):
            over = {name: {"fcmOptions": {"analyticsLabel": name}}}
            await send(google, transport, notification=Notification(title="T", transports=over))
        labels = [orjson.loads(request.body)["message"]["fcmOptions"]["analyticsLabel"] for request in seen]
        assert labels == ["fcm_eu", "fcm"]


async def test_validate_only_delivers_nothing(opened: Any) -> None:
    async with opened(validate_only=True) as (google, transport):
        google.pushes = []
        assert isinstance(await send(google, transport), Accepted)
        assert isinstance(await send(google, transport, behaviour="dead"), Gone)
        assert not google.pushes


async def test_an_unreachable_gateway_is_not_sent(folder: Path, transport_to: Any) -> None:
    async with FcmSimulator(folder=folder) as google:
        async with FcmSimulator(folder=folder) as gone:
            closed = gone.url
        async with transport_to(google, gateway=closed) as transport:
            outcome = await send(google, transport)
            assert isinstance(outcome, Unavailable)
            assert (outcome.sent, outcome.scope) == ("no", Scope.GROUP)


async def test_a_gateway_with_another_authority_gets_no_token(folder: Path, tmp_path: Path, transport_to: Any) -> None:
    async with FcmSimulator(folder=folder) as google, FcmSimulator(folder=tmp_path) as stranger:
        async with transport_to(google, gateway=stranger.url) as transport:
            outcome = await send(google, transport)
            assert isinstance(outcome, Unavailable)
            assert outcome.sent == "no"
        assert stranger.counters.requests == 0


async def test_a_ca_file_that_is_none_is_named(folder: Path, tmp_path: Path, transport_to: Any) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    async with FcmSimulator(folder=folder) as google:
        with pytest.raises(ConfigurationError, match="ca_file"):
            await transport_to(google, ca_file=tmp_path / "ca.pem").__aenter__()


async def test_sending_before_opening_says_so(folder: Path, transport_to: Any) -> None:
    transport = transport_to(
        FcmSimulator(folder=folder), token_url="https://127.0.0.1:1/token", gateway="https://127.0.0.1:1"
    )
    with pytest.raises(RuntimeError, match="async with"):
        await transport.send(transport.prepare(TITLE), Delivery.of(transport.parse_address(FcmSimulator.address(1))))
    with pytest.raises(RuntimeError, match="async with"):
        await transport.check()


@pytest.mark.parametrize(
    "faults",
    [
        {"refuse": 0.3},
        {"reset": 0.3},
        {"reset_after": 0.3},
        {"kill_before": 0.05},
        {"kill_after": 0.05},
        {"goaway_every": 20},
        {"goaway_every": 20, "goaway_short": 5},
        {"body_chunk": 7},
        {"shrink_every": 10, "shrink_to": 2},
        {"errors": {"UNAVAILABLE": 0.1, "BAD_GATEWAY": 0.1, "PROJECT_QUOTA": 0.1}},
    ],
    ids=str,
)
async def test_faults_are_outcomes_and_what_is_accepted_arrived(opened: Any, faults: dict[str, Any]) -> None:
    async with opened(request_timeout=5.0) as (google, transport):
        google.pushes = []
        assert isinstance(await send(google, transport, 999), Accepted)
        google.faults = Faults(seed=3, **faults)
        outcomes: list[Outcome] = []
        for start in range(0, 150, 10):
            outcomes += await asyncio.gather(*[send(google, transport, n) for n in range(start, start + 10)])
        accepted = {n for n, outcome in enumerate(outcomes) if isinstance(outcome, Accepted)}
        arrived = {push.address for push in google.pushes}
        assert {transport.parse_address(google.address(n)).digest for n in accepted} <= arrived
        for n, outcome in enumerate(outcomes):
            if n not in accepted:
                assert isinstance(outcome, (Unavailable, Throttled))
            if isinstance(outcome, Unavailable) and outcome.sent == "no":
                assert transport.parse_address(google.address(n)).digest not in arrived
        assert accepted
        assert not google.counters.violations


# -- the rate


async def test_a_burst_above_the_rate_waits_for_its_turn(opened: Any) -> None:
    async with opened(rate_per_minute=6000) as (google, transport):
        loop = asyncio.get_running_loop()
        begun = loop.time()
        outcomes = await asyncio.gather(*[send(google, transport, n) for n in range(130)])
        assert all(isinstance(outcome, Accepted) for outcome in outcomes)
        assert loop.time() - begun >= 0.29  # a hundred at once, then a hundred a second


async def test_what_would_wait_too_long_costs_nothing_and_holds_the_binding(opened: Any) -> None:
    clock = VirtualClock()
    async with opened(rate_per_minute=60, clock=clock) as (google, transport):
        for n in range(100):
            assert isinstance(await send(google, transport, n), Accepted)
        waiting = [asyncio.ensure_future(send(google, transport, n)) for n in range(100, 102)]
        await asyncio.sleep(0)
        outcome = await send(google, transport, 102)
        assert outcome == Throttled(pytest.approx(3.0), Scope.RATE, "rate_per_minute of this binding")
        assert google.counters.requests == 100
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert all(task.cancelled() for task in waiting)


async def test_the_rate_bounds_the_capacity_and_grows_with_the_heat(opened: Any) -> None:
    async with opened(rate_per_minute=6000, ramp=60.0) as (google, transport):
        assert transport.capacity("") == 1
        await send(google, transport)
        assert transport.capacity("") == 1  # 100 a second, cold: under two
    async with opened(rate_per_minute=6000) as (google, transport):
        await send(google, transport)
        assert transport.capacity("") == 100
    async with opened(rate_per_minute=0) as (google, transport):
        await send(google, transport)
        assert transport.capacity("") == 100  # the streams of the simulator's first connection


async def test_bindings_of_one_project_share_its_rate(folder: Path, transport_to: Any) -> None:
    clock = VirtualClock()
    async with FcmSimulator(folder=folder, clock=clock.now) as google:
        one = transport_to(google, clock=clock, rate_per_minute=60)
        two = transport_to(google, clock=clock, rate_per_minute=60, binding="again")
        other = transport_to(google, clock=clock, rate_per_minute=60, project_id="other-project")
        async with one, two, other:
            for n in range(50):
                assert isinstance(await send(google, one, n), Accepted)
                assert isinstance(await send(google, two, n), Accepted)
            waiting = [asyncio.ensure_future(send(google, one, n)) for n in range(2)]
            await asyncio.sleep(0)
            assert isinstance(await send(google, two), Throttled)
            assert not isinstance(await send(google, other), Throttled)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)


# -- check


async def test_check_proves_token_and_permission(opened: Any) -> None:
    async with opened() as (google, transport):
        seen = spied(google)
        google.pushes = []
        diagnosis = await transport.check()
        assert diagnosis.ok
        assert "simulated-project" in diagnosis.detail
        assert [orjson.loads(request.body)["validateOnly"] for request in seen] == [True]
        assert not google.pushes


@pytest.mark.parametrize(
    ("reason", "named"),
    [
        ("PERMISSION_DENIED", "enable the Firebase Cloud Messaging API"),
        ("NOT_FOUND", "project_id"),
        ("UNAUTHENTICATED", "token_url"),
        ("PROJECT_QUOTA", "in a minute"),
        ("INTERNAL", "no verdict"),
        ("BAD_GATEWAY", "no verdict"),
        ("INVALID_ARGUMENT", "rejects the probe"),
        ("THIRD_PARTY_AUTH_ERROR", "APNs key"),
        ("SENDER_ID_MISMATCH", "use a key made in this project"),
    ],
)
async def test_check_says_what_to_change(opened: Any, reason: str, named: str) -> None:
    async with opened() as (google, transport):
        google.script = lambda request: google.error(reason, request)
        diagnosis = await transport.check()
        assert not diagnosis.ok
        assert named in diagnosis.problem
        assert diagnosis.problem.endswith(".")


async def test_check_of_the_credential(opened: Any) -> None:
    async with opened() as (google, transport):
        google.tokens.script = lambda request: google.tokens.error("invalid_grant", request)
        diagnosis = await transport.check()
        assert "make a new key" in diagnosis.problem
        assert "invalid_grant" in diagnosis.detail
    async with opened() as (google, transport):
        google.tokens.script = lambda request: google.tokens.error("unavailable", request)
        assert "token_url" in (await transport.check()).problem


async def test_check_fetches_another_token_before_it_complains(opened: Any) -> None:
    async with opened() as (google, transport):
        await send(google, transport)
        google.tokens.revoke()
        assert (await transport.check()).ok
        assert google.tokens.counters.requests == 2


async def test_check_knows_a_gateway_that_takes_anything(opened: Any) -> None:
    async with opened() as (google, transport):
        google.script = lambda request: Reply(200)
        assert "accepts everything" in (await transport.check()).problem


async def test_a_send_that_waited_tells_the_ttl_that_is_left(opened: Any) -> None:
    clock = VirtualClock()
    async with opened(rate_per_minute=6000, clock=clock) as (google, transport):
        await send(google, transport)
        seen = spied(google)
        sends = [asyncio.ensure_future(send(google, transport, n, ttl=50)) for n in range(110)]
        await asyncio.sleep(0)
        clock.advance(1.5)
        await asyncio.gather(*sends)
        told = [orjson.loads(request.body)["message"]["android"]["ttl"] for request in seen]
        assert (told.count("50s"), told.count("48s")) == (99, 11)


async def test_a_wait_longer_than_the_ttl_sends_nothing(opened: Any) -> None:
    clock = VirtualClock()
    async with opened(rate_per_minute=6000, clock=clock) as (google, transport):
        await asyncio.gather(*[send(google, transport, n) for n in range(100)])
        asked = google.counters.requests
        late = asyncio.ensure_future(send(google, transport, 100, ttl=1))
        await asyncio.sleep(0)
        clock.advance(1.0)
        assert await late == Deferred("no time left after waiting")
        assert google.counters.requests == asked
