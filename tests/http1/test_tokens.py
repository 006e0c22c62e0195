"""Access tokens: one fetch at a time, early renewal in the background, the old one while it is good, no stampede."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from fanout.http.http1_values import Http1Response
from fanout.http.oauth import read_token
from fanout.plugin import Fetched, RequestFailed, Token, TokenError, TokenSource, fetch_token
from fanout.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio


class Endpoint:
    """Counts fetches; `say` decides each one's result, `held` keeps it waiting."""

    def __init__(self) -> None:
        self.fetches = 0
        self.under_way = 0
        self.most = 0
        self.held: asyncio.Event | None = None
        self.say: Callable[[int], Fetched] = lambda n: Fetched(f"token-{n}", 3600.0)

    async def __call__(self) -> Fetched:
        self.fetches += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.held is not None:
                await self.held.wait()
            await asyncio.sleep(0)
            return self.say(self.fetches)
        finally:
            self.under_way -= 1

    def down(self, n: int) -> Fetched:
        raise TokenError("unavailable", "The token endpoint answered 503.")

    def refuses(self, n: int) -> Fetched:
        raise TokenError("misconfigured", "The token endpoint refused the credential.")


def source_of(endpoint: Endpoint) -> tuple[TokenSource, VirtualClock]:
    clock = VirtualClock()
    return TokenSource(endpoint, monotonic=clock.monotonic, rng=random.Random(1)), clock


async def settled(source: TokenSource) -> None:
    """Wait for the fetch that is under way, if any."""
    if (task := source._task) is not None:
        await asyncio.wait((task,))


async def test_many_callers_cost_one_fetch() -> None:
    endpoint = Endpoint()
    source, _ = source_of(endpoint)
    assert source.current() is None
    tokens = await asyncio.gather(*[source.get() for _ in range(100)])
    assert {token.text for token in tokens} == {"token-1"}
    assert endpoint.fetches == 1
    assert source.current() is tokens[0]
    await source.aclose()


async def test_renewal_is_early_and_off_the_path() -> None:
    endpoint = Endpoint()
    source, clock = source_of(endpoint)
    first = await source.get()
    clock.advance(3600 - 300 * 1.1 - 1)
    assert source.current() is first
    assert endpoint.fetches == 1
    clock.advance(32)
    endpoint.held = asyncio.Event()
    assert source.current() is first  # at once, while the renewal is under way
    for _ in range(50):
        assert await source.get() is first
    endpoint.held.set()
    await settled(source)
    assert endpoint.fetches == 2
    second = source.current()
    assert second is not None
    assert second.text == "token-2"
    await source.aclose()


async def test_the_old_token_serves_while_the_endpoint_is_down() -> None:
    endpoint = Endpoint()
    source, clock = source_of(endpoint)
    first = await source.get()
    endpoint.say = endpoint.down
    clock.advance(3400)
    for _ in range(150):
        assert source.current() is first
        await settled(source)
        clock.advance(1)
    # 150 seconds of trouble, at most one try at a time, ever farther apart.
    assert 2 <= endpoint.fetches <= 25
    assert endpoint.most == 1
    clock.advance(60)
    with pytest.raises(TokenError) as caught:
        await source.get()
    assert caught.value.kind == "unavailable"
    endpoint.say = lambda n: Fetched("late", 3600.0)
    clock.advance(60)
    assert (await source.get()).text == "late"
    await source.aclose()


@pytest.mark.parametrize("kind", ["unavailable", "misconfigured"])
async def test_after_a_failure_there_is_no_stampede(kind: str) -> None:
    endpoint = Endpoint()
    endpoint.say = endpoint.down if kind == "unavailable" else endpoint.refuses
    source, clock = source_of(endpoint)
    for _ in range(3):
        results = await asyncio.gather(*[source.get() for _ in range(50)], return_exceptions=True)
        assert {result.kind for result in results if isinstance(result, TokenError)} == {kind}
        assert all(isinstance(result, TokenError) and (result.after or 0) >= 0 for result in results)
    assert endpoint.fetches == 1
    clock.advance(1.0)
    with pytest.raises(TokenError):
        await source.get()
    assert endpoint.fetches == 2
    await source.aclose()


@pytest.mark.parametrize(("kind", "most"), [("unavailable", 10.0), ("misconfigured", 60.0)])
async def test_an_endpoint_that_is_back_is_asked_within_ten_seconds_and_one_that_refused_within_a_minute(
    kind: str, most: float
) -> None:
    endpoint = Endpoint()
    endpoint.say = endpoint.down if kind == "unavailable" else endpoint.refuses
    source, clock = source_of(endpoint)
    waits = []
    for _ in range(60):
        with pytest.raises(TokenError) as caught:
            await source.get()
        waits.append(caught.value.after or 0.0)
        clock.advance(waits[-1])
    assert endpoint.fetches == 60
    assert max(waits) <= most
    assert sum(waits) >= 60 * most / 4, "and left in peace meanwhile"
    await source.aclose()


async def test_the_wait_that_the_endpoint_asks_for_is_kept() -> None:
    endpoint = Endpoint()

    def busy(n: int) -> Fetched:
        raise TokenError("unavailable", "busy", after=40.0)

    endpoint.say = busy
    source, clock = source_of(endpoint)
    for advance, fetches in ((0, 1), (39, 1), (2, 2)):
        clock.advance(advance)
        with pytest.raises(TokenError) as caught:
            await source.get()
        assert endpoint.fetches == fetches
        assert caught.value.after is not None
    await source.aclose()


async def test_a_thousand_refusals_of_one_token_cost_one_fetch() -> None:
    endpoint = Endpoint()
    source, _ = source_of(endpoint)
    first = await source.get()
    renewed = await asyncio.gather(*[source.renew(first) for _ in range(1000)])
    assert {token.text for token in renewed} == {"token-2"}
    assert endpoint.fetches == 2
    assert await source.renew(first) is renewed[0]  # a late refusal of the first
    assert endpoint.fetches == 2
    await source.aclose()


async def test_a_cancelled_caller_leaves_the_fetch_to_the_others() -> None:
    endpoint = Endpoint()
    endpoint.held = asyncio.Event()
    source, _ = source_of(endpoint)
    tasks = [asyncio.ensure_future(source.get()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert tasks[0].cancelled()
    endpoint.held.set()
    assert {token.text for token in await asyncio.gather(*tasks[1:])} == {"token-1"}
    assert endpoint.fetches == 1
    await source.aclose()


async def test_closing_ends_the_fetch_and_who_waits_for_it() -> None:
    endpoint = Endpoint()
    endpoint.held = asyncio.Event()
    source, _ = source_of(endpoint)
    tasks = [asyncio.ensure_future(source.get()) for _ in range(3)]
    while not endpoint.under_way:
        await asyncio.sleep(0.001)
    await source.aclose()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, TokenError)
        assert result.kind == "unavailable"
    assert endpoint.under_way == 0
    await source.aclose()
    with pytest.raises(TokenError):
        await source.get()
    assert endpoint.fetches == 1


async def test_a_fault_of_the_fetcher_is_an_error_without_its_text() -> None:
    endpoint = Endpoint()

    def broken(n: int) -> Fetched:
        raise RuntimeError("client_secret=hunter22")

    endpoint.say = broken
    source, _ = source_of(endpoint)
    with pytest.raises(TokenError) as caught:
        await source.get()
    assert "RuntimeError" in str(caught.value)
    assert "hunter22" not in f"{caught.value!r} {caught.value.__context__!r} {caught.value.__cause__!r}"
    await source.aclose()


def test_no_token_is_shown() -> None:
    assert "abc" not in repr(Token("abc", 0, 1))
    assert "abc" not in repr(Fetched("abc", 1))


# -- the token endpoint's answer


def answer(status: int, body: Any = b"", **headers: str) -> Http1Response:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Http1Response(status, raw, {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(("lifetime", "seconds"), [(86400, 86400.0), ("86399", 86399.0), (None, 3600.0), (1.5, 1.5)])
def test_a_token_is_read(lifetime: Any, seconds: float) -> None:
    body = {"access_token": "Ew-token_1.2~3+4/5==", "token_type": "bearer"}
    if lifetime is not None:
        body["expires_in"] = lifetime
    assert read_token(answer(200, body), now=0) == Fetched("Ew-token_1.2~3+4/5==", seconds)


@pytest.mark.parametrize(
    ("lifetime", "seconds"),
    [("soon", 3600.0), (True, 3600.0), ([5], 3600.0), ("nan", 3600.0), (1e300, 31 * 86_400.0), ("1e999", 31 * 86_400.0),
     (None, 3600.0), (315_360_000, 31 * 86_400.0)],
)  # fmt: skip
def test_a_lifetime_that_is_none_does_not_make_a_token_useless(lifetime: Any, seconds: float) -> None:
    body = json.dumps({"access_token": "goodtoken\n", "expires_in": lifetime}).encode()
    assert read_token(answer(200, body), now=0) == Fetched("goodtoken", seconds)


@pytest.mark.parametrize(
    "body", [b"", b"<html>Blocked</html>", b"{", b"[]", b"{}", {"message": "Forbidden"}, {"error": ""}]
)
@pytest.mark.parametrize("status", [204, 301, 302, 307, 400, 401, 403, 404, 405, 407, 451])
def test_an_answer_of_something_before_the_endpoint_is_no_verdict_on_the_credential(status: int, body: Any) -> None:
    """A captive portal, a firewall's page, a balancer without its backend: nothing is known of the key."""
    with pytest.raises(TokenError, match=f"{status}, without an error of OAuth") as caught:
        read_token(answer(status, body), now=0)
    assert caught.value.kind == "unavailable"


@pytest.mark.parametrize("error", ["temporarily_unavailable", "server_error", "slow_down"])
@pytest.mark.parametrize("status", [400, 401, 403])
def test_trouble_that_the_endpoint_names_is_no_verdict_on_the_credential(status: int, error: str) -> None:
    with pytest.raises(TokenError, match=error) as caught:
        read_token(answer(status, {"error": error}, retry_after="9"), now=0)
    assert (caught.value.kind, caught.value.after) == ("unavailable", 9.0)


def test_a_refusal_in_the_form_of_googles_apis_is_one() -> None:
    with pytest.raises(TokenError) as caught:
        read_token(answer(403, {"error": {"code": 403, "status": "PERMISSION_DENIED"}}), now=0)
    assert caught.value.kind == "misconfigured"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        {},
        {"access_token": 5},
        {"access_token": ""},
        {"access_token": "with space in it"},
        {"access_token": "line\r\nInjected: header"},
        {"access_token": "x" * 20_000},
        {"access_token": "goodtoken", "expires_in": 0},
        {"access_token": "goodtoken", "expires_in": -5},
        {"access_token": "goodtoken", "expires_in": "-1"},
    ],
)
def test_an_unusable_answer_is_trouble_of_the_endpoint(body: Any) -> None:
    with pytest.raises(TokenError) as caught:
        read_token(answer(200, body), now=0)
    assert caught.value.kind == "unavailable"
    assert "goodtoken" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind", "after"),
    [(400, "misconfigured", None), (401, "misconfigured", None), (403, "misconfigured", None), (302, "misconfigured", None),
     (429, "unavailable", 7.0), (500, "unavailable", 7.0), (503, "unavailable", 7.0)],
)  # fmt: skip
def test_a_refusal_says_whose_fault_it_is(status: int, kind: str, after: float | None) -> None:
    body = {
        "error": "invalid_client",
        "error_description": "AADSTS7000215: Invalid client secret 'hunter22' for app 'me'. Trace ID: 1",
    }
    with pytest.raises(TokenError) as caught:
        read_token(answer(status, body, retry_after="7"), now=0)
    assert (caught.value.kind, caught.value.after) == (kind, after)
    assert "invalid_client, AADSTS7000215" in str(caught.value)
    assert "hunter22" not in str(caught.value)


async def test_the_form_is_encoded_and_a_failed_request_is_trouble() -> None:
    posted: list[tuple[str, str, dict[str, str], bytes]] = []

    class Client:
        fails = False

        async def request(self, method: str, url: str, headers: dict[str, str], body: bytes) -> Http1Response:
            posted.append((method, url, headers, body))
            if self.fails:
                raise RequestFailed("no", "connect")
            return answer(200, {"access_token": "goodtoken", "expires_in": 60})

    client: Any = Client()
    form = {"client_secret": "a+b/c=&d é", "scope": "x y"}
    assert (await fetch_token(client, "https://login.example.com/token", form, now=0)).text == "goodtoken"
    method, _, headers, body = posted[0]
    assert (method, headers["Content-Type"]) == ("POST", "application/x-www-form-urlencoded")
    assert body == b"client_secret=a%2Bb%2Fc%3D%26d+%C3%A9&scope=x+y"
    client.fails = True
    with pytest.raises(TokenError, match="connect") as caught:
        await fetch_token(client, "https://login.example.com/token", form, now=0)
    assert caught.value.kind == "unavailable"
