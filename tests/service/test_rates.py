"""What one caller may do in a minute, and that it takes nothing from the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servicerig import key_of, running

from fanout.config import Limits
from fanout.service.rates import Rates

RAW = {"targetHostName": "shop.example.com", "payload": {"rawContent": "x"}}


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 30)), max_size=60), st.integers(1, 10))
def test_no_key_takes_from_another(events: list[tuple[int, float]], most: int) -> None:
    rates, now = Rates(), 0.0
    alone = {key: Rates() for key, _ in events}
    for key, step in events:
        now += step
        assert rates.take(key, most, now) == pytest.approx(alone[key].take(key, most, now))


@given(st.lists(st.floats(0, 20), min_size=1, max_size=200), st.integers(1, 20))
def test_no_minute_has_more_than_twice_the_allowance(steps: list[float], most: int) -> None:
    rates, now, taken = Rates(), 0.0, []
    for step in steps:
        now += step
        if rates.take("key", most, now) == 0.0:
            taken.append(now)
    for at in taken:
        assert sum(at <= each < at + 60 for each in taken) <= 2 * most


def test_what_has_rested_is_forgotten_and_the_number_is_bounded() -> None:
    rates = Rates()
    for number in range(150_000):
        rates.take(number, 10, 1.0)
    assert len(rates) == 100_000
    rates.take("late", 10, 100.0)
    assert len(rates) == 1


@pytest.mark.anyio
async def test_a_user_that_posts_too_much_holds_nobody_else_back(tmp_path: Path, anyio_backend: Any) -> None:
    async with running(tmp_path, limits=Limits(user_posts_per_minute=3)) as rig:
        assert [(await rig.post(RAW)).status_code for _ in range(4)] == [201, 201, 201, 406]
        refused = await rig.post(RAW)
        assert refused.json()["error"]["code"] == "activityLimitReached"
        assert "This user" in refused.json()["error"]["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert (await rig.post(RAW, user="bob")).status_code == 201
        sent = await rig.as_app("POST", "/v1/notifications", json={"target": {"user": "alice"}, "title": "T"})
        assert sent.status_code == 202


@pytest.mark.anyio
async def test_changes_and_streams_have_rates_of_their_own(tmp_path: Path, anyio_backend: Any) -> None:
    limits = Limits(user_changes_per_minute=2, user_streams_per_minute=2)
    async with running(tmp_path, limits=limits) as rig:
        token = rig.user_token("alice")
        patched = [
            (await rig.call("PATCH", "/v1/me/feed/none", token, json={"read": True})).status_code for _ in range(3)
        ]
        assert patched == [404, 404, 429]
        subscribed = await rig.call("POST", "/v1/me/subscriptions", token, json={"device_id": "phone"})
        assert subscribed.status_code == 429
        begun = []
        for _ in range(3):
            async with rig.http.stream(
                "GET", "/v1/me/feed/events", headers={"authorization": f"Bearer {token}"}
            ) as stream:
                begun.append(stream.status_code)
        assert begun == [200, 200, 429]
        assert (await rig.post(RAW)).status_code == 201
        other = await rig.call("PATCH", "/v1/me/feed/none", rig.user_token("bob"), json={"read": True})
        assert other.status_code == 404


@pytest.mark.anyio
async def test_a_feeds_content_and_pages_are_bounded_in_bytes(tmp_path: Path, anyio_backend: Any) -> None:
    limits = Limits(content_bytes=30_000, user_posts_per_minute=1000)
    async with running(tmp_path, limits=limits) as rig:
        await rig.subscribe("alice", "webpush")
        large = await rig.post({**RAW, "payload": {"rawContent": "x" * 30_000}})
        assert large.status_code == 413, large.text
        assert "30,0" in large.json()["error"]["message"]
        own = await rig.as_app(
            "POST",
            "/v1/notifications",
            json={"target": {"user": "alice"}, "title": "T", "body": "x" * 30_000, "feed": True},
        )
        assert own.status_code == 413, own.text
        for _ in range(80):
            assert (await rig.post({**RAW, "payload": {"rawContent": "x" * 29_000}})).status_code == 201
        token, cursor, seen = rig.user_token("alice"), None, []
        for order in ("changed", "newest"):
            cursor, seen, sizes = None, [], []
            while True:
                asked = {"limit": "1000", "order": order} | ({"cursor": cursor} if cursor else {})
                answer = await rig.call("GET", "/v1/me/feed", token, params=asked)
                sizes.append(len(answer.content))
                page = answer.json()
                seen += [item["id"] for item in page["items"]]
                cursor = page["cursor"]
                if not page["more"]:
                    break
            assert len(sizes) == 2
            assert max(sizes) < 1_048_576 + 33 * 30_000
            assert len(seen) == len(set(seen)) == 80


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=20), st.integers(1, 5))
def test_to_look_counts_nothing_and_says_what_taking_would(steps: list[tuple[int, bool]], most: int) -> None:
    rates, now = Rates(), 0.0
    for step, taken in steps:
        now += step / 2
        wait = rates.wait("key", now)
        assert rates.wait("key", now) == wait
        if taken:
            assert rates.take("key", most, now) == pytest.approx(wait, abs=1e-6)


@pytest.mark.anyio
async def test_a_key_whose_requests_are_refused_waits_and_nobody_else_does(tmp_path: Path, anyio_backend: Any) -> None:
    async with running(tmp_path, limits=Limits(refusals_per_minute=3)) as rig:
        wrong = [(await rig.as_app("POST", "/v1/notifications", json={"nothing": n})).status_code for n in range(4)]
        assert wrong == [400, 400, 400, 429]
        refused = await rig.as_app("GET", "/v1/endpoints")
        assert refused.status_code == 429, "what would have been good as well"
        assert refused.json()["error"]["innerError"]["code"] == "refusals"
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert (await rig.as_app("GET", "/v1/endpoints", app="news")).status_code == 200
        assert (await rig.call("GET", "/v1/me/feed", rig.user_token("alice"))).status_code == 200


@pytest.mark.anyio
async def test_what_strangers_present_in_a_keys_name_holds_it_back_by_nothing(
    tmp_path: Path, anyio_backend: Any
) -> None:
    async with running(tmp_path, limits=Limits(refusals_per_minute=2)) as rig:
        good = key_of("shop")
        for n in range(5):
            assert (await rig.call("GET", "/v1/endpoints", good[:-9] + f"{n:09}")).status_code == 401
        for _ in range(5):
            assert (await rig.as_app("GET", "/v1/endpoints")).status_code == 200
            assert (await rig.call("GET", "/v1/me/feed?cursor=" + "0" * 39, rig.user_token("bob"))).status_code in (
                400,
                410,
                429,
            )
        assert (await rig.as_app("GET", "/v1/endpoints")).status_code == 200, "nor do its users"
