"""A notification in Google's form."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.plugin import Action, InvalidMessage, MessageTooLarge, Notification
from fanout_fcm.payload import LIMIT, LONGEST_TTL, encode
from fanout_fcm.simulator.schema import violations
from fanout_kit.examples import examples

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def body(notification: Notification, overrides: dict[str, Any] | None = None, *, ttl: int = 3600) -> dict[str, Any]:
    text = encode(notification, overrides or {}).body("token", "T", ttl)
    values: dict[str, Any] = orjson.loads(text)
    assert set(values) == {"message"}
    assert not violations(values["message"])
    return dict(values["message"])


def test_a_visible_notification_reaches_every_platform() -> None:
    message = body(
        Notification(
            id=ID,
            title="T",
            body="B",
            subtitle="S",
            image="https://example.com/i.png",
            icon="ic_bell",
            badge=3,
            sound="default",
            url="https://example.com/x",
            category="chat",
            thread="t1",
            actions=(Action("yes", "Yes"), Action("no", "No", "https://example.com/no")),
            collapse_key="scores",
            expires_at=1_800_000_000.5,
            data={"a": "1", "n": 2, "deep": {"x": [True, None]}},
        )
    )
    assert message["token"] == "T"
    assert message["notification"] == {"title": "T", "body": "B", "image": "https://example.com/i.png"}
    about = {
        "id": ID,
        "url": "https://example.com/x",
        "actions": [{"id": "yes", "title": "Yes"}, {"id": "no", "title": "No", "url": "https://example.com/no"}],
    }
    fanout = message["data"].pop("fanout")
    assert orjson.loads(fanout) == about
    assert message["data"] == {"a": "1", "n": "2", "deep": '{"x":[true,null]}'}
    assert message["android"] == {
        "priority": "HIGH",
        "ttl": "3600s",
        "collapseKey": "scores",
        "notification": {
            "icon": "ic_bell",
            "sound": "default",
            "channelId": "chat",
            "tag": "scores",
            "notificationCount": 3,
        },
    }
    assert message["apns"] == {
        "headers": {
            "apns-push-type": "alert",
            "apns-priority": "10",
            "apns-collapse-id": "scores",
            "apns-expiration": "1800000000",
        },
        "payload": {
            "aps": {
                "alert": {"title": "T", "subtitle": "S", "body": "B"},
                "badge": 3,
                "sound": "default",
                "category": "chat",
                "thread-id": "t1",
                "mutable-content": 1,
            }
        },
        "fcmOptions": {"image": "https://example.com/i.png"},
    }
    assert message["webpush"] == {
        "headers": {"TTL": "3600", "Urgency": "normal", "Topic": "scores"},
        "notification": {
            "image": "https://example.com/i.png",
            "tag": "scores",
            "actions": [{"action": "yes", "title": "Yes"}, {"action": "no", "title": "No"}],
        },
        "fcmOptions": {"link": "https://example.com/x"},
    }


def test_raw_shows_nothing_and_wakes_the_app() -> None:
    message = body(Notification(id=ID, data={"k": "v"}))
    assert set(message) == {"token", "data", "android", "apns", "webpush"}
    assert message["android"] == {"ttl": "3600s", "priority": "NORMAL"}
    assert message["apns"] == {
        "headers": {"apns-push-type": "background", "apns-priority": "5"},
        "payload": {"aps": {"content-available": 1}},
    }
    assert message["webpush"] == {"headers": {"TTL": "3600", "Urgency": "normal"}}


def test_a_badge_alone_is_an_alert_to_apple() -> None:
    apns = body(Notification(badge=0))["apns"]
    assert apns["headers"]["apns-push-type"] == "alert"
    assert apns["payload"] == {"aps": {"badge": 0}}


@pytest.mark.parametrize(
    ("lane", "visible", "android", "apns", "urgency"),
    [
        ("urgent", True, "HIGH", "10", "high"),
        ("normal", True, "HIGH", "10", "normal"),
        ("bulk", True, "NORMAL", "5", "low"),
        ("urgent", False, "HIGH", "5", "high"),
        ("normal", False, "NORMAL", "5", "normal"),
        ("bulk", False, "NORMAL", "5", "low"),
    ],
)
def test_the_lane_is_the_priority(lane: Any, visible: bool, android: str, apns: str, urgency: str) -> None:
    message = body(Notification(title="T" if visible else None, lane=lane))
    assert message["android"]["priority"] == android
    assert message["apns"]["headers"]["apns-priority"] == apns
    assert message["webpush"]["headers"]["Urgency"] == urgency


def test_the_ttl_is_what_remains_and_at_most_four_weeks() -> None:
    message = encode(Notification(title="T", ttl=366 * 86_400.0), {})
    for ttl, told in ((3600, 3600), (3599, 3599), (0, 0), (LONGEST_TTL + 1, LONGEST_TTL)):
        values = orjson.loads(message.body("token", "T", ttl))["message"]
        assert values["android"]["ttl"] == f"{told}s"
        assert values["webpush"]["headers"]["TTL"] == str(told)


def test_now_or_never_is_told_to_apple() -> None:
    assert body(Notification(title="T", ttl=0), ttl=0)["apns"]["headers"]["apns-expiration"] == "0"


def test_an_icon_is_a_drawable_or_an_address() -> None:
    assert body(Notification(title="T", icon="/i.png"))["webpush"]["notification"] == {"icon": "/i.png"}
    assert "icon" not in body(Notification(title="T", icon="/i.png"))["android"]["notification"]


def test_a_link_of_a_browser_must_be_https() -> None:
    assert "fcmOptions" not in body(Notification(title="T", url="app://x"))["webpush"]


@pytest.mark.parametrize("key", ["k!", "\u00e4", "x" * 33, "x" * 65, "x" * 256, "12345", " a"])
def test_any_collapse_key_becomes_a_legal_one(key: str) -> None:
    message = body(Notification(title="T", collapse_key=key))
    again = body(Notification(title="U", collapse_key=key))
    assert message["android"]["collapseKey"] == key
    collapse = message["apns"]["headers"]["apns-collapse-id"]
    topic = message["webpush"]["headers"]["Topic"]
    assert len(collapse) <= 64
    assert collapse.isascii()
    assert len(topic) <= 32
    assert len(topic) % 4 != 1
    assert topic.replace("-", "").replace("_", "").isalnum()
    assert again["apns"]["headers"]["apns-collapse-id"] == collapse
    assert again["webpush"]["headers"]["Topic"] == topic


def test_fid_and_token_go_into_their_fields_and_are_escaped() -> None:
    message = encode(Notification(title="T"), {})
    assert orjson.loads(message.body("fid", "F", 1))["message"]["fid"] == "F"
    text = 'a"},"validateOnly":true,"x":{"y":"\\'
    values = orjson.loads(message.body("token", text, 1))
    assert set(values) == {"message"}
    assert values["message"]["token"] == text


def test_validate_only_is_beside_the_message() -> None:
    values = orjson.loads(encode(Notification(title="T"), {}, validate_only=True).body("token", "T", 1))
    assert values["validateOnly"] is True
    assert values["message"]["notification"] == {"title": "T"}


@pytest.mark.parametrize("name", ["validateOnly", "validate_only"])
def test_one_notification_alone_may_be_a_dry_run(name: str) -> None:
    values = orjson.loads(encode(Notification(title="T"), {name: True}).body("token", "T", 1))
    assert values["validateOnly"] is True
    assert name not in values["message"]
    values = orjson.loads(encode(Notification(title="T"), {name: False}, validate_only=True).body("token", "T", 1))
    assert "validateOnly" not in values
    with pytest.raises(InvalidMessage, match=name):
        encode(Notification(title="T"), {name: "yes"})


# -- overrides


def test_overrides_are_laid_over_and_pass_through() -> None:
    over = {
        "android": {"collapse_key": "mine", "ttl": "5s", "notification": {"color": "#112233"}, "direct_boot_ok": True},
        "apns": {"headers": {"APNS-Priority": "1"}, "payload": {"aps": {"sound": "x.caf"}, "acme": {"deep_key": 1}}},
        "webpush": {"headers": {"ttl": "7"}, "notification": {"requireInteraction": True}, "data": {"w": "1"}},
        "fcmOptions": {"analyticsLabel": "june"},
        "data": {"more": "1"},
    }
    notification = Notification(title="T", sound="default", collapse_key="k", data={"a": "1"})
    message = orjson.loads(encode(notification, over).body("token", "T", 100))["message"]
    assert message["android"] == {
        "collapse_key": "mine",
        "ttl": "5s",
        "priority": "HIGH",
        "notification": {"sound": "default", "tag": "k", "color": "#112233"},
        "direct_boot_ok": True,
    }
    assert message["apns"]["headers"]["APNS-Priority"] == "1"
    assert "apns-priority" not in message["apns"]["headers"]
    assert message["apns"]["payload"] == {"aps": {"sound": "x.caf"}, "acme": {"deep_key": 1}}
    assert message["webpush"]["headers"]["ttl"] == "7"
    assert "TTL" not in message["webpush"]["headers"]
    assert message["webpush"]["notification"]["requireInteraction"] is True
    assert message["fcmOptions"] == {"analyticsLabel": "june"}
    assert message["data"].keys() == {"a", "more", "fanout"}
    assert not violations(message)


def test_android_v2_takes_the_place_of_android() -> None:
    over = {"android_v2": {"remoteNotification": {"notification": {"title": "V2"}}}}
    message = body(Notification(data={"k": "v"}, collapse_key="k"), over)
    assert "android" not in message
    assert message["android_v2"] == {
        "ttl": "3600s",
        "collapseKey": "k",
        "remoteNotification": {"notification": {"title": "V2"}},
    }


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"token": "x"}, "token"),
        ({"topic": "news"}, "topic"),
        ({"condition": "x"}, "condition"),
        ({"android": {}, "androidV2": {}}, "androidV2"),
        ({"android": "x"}, "android"),
        ({"apns": {"headers": "x"}}, "apns.headers"),
        ({"fcm_options": {}, "fcmOptions": {}}, "twice"),
        ({"android": {"data": {"google.x": "1"}}}, "google.x"),
        ({"android": {"data": {"n": 1}}}, "android.data.n"),
        ({"webpush": {"data": ["x"]}}, "webpush.data"),
        ({"data": {"from": "x"}}, "from"),
        ({"data": {"fanout": "x"}}, "fanout"),
        ({"data": "x"}, "data"),
        ({"android": {"x": object()}}, "plain JSON"),
        ({5: "x"}, "no text"),
    ],
)
def test_overrides_that_google_would_refuse(over: dict[Any, Any], named: str) -> None:
    with pytest.raises(InvalidMessage, match=named):
        encode(Notification(title="T"), over)


# -- data


@pytest.mark.parametrize("key", ["from", "message_type", "google.x", "gcm.notification.title", "fanout"])
def test_reserved_keys_are_refused(key: str) -> None:
    with pytest.raises(InvalidMessage, match=key):
        encode(Notification(data={key: "x"}), {})


@pytest.mark.parametrize("key", ["From", "google", "gcm", "fromage"])
def test_keys_that_only_look_reserved_are_taken(key: str) -> None:
    assert body(Notification(data={key: "x"}))["data"][key] == "x"


@pytest.mark.parametrize("value", [{1, 2}, object(), {1: "x"}, float("nan").__class__])
def test_data_that_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(InvalidMessage):
        encode(Notification(data={"k": value}), {})


# -- size


def filled(length: int) -> Notification:
    return Notification(id=ID, title="T", data={"k": "x" * length})


def test_the_limit_is_met_to_the_byte() -> None:
    fits = LIMIT - encode(filled(0), {}).size
    assert encode(filled(fits), {}).size == LIMIT
    with pytest.raises(MessageTooLarge) as caught:
        encode(filled(fits + 1), {})
    assert (caught.value.size, caught.value.limit) == (LIMIT + 1, LIMIT)
    assert not violations(orjson.loads(encode(filled(fits), {}).body("token", "T", LONGEST_TTL))["message"])


def test_the_largest_platform_counts() -> None:
    over = {"apns": {"payload": {"acme": "x" * 4000}}}
    with pytest.raises(MessageTooLarge):
        encode(Notification(title="T" * 200), over)
    both = {"apns": {"payload": {"acme": "x" * 2000}}, "webpush": {"data": {"w": "x" * 2000}}}
    assert encode(Notification(title="T"), both).size < LIMIT


TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None, max_examples=examples(200))
@given(
    title=TEXT,
    text=TEXT,
    subtitle=TEXT,
    badge=st.none() | st.integers(0, 99),
    data=st.dictionaries(st.text("abcxyz", min_size=1, max_size=8), JSON, max_size=4),
    lane=st.sampled_from(["urgent", "normal", "bulk"]),
    key=st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60),
    ttl=st.integers(0, 10**7),
)
def test_whatever_is_said_google_would_take(
    title: str | None,
    text: str | None,
    subtitle: str | None,
    badge: int | None,
    data: dict[str, Any],
    lane: Any,
    key: str | None,
    ttl: int,
) -> None:
    notification = Notification(
        id=ID, title=title, body=text, subtitle=subtitle, badge=badge, data=data, lane=lane, collapse_key=key
    )
    message = body(notification, ttl=ttl)
    for name, value in data.items():
        told = message["data"][name]
        assert told == value if isinstance(value, str) else orjson.loads(told) == value


@settings(derandomize=True, deadline=None, max_examples=examples(100))
@given(
    notification=st.builds(
        Notification,
        id=st.just(ID),
        title=TEXT,
        body=TEXT,
        subtitle=TEXT,
        badge=st.none() | st.integers(0, 2),
        sound=TEXT,
        category=TEXT,
        thread=TEXT,
        icon=st.sampled_from([None, "ic_bell", "https://example.com/i.png"]),
        image=st.sampled_from([None, "https://example.com/i.png"]),
        url=st.sampled_from([None, "https://example.com/x", "app:x"]),
        actions=st.sampled_from([(), (Action("yes", "Yes"),), (Action("no", "No", "https://example.com/no"),)]),
        data=st.dictionaries(st.sampled_from("abc"), JSON, max_size=2),
        lane=st.sampled_from(["urgent", "normal", "bulk"]),
        collapse_key=st.none() | st.sampled_from(["scores", "Tore ü"]),
        ttl=st.sampled_from([0, 1, 3600]),
        expires_at=st.sampled_from([float("inf"), 1_800_000_000.0, 1_800_000_000.5, 1_800_000_001.0]),
    )
)
def test_what_is_kept_of_other_notifications_changes_nothing(notification: Notification) -> None:
    """An override of no effect has the message made from nothing."""
    kept, anew = encode(notification, {}), encode(notification, {"validateOnly": False})
    assert (kept.size, kept.body("token", "T", 60)) == (anew.size, anew.body("token", "T", 60))
