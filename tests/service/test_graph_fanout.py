"""What reaches the devices because of a post on the Graph facade: rows 36 to 42 of the checklist, in each gateway's own
form."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from servicerig import Pushed, Rig

import fanout_apns.payload as apns
import fanout_fcm.payload as fcm
import fanout_webpush.payload as webpush
import fanout_wns.payload as wns

pytestmark = pytest.mark.anyio

ALL = ("apns", "fcm", "webpush", "wns")
SECRET = "the plan is in the drawer"
RAW = {"payload": {"rawContent": SECRET}}
VISUAL = {"payload": {"visualContent": {"title": "Shipped", "body": SECRET}}}


async def reached(rig: Rig, body: dict[str, Any], count: int) -> dict[str, Pushed]:
    """The pushes of one post to alice, by binding."""
    answer = await rig.post(body)
    assert answer.status_code == 201, answer.text
    await rig.quiet()
    assert len(rig.gateways.pushes) == count, [push.binding for push in rig.gateways.pushes]
    return {push.binding: push for push in rig.gateways.pushes}


def as_sent(push: Pushed) -> tuple[bytes, Any]:
    """Body and priority in the gateway's own form."""
    said = push.notification
    if push.binding == "apns":
        made = apns.encode(said, "com.example.app", {})
        return made.payload, (made.headers.push_type, made.headers.priority)
    if push.binding == "fcm":
        body = fcm.encode(said, {}).body("token", "d1Z", 60)
        return body, orjson.loads(body)["message"]["android"]["priority"]
    if push.binding == "wns":
        toast = wns.encode(said, {})
        return toast.body, (toast.headers["X-WNS-Type"], toast.headers.get("X-WNS-Priority"))
    web = webpush.encode(said, {})
    return web.plaintext or b"", dict(web.headers).get("urgency", "normal")


async def test_row_36_without_a_policy_all_platforms_are_reached(rig: Rig) -> None:
    await rig.subscribe("alice", *ALL)
    assert set(await reached(rig, RAW, 4)) == set(ALL)


@pytest.mark.parametrize(
    ("names", "bindings"),
    [
        (["windows"], {"wns"}),
        (["ios", "android"], {"apns", "fcm"}),
        (["webpush"], {"webpush"}),
        (["windows", "ios", "android", "webpush"], set(ALL)),
    ],
)
async def test_row_37_a_policy_restricts_what_is_pushed_and_not_what_is_stored(
    rig: Rig, names: list[str], bindings: set[str]
) -> None:
    await rig.subscribe("alice", *ALL)
    assert set(await reached(rig, {**RAW, "targetPolicy": {"platformTypes": names}}, len(bindings))) == bindings
    assert len(await rig.history()) == 1


async def test_row_37_an_endpoints_own_platform_counts_before_its_bindings(rig: Rig) -> None:
    await rig.service.feed.subscribe(
        "shop", "alice", device="phone", binding="fcm", address="alice-iphone", platform="ios"
    )
    await rig.subscribe("alice", "fcm")
    (push,) = (await reached(rig, {**RAW, "targetPolicy": {"platformTypes": ["ios"]}}, 1)).values()
    assert push.address == "alice-iphone"


async def test_row_38_raw_is_silent_on_every_platform(rig: Rig) -> None:
    await rig.subscribe("alice", *ALL)
    for binding, push in (await reached(rig, {**RAW, "priority": "High"}, 4)).items():
        body, priority = as_sent(push)
        assert SECRET.encode() in body
        said = orjson.loads(body)
        if binding == "apns":
            assert priority == ("background", 5)
            assert said["aps"] == {"content-available": 1}
        elif binding == "fcm":
            assert priority == "HIGH"
            assert "notification" not in said["message"]
            assert "notification" not in said["message"]["android"]
        elif binding == "wns":
            assert priority == ("wns/raw", "1")
        else:
            assert priority == "high"
            assert "title" not in said


@pytest.mark.parametrize(
    ("priority", "android", "windows", "web"),
    [("None", "NORMAL", None, "normal"), ("Low", "NORMAL", "3", "low"), ("High", "HIGH", "1", "high")],
)
async def test_row_38_the_priority_of_raw_is_each_gateways_own(
    rig: Rig, priority: str, android: str, windows: str | None, web: str
) -> None:
    await rig.subscribe("alice", *ALL)
    found = await reached(rig, {**RAW, "priority": priority}, 4)
    assert as_sent(found["apns"])[1] == ("background", 5)
    assert as_sent(found["fcm"])[1] == android
    assert as_sent(found["wns"])[1] == ("wns/raw", windows)
    assert as_sent(found["webpush"])[1] == web


async def test_row_38_a_signal_has_nothing_of_the_content(rig: Rig) -> None:
    await rig.subscribe("alice", *ALL, receive="signal")
    for post in ({**RAW, "appNotificationId": "order-42-of-alice", "groupName": "orders"}, VISUAL):
        rig.gateways.pushes.clear()
        count = 4 if post is not VISUAL else 3
        for push in (await reached(rig, post, count)).values():
            assert push.notification.title is None
            body, _ = as_sent(push)
            for word in (SECRET, "order-42", "orders", "Shipped"):
                assert word.encode() not in body
            assert b"cursor" in body


@pytest.mark.parametrize("priority", ["Low", "None", "High"])
async def test_row_39_visual_is_shown_by_the_platform_and_always_urgent(rig: Rig, priority: str) -> None:
    await rig.subscribe("alice", *ALL)
    found = await reached(rig, {**VISUAL, "priority": priority, "groupName": "orders"}, 3)
    body, how = as_sent(found["apns"])
    assert how == ("alert", 10)
    assert orjson.loads(body)["aps"]["alert"] == VISUAL["payload"]["visualContent"]
    assert orjson.loads(body)["aps"]["thread-id"] == "orders"
    body, how = as_sent(found["fcm"])
    assert how == "HIGH"
    assert orjson.loads(body)["message"]["notification"] == VISUAL["payload"]["visualContent"]
    body, how = as_sent(found["wns"])
    assert how == ("wns/toast", "1")
    assert b"<text>Shipped</text>" in body


async def test_row_40_visual_is_not_sent_to_the_web(rig: Rig) -> None:
    await rig.subscribe("alice", *ALL)
    assert set(await reached(rig, VISUAL, 3)) == {"apns", "fcm", "wns"}


async def test_row_40_nor_is_it_when_the_web_alone_is_chosen(rig: Rig) -> None:
    await rig.subscribe("alice", *ALL)
    await reached(rig, {**VISUAL, "targetPolicy": {"platformTypes": ["webpush"]}}, 0)
    assert len(await rig.history()) == 1


async def test_raw_and_visual_in_one_are_shown_with_the_raw_content_and_the_web_gets_that_alone(rig: Rig) -> None:
    await rig.subscribe("alice", *ALL)
    both = {"payload": {**RAW["payload"], "visualContent": {"title": "Shipped"}}}
    found = await reached(rig, both, 4)
    for binding, push in found.items():
        assert push.notification.data["rawContent"] == SECRET
        assert push.notification.title == (None if binding == "webpush" else "Shipped")


async def test_raw_content_that_no_push_can_carry_is_stored_and_signalled(rig: Rig) -> None:
    await rig.subscribe("alice", *ALL)
    found = await reached(rig, {"payload": {"rawContent": SECRET * 1000}}, 4)
    for push in found.values():
        assert SECRET.encode() not in as_sent(push)[0]
    (item,) = await rig.history()
    assert item["content"]["rawContent"] == SECRET * 1000


async def test_row_41_a_device_that_hangs_delays_no_other(rig: Rig) -> None:
    await rig.subscribe("alice", *ALL)
    rig.gateways.answers["alice-shop-apns"] = held = asyncio.Event()
    for _ in range(3):
        assert (await rig.post(RAW)).status_code == 201
    found = await rig.gateways.arrived(12)
    assert len(found) == 12
    held.set()
    await rig.quiet()


async def test_row_42_one_apps_notification_reaches_no_other_apps_devices(rig: Rig) -> None:
    await rig.subscribe("alice", *ALL)
    await rig.subscribe("alice", "apns", app="news")
    assert all(push.app == "shop" for push in (await reached(rig, RAW, 4)).values())
    answer = await rig.call(
        "GET", "/v1/endpoints", None, headers={"authorization": f"Bearer {rig.app_token('news-server')}"}
    )
    assert [each["binding"] for each in answer.json()["endpoints"]] == ["apns"]
