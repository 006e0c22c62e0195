"""What is posted on the Graph facade, and how it is answered: rows 19 to 35 and 44 of the checklist."""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from servicerig import Rig, running

from fanout.config import Limits
from fanout.plugin import Rejected

pytestmark = pytest.mark.anyio

PATH = "/beta/me/notifications"
VISUAL = {"payload": {"visualContent": {"title": "Shipped", "body": "Order 42 is on its way"}}}
RAW = {"payload": {"rawContent": "any app text"}}
GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def when(answer: httpx.Response) -> datetime:
    found = datetime.fromisoformat(answer.json()["expirationDateTime"])
    assert found.tzinfo is not None
    return found


def invalid(answer: httpx.Response) -> str:
    """The message of a 400."""
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "invalidRequest"
    message: str = answer.json()["error"]["message"]
    return message


@pytest.mark.parametrize("path", ["/me/notifications", "/beta/me/notifications", "/v1.0/me/notifications/"])
async def test_row_19_what_an_accepted_post_is_answered(rig: Rig, path: str) -> None:
    mine = "6f1b3c5e-0000-4000-8000-0123456789ab"
    answer = await rig.post(VISUAL, user="al'ice@contoso.com", path=path, headers={"client-request-id": mine})
    assert answer.status_code == 201
    assert GUID.fullmatch(answer.headers["request-id"])
    assert answer.headers["client-request-id"] == mine
    assert answer.headers["odata-version"] == "4.0"
    assert answer.headers["content-type"].startswith("application/json;odata.metadata=minimal")
    root = rig.url + path.rstrip("/").removesuffix("/me/notifications")
    body = answer.json()
    assert GUID.fullmatch(body["id"])
    assert body["@odata.context"] == f"{root}/$metadata#users('al%27%27ice%40contoso.com')/notifications/$entity"
    assert answer.headers["location"] == f"{root}/me/notifications/{body['id']}"
    again = await rig.call("GET", answer.headers["location"], rig.user_token("al'ice@contoso.com"))
    assert again.status_code == 200
    assert again.json() | {"displayTimeToLive": None} == body | {"displayTimeToLive": None}
    assert (await rig.call("GET", answer.headers["location"], rig.user_token("bob"))).status_code == 404


async def test_row_19_ids_are_on_every_answer_and_differ(rig: Rig) -> None:
    answers = [
        await rig.post(VISUAL),
        await rig.post({}),
        await rig.call("GET", "/nowhere"),
        await rig.call("GET", "/health"),
    ]
    assert len({answer.headers["request-id"] for answer in answers}) == len(answers)
    long = await rig.call("GET", "/health", headers={"client-request-id": "x" * 1000})
    assert "client-request-id" not in long.headers


async def test_row_20_it_is_stored_before_any_push_and_a_failing_push_takes_nothing_back(rig: Rig) -> None:
    await rig.subscribe("alice", "fcm", "apns")
    rig.gateways.answers["alice-shop-fcm"] = Rejected("InvalidArgument")
    rig.gateways.answers["alice-shop-apns"] = held = asyncio.Event()
    answer = await rig.post(VISUAL)
    assert answer.status_code == 201
    await rig.gateways.arrived(2)
    assert [item["id"] for item in await rig.history()] == [answer.json()["id"]]
    held.set()
    await rig.quiet()
    assert [item["id"] for item in await rig.history()] == [answer.json()["id"]]


async def test_row_21_without_an_expiry_it_is_seven_days(rig: Rig) -> None:
    before = datetime.now(UTC)
    left = when(await rig.post(RAW)) - before
    assert timedelta(days=7) <= left + timedelta(milliseconds=1)
    assert left < timedelta(days=7, minutes=1)


async def test_row_22_an_expiry_is_kept_up_to_thirty_days_and_refused_beyond(rig: Rig) -> None:
    now = datetime.now(UTC)
    chosen = (now + timedelta(days=29)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert abs(when(await rig.post({**RAW, "expirationDateTime": chosen})) - (now + timedelta(days=29))) < timedelta(
        seconds=1
    )
    # A sender whose clock is a little ahead asks for the most there is, and gets it.
    ahead = (now + timedelta(days=30, minutes=1)).isoformat()
    assert when(await rig.post({**RAW, "expirationDateTime": ahead})) <= datetime.now(UTC) + timedelta(days=30)
    for text in ((now + timedelta(days=31)).isoformat(), "9999-12-31T23:59:59Z"):
        assert "30 days" in invalid(await rig.post({**RAW, "expirationDateTime": text}))
    for text in ((now - timedelta(seconds=5)).isoformat(), "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"):
        invalid(await rig.post({**RAW, "expirationDateTime": text}))
    for text in ("tomorrow", "", "2030-13-01", "١٢٣٤-01-01"):
        assert "expirationDateTime" in invalid(await rig.post({**RAW, "expirationDateTime": text}))
    assert len(await rig.history()) == 2


@pytest.mark.parametrize("given", [60, "60"])
async def test_row_23_display_time_is_a_number_or_a_text_and_what_is_left_is_answered(rig: Rig, given: Any) -> None:
    answer = await rig.post({**VISUAL, "displayTimeToLive": given})
    assert type(answer.json()["displayTimeToLive"]) is int
    assert 55 <= answer.json()["displayTimeToLive"] < 60


@pytest.mark.parametrize(
    "given", [-1, "-1", "1.5", 1.5, "", " 60", "٦٠", True, 2**31, "9999999999", "99999999999999", [60]]
)
async def test_row_23_another_display_time_is_refused(rig: Rig, given: Any) -> None:
    assert "displayTimeToLive" in invalid(await rig.post({**VISUAL, "displayTimeToLive": given}))


async def test_row_24_platform_names_are_taken_in_any_case(rig: Rig) -> None:
    for names in (["windows"], ["Windows", "IOS"], ["AnDrOiD", "WEBPUSH", "ios"]):
        assert (await rig.post({**RAW, "targetPolicy": {"platformTypes": names}})).status_code == 201
    for bad in (["linux"], [], ["windows", ""], "windows", [1], [None]):
        assert "targetPolicy.platformTypes" in invalid(await rig.post({**RAW, "targetPolicy": {"platformTypes": bad}}))


async def test_row_25_priority_is_a_word_in_any_case(rig: Rig) -> None:
    for given, answered in (("High", "High"), ("high", "High"), ("LOW", "Low"), ("none", "None"), (None, "None")):
        assert (await rig.post({**RAW, "priority": given})).json()["priority"] == answered
    for bad in ("Urgent", "", "1", 1, True):
        assert "priority" in invalid(await rig.post({**RAW, "priority": bad}))


async def test_row_26_neither_raw_nor_visual_is_refused(rig: Rig) -> None:
    for payload in (
        {},
        {"rawContent": None},
        {"rawContent": None, "visualContent": None},
        {"rawContent": ""},
        None,
        "text",
    ):
        assert "payload" in invalid(await rig.post({"payload": payload}))
    assert "payload" in invalid(await rig.post({"targetHostName": "shop.example.com"}))
    assert await rig.history() == []


async def test_row_27_visual_needs_a_title_and_no_body(rig: Rig) -> None:
    for visual in ({"body": "b"}, {"title": ""}, {"title": None, "body": "b"}, {}):
        assert "title" in invalid(await rig.post({"payload": {"visualContent": visual}}))
    assert (await rig.post({"payload": {"visualContent": {"title": "Shipped"}}})).status_code == 201


async def test_row_28_an_array_is_refused(rig: Rig) -> None:
    for body in ([{}], [RAW], [RAW, RAW], []):
        invalid(await rig.post(body))
    assert await rig.history() == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"true",
        b'"text"',
        b"\xff\xfe",
        b'{"payload":{"rawContent":"a"},"payload":{"rawContent":"b"}}',
        b'{"payload":{"rawContent":"\\u0000"}}',
        b'{"payload":{"rawContent":"\\ud800"}}',
        b'{"payload":{"rawContent":"a"},"displayTimeToLive":NaN}',
        b'{"payload":{"rawContent":"a"},"displayTimeToLive":' + b"9" * 400 + b"}",
        b'{"payload":{"rawContent":"a"},"unknown":1}',
        b'{"payload":{"rawContent":1}}',
        b'{"payload":{"rawContent":"a"},"appNotificationId":7}',
        b'{"payload":{"rawContent":"a"},"groupName":{}}',
        b'{"Payload":{"rawContent":"a"}}',
        b"[" * 5000,
        b'{"payload":' * 40 + b"1" + b"}" * 40,
    ],
)
async def test_row_29_what_is_not_of_the_contract_is_refused(rig: Rig, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    invalid(await rig.call("POST", PATH, rig.user_token("alice"), content=body, headers=headers))
    assert await rig.history() == []


async def test_odata_annotations_are_overlooked(rig: Rig) -> None:
    body = {"@odata.type": "#microsoft.graph.notification", **RAW, "priority@odata.type": "#String", "priority": "High"}
    assert (await rig.post(body)).json()["priority"] == "High"


@pytest.mark.parametrize("name", ["If-Modified-Since", "If-Range"])
async def test_row_30_conditional_headers_are_refused(rig: Rig, name: str) -> None:
    assert name in invalid(await rig.post(RAW, headers={name: "Fri, 31 Dec 1999 23:59:59 GMT"}))
    assert await rig.history() == []


async def test_row_31_gzip_and_deflate_are_taken_and_nothing_else(rig: Rig) -> None:
    body = b'{"payload":{"rawContent":"any app text"}}'
    for coding, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body)), ("br", body)):
        headers = {"content-type": "application/json", "content-encoding": coding}
        answer = await rig.call("POST", PATH, rig.user_token("alice"), content=packed, headers=headers)
        assert answer.status_code == (415 if coding == "br" else 201), answer.text
    assert len(await rig.history()) == 2


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", None])
async def test_a_body_that_does_not_say_that_it_is_json_is_415(rig: Rig, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    content = b'{"payload":{"rawContent":"a"}}'
    assert (await rig.call("POST", PATH, rig.user_token("alice"), content=content, headers=headers)).status_code == 415


async def test_a_body_that_is_too_large_as_it_is_or_inflated_is_413(tmp_path: Any) -> None:
    async with running(tmp_path, limits=Limits(body_bytes=2000, inflated_bytes=10_000)) as rig:
        large = b'{"payload":{"rawContent":"' + b"x" * 20_000 + b'"}}'
        for content, headers in ((large, {}), (gzip.compress(large), {"content-encoding": "gzip"})):
            headers = {"content-type": "application/json", **headers}
            answer = await rig.call("POST", PATH, rig.user_token("alice"), content=content, headers=headers)
            assert answer.status_code == 413
            assert answer.json()["error"]["message"]
        assert (await rig.post(RAW)).status_code == 201


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_row_32_other_methods_are_405(rig: Rig, method: str) -> None:
    answer = await rig.call(method, PATH, rig.user_token("alice"), json=RAW)
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "notAllowed"
    assert answer.headers["allow"] == "POST"


async def test_row_33_over_the_limit_it_is_406_with_retry_after_and_429_on_our_own_path(tmp_path: Any) -> None:
    async with running(tmp_path, limits=Limits(posts_per_minute=2)) as rig:
        assert [(await rig.post(RAW)).status_code for _ in range(2)] == [201, 201]
        for path in (PATH, "/me/notifications/", "/v1.0/me/notifications"):
            answer = await rig.post(RAW, path=path)
            assert answer.status_code == 406
            assert 1 <= int(answer.headers["retry-after"]) <= 30
            assert answer.json()["error"]["code"] == "activityLimitReached"
        # Posts of users use up nothing of what the app itself may post.
        sent = [await rig.as_app("POST", "/v1/notifications", json={"target": {"user": "alice"}}) for _ in range(3)]
        assert [answer.status_code for answer in sent] == [202, 202, 429]
        answer = sent[-1]
        assert int(answer.headers["retry-after"]) >= 1
        assert len(await rig.history()) == 2
        other = await rig.as_app("POST", "/v1/notifications", "news", json={"target": {"user": "alice"}})
        assert other.status_code == 202


async def test_row_34_the_senders_id_posted_again_replaces_what_it_was(rig: Rig) -> None:
    await rig.subscribe("alice", "fcm")
    first = await rig.post({**RAW, "appNotificationId": "order-42"})
    again = await rig.post({**VISUAL, "appNotificationId": "order-42"})
    other = await rig.post({**RAW, "appNotificationId": "order-43"})
    assert [answer.status_code for answer in (first, again, other)] == [201, 200, 201]
    assert first.json()["id"] == again.json()["id"]
    found = {item["id"] for item in await rig.history()}
    assert found == {again.json()["id"], other.json()["id"]}
    bobs = await rig.post({**RAW, "appNotificationId": "order-42"}, user="bob")
    assert bobs.status_code == 201


async def test_row_35_raw_is_answered_with_an_empty_payload_and_visual_as_it_was(rig: Rig) -> None:
    raw, visual = await rig.post(RAW), await rig.post({**VISUAL, "groupName": "orders", "appNotificationId": "x"})
    assert raw.json()["payload"] == {}
    assert raw.json()["groupName"] is None
    assert visual.json()["payload"] == VISUAL["payload"]
    assert visual.json()["groupName"] == "orders"
    assert visual.json()["appNotificationId"] == "x"


def fallback(**more: Any) -> dict[str, Any]:
    policy = {"platformTypes": ["ios"], "fallbackDelayInSeconds": 60, "visualContent": {"title": "Order 42"}}
    return {**RAW, "fallbackPolicy": {"endpointFallback": {**policy, **more}}}


async def test_row_44_the_fallback_has_bounds(rig: Rig) -> None:
    for delay, status in ((59, 400), (60, 201), (600, 201), (601, 400), ("60", 400), (None, 400)):
        assert (await rig.post(fallback(fallbackDelayInSeconds=delay))).status_code == status
    for platforms, status in ((["IOS"], 201), ("iOS", 201), (["android"], 400), (["ios", "windows"], 400), ([], 400)):
        assert (await rig.post(fallback(platformTypes=platforms))).status_code == status
    for visual, status in (({"title": "t", "body": "b"}, 201), ({"body": "b"}, 400), (None, 400), ({}, 400)):
        assert (await rig.post(fallback(visualContent=visual))).status_code == status
    for chosen, status in ((["ios"], 201), (["windows", "iOS"], 201), (["windows"], 400), (None, 201)):
        body = {**fallback(), "targetPolicy": {"platformTypes": chosen}}
        assert (await rig.post(body)).status_code == status
    for broken in ({}, {"endpointFallback": {}}, {"endpointFallback": None}, []):
        invalid(await rig.post({**RAW, "fallbackPolicy": broken}))
