"""A notification in Apple's form."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fanout.plugin import Action, InvalidMessage, MessageTooLarge, Notification
from fanout_apns.payload import SUFFIXES, collapse_id, encode

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
APP = "com.example.app"


def content(notification: Notification, **overrides: Any) -> dict[str, Any]:
    made: dict[str, Any] = orjson.loads(encode(notification, APP, overrides).payload)
    return made


def test_every_visible_field_has_its_place() -> None:
    notification = Notification(
        id=ID,
        title="Title",
        subtitle="Sub",
        body="Grüße 🎉",
        badge=3,
        sound="chime.caf",
        category="ORDER",
        thread="orders",
        image="https://example.com/i.png",
        url="https://example.com/o/7",
        actions=(Action("yes", "Yes"), Action("open", "Open", "https://example.com")),
        data={"order": 7, "deep": {"list": [1, None]}},
    )
    assert content(notification) == {
        "aps": {
            "alert": {"title": "Title", "subtitle": "Sub", "body": "Grüße 🎉"},
            "badge": 3,
            "sound": "chime.caf",
            "category": "ORDER",
            "thread-id": "orders",
            "mutable-content": 1,
        },
        "order": 7,
        "deep": {"list": [1, None]},
        "fanout": {
            "id": ID,
            "url": "https://example.com/o/7",
            "image": "https://example.com/i.png",
            "actions": [
                {"id": "yes", "title": "Yes"},
                {"id": "open", "title": "Open", "url": "https://example.com"},
            ],
        },
    }


def test_data_only_is_a_background_push() -> None:
    message = encode(Notification(id=ID, data={"sync": True}, lane="urgent"), APP, {})
    assert orjson.loads(message.payload) == {"aps": {"content-available": 1}, "sync": True, "fanout": {"id": ID}}
    assert (message.headers.push_type, message.headers.priority, message.headers.topic) == ("background", 5, APP)


@pytest.mark.parametrize("notification", [Notification(badge=0), Notification(sound="default")])
def test_a_badge_or_a_sound_alone_is_an_alert_push(notification: Notification) -> None:
    assert encode(notification, APP, {}).headers.push_type == "alert"


@pytest.mark.parametrize(("lane", "priority"), [("urgent", 10), ("normal", 10), ("bulk", 5)])
def test_lanes_become_priorities(lane: Any, priority: int) -> None:
    assert encode(Notification(title="t", lane=lane), APP, {}).headers.priority == priority


@pytest.mark.parametrize(
    ("push_type", "topic"),
    [
        ("alert", "com.example.app"),
        ("background", "com.example.app"),
        ("complication", "com.example.app.complication"),
        ("controls", "com.example.app.push-type.controls"),
        ("fileprovider", "com.example.app.pushkit.fileprovider"),
        ("liveactivity", "com.example.app.push-type.liveactivity"),
        ("location", "com.example.app.location-query"),
        ("mdm", "com.example.app"),
        ("pushtotalk", "com.example.app.voip-ptt"),
        ("voip", "com.example.app.voip"),
        ("widgets", "com.example.app.push-type.widgets"),
    ],
)
def test_each_push_type_has_its_topic(push_type: str, topic: str) -> None:
    headers = encode(Notification(title="t"), APP, {"push_type": push_type}).headers
    assert (headers.push_type, headers.topic) == (push_type, topic)
    assert headers.priority == (5 if push_type == "background" else 10)
    assert len(SUFFIXES) == 11


def test_some_push_types_have_a_payload_of_their_own() -> None:
    for push_type in ("controls", "widgets"):
        assert content(Notification(title="t"), push_type=push_type)["aps"] == {"content-changed": True}
    assert content(Notification(title="t"), push_type="background")["aps"] == {"content-available": 1}


def test_overrides_pass_untouched() -> None:
    aps = {
        "alert": {"loc-key": "HELLO", "body": None},
        "interruption-level": "time-sensitive",
        "sound": {"critical": 1},
    }
    made = content(Notification(title="t", body="b", sound="x"), aps=aps, payload={"mdm": "magic", "n": 1.5})
    assert made["aps"] == {
        "alert": {"title": "t", "body": None, "loc-key": "HELLO"},
        "sound": {"critical": 1},
        "interruption-level": "time-sensitive",
    }
    assert (made["mdm"], made["n"]) == ("magic", 1.5)
    assert content(Notification(title="t"), aps={"alert": "plain"})["aps"]["alert"] == "plain"


def test_headers_can_be_overridden_by_either_name() -> None:
    friendly = encode(
        Notification(title="t", collapse_key="k", expires_at=5e9),
        APP,
        {"push_type": "voip", "topic": "org.other.voip", "priority": 1, "collapse_id": "c", "expiration": 0},
    )
    apple = encode(
        Notification(title="t"),
        APP,
        {
            "headers": {
                "apns-push-type": "voip",
                "apns-topic": "org.other.voip",
                "apns-priority": "1",
                "apns-collapse-id": "c",
                "apns-expiration": "0",
            }
        },
    )
    assert friendly.headers == apple.headers
    assert (friendly.headers.topic, friendly.headers.own_topic) == ("org.other.voip", False)
    assert (friendly.headers.priority, friendly.headers.collapse_id, friendly.headers.expiration) == (1, "c", 0)
    extra = encode(Notification(title="t"), APP, {"headers": {"apns-channel-id": "abc="}})
    assert extra.headers.extra == (("apns-channel-id", "abc="),)


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"apz": {}}, "apz"),
        ({"push_type": "sms"}, "sms"),
        ({"priority": 7}, "priority is '7'"),
        ({"push_type": "background", "priority": 10}, "refuses for a background push"),
        ({"priority": True}, "not bool"),
        ({"collapse_id": "x" * 65}, "64 bytes"),
        ({"collapse_id": "ü"}, "ASCII"),
        ({"expiration": -1}, "UNIX seconds"),
        ({"expiration": "soon"}, "UNIX seconds"),
        ({"topic": "a\r\nb"}, "ASCII"),
        ({"topic": ""}, "ASCII"),
        ({"headers": {"apns-id": ID}}, "apns-id"),
        ({"headers": {"authorization": "bearer x"}}, "authorization"),
        ({"headers": {"X-Other": "x"}}, "X-Other"),
        ({"headers": []}, "must be a table"),
        ({"aps": "x"}, "must be a table"),
        ({"aps": {"x": object()}}, "plain JSON"),
        ({"payload": {"aps": {}}}, "beside it"),
        ({"payload": {"fanout": {}}}, "anything but"),
    ],
)
def test_what_apple_would_refuse_is_refused_here(overrides: dict[str, Any], word: str) -> None:
    with pytest.raises(InvalidMessage, match=word):
        encode(Notification(title="t"), APP, overrides)


@pytest.mark.parametrize("name", ["aps", "fanout"])
def test_data_may_not_take_a_reserved_place(name: str) -> None:
    with pytest.raises(InvalidMessage, match=name):
        encode(Notification(title="t", data={name: 1}), APP, {})


def test_a_suffix_needs_a_topic_to_stand_behind() -> None:
    with pytest.raises(InvalidMessage, match="needs a topic"):
        encode(Notification(title="t"), "", {"push_type": "voip"})
    assert encode(Notification(title="t"), "", {}).headers.topic == ""
    assert encode(Notification(title="t"), "", {"push_type": "voip", "topic": "x.voip"}).headers.topic == "x.voip"


def test_expiration_is_absolute_or_zero() -> None:
    at = 1_800_000_000.9
    assert encode(Notification(title="t", expires_at=at), APP, {}).headers.expiration == 1_800_000_000
    assert encode(Notification(title="t", ttl=0, expires_at=at), APP, {}).headers.expiration == 0
    assert encode(Notification(title="t"), APP, {}).headers.expiration is None


def test_headers_are_made_once_for_notifications_that_have_the_same() -> None:
    first, second = (encode(Notification(title=title, expires_at=1_800_000_000.1), APP, {}) for title in "ab")
    assert first.headers is second.headers
    other = encode(Notification(title="a", expires_at=1_800_000_001.0), APP, {})
    assert other.headers == first.headers._replace(expiration=1_800_000_001)


@pytest.mark.parametrize(
    ("key", "kept"),
    [("order-7", True), ("x" * 64, True), ("x" * 65, False), ("grüße", False), (" padded ", False), ("a\nb", False)],
)
def test_collapse_keys_of_any_form_fit(key: str, kept: bool) -> None:
    made = collapse_id(key)
    assert (made == key) is kept
    assert len(made.encode()) <= 64
    assert made.isascii()
    assert made.isprintable()
    assert collapse_id(key) == made
    assert encode(Notification(title="t", collapse_key=key), APP, {}).headers.collapse_id == made


def test_a_long_collapse_key_is_the_same_everywhere() -> None:
    assert collapse_id("x" * 65) == "07ee0116c35aae9046a7a40a79b233609da971108c4a5cff"


@pytest.mark.parametrize(("push_type", "limit"), [("alert", 4096), ("voip", 5120), ("background", 4096)])
def test_sizes_at_the_border(push_type: str, limit: int) -> None:
    def made(length: int) -> Any:
        return encode(Notification(id=ID, data={"d": "x" * length}), APP, {"push_type": push_type})

    room = limit - made(0).size
    assert made(room).size == limit == len(made(room).payload)
    with pytest.raises(MessageTooLarge) as caught:
        made(room + 1)
    assert (caught.value.size, caught.value.limit) == (limit + 1, limit)


def test_size_counts_bytes_not_characters() -> None:
    assert encode(Notification(title="é"), APP, {}).size == encode(Notification(title="e"), APP, {}).size + 1
