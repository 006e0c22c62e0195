"""A notification as the service worker receives it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.plugin import Action, InvalidMessage, MessageTooLarge, Notification
from fanout_kit.examples import examples
from fanout_webpush.payload import WebPushMessage, encode, topic_of, ttl_field

ID = "0197f0c0-0000-7000-8000-000000000000"


def made(*, overrides: dict[str, Any] | None = None, **fields: Any) -> WebPushMessage:
    return encode(Notification(id=ID, **fields), overrides or {})


def content(**fields: Any) -> Any:
    plaintext = made(**fields).plaintext
    assert plaintext is not None
    return json.loads(plaintext)


def test_a_visible_notification() -> None:
    assert content(
        title="Hi",
        body="there",
        icon="https://x/i.png",
        image="https://x/p.png",
        badge=3,
        collapse_key="chat",
        url="https://x/chat",
        actions=(Action("yes", "Yes", "https://x/yes"), Action("no", "No")),
        data={"n": 1, "deep": {"a": [1]}},
    ) == {
        "title": "Hi",
        "body": "there",
        "icon": "https://x/i.png",
        "image": "https://x/p.png",
        "badge": 3,
        "tag": "chat",
        "url": "https://x/chat",
        "actions": [{"action": "yes", "title": "Yes", "url": "https://x/yes"}, {"action": "no", "title": "No"}],
        "data": {"n": 1, "deep": {"a": [1]}},
        "fanout": {"id": ID},
    }


def test_what_is_not_given_is_not_sent() -> None:
    assert content(title="Hi") == {"title": "Hi", "fanout": {"id": ID}}


def test_a_raw_notification_is_its_data() -> None:
    assert content(data={"sync": True}) == {"data": {"sync": True}, "fanout": {"id": ID}}
    assert content(data={"sync": True}, url="https://x", collapse_key="k") == {
        "data": {"sync": True},
        "fanout": {"id": ID},
    }


def test_an_empty_notification_is_a_wake_up_without_a_body() -> None:
    message = made()
    assert message.plaintext is None
    assert message.record == b""
    assert message.size == 0


def test_a_badge_alone_is_content() -> None:
    assert content(badge=0) == {"badge": 0, "fanout": {"id": ID}}


@pytest.mark.parametrize(("lane", "urgency"), [("urgent", "high"), ("normal", None), ("bulk", "low")])
def test_the_lane_is_the_urgency(lane: Any, urgency: str | None) -> None:
    assert dict(made(title="x", lane=lane).headers).get("urgency") == urgency


def test_overrides_of_headers() -> None:
    headers = dict(made(title="x", collapse_key="k", overrides={"urgency": "very-low", "topic": "mine"}).headers)
    assert headers == {"urgency": "very-low", "topic": "mine"}
    assert "topic" not in dict(made(title="x", collapse_key="k", overrides={"topic": ""}).headers)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"urgency": "now"}, "urgency"),
        ({"urgency": 3}, "urgency"),
        ({"topic": "a b"}, "topic"),
        ({"topic": "x" * 33}, "topic"),
        ({"topic": "abcde"}, "4n\\+1"),
        ({"topic": 7}, "topic"),
        ({"fanout": 1}, "fanout"),
        ({"payload": {"x": {1, 2}}}, "plain JSON"),
        ({"payload": "x", "declarative": True}, "keep one"),
        ({"declarative": True}, "navigate"),
        ({"declarative": 7}, "declarative"),
    ],
)
def test_overrides_that_cannot_be_sent(overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidMessage, match=says):
        made(title="x", overrides=overrides)


def test_other_overrides_pass_through_untouched() -> None:
    extra = {"silent": True, "vibrate": [100, 50], "lang": "de", "title": "Theirs"}
    plaintext = made(title="Ours", overrides=extra).plaintext
    assert plaintext is not None
    assert json.loads(plaintext) == {**extra, "fanout": {"id": ID}}


@pytest.mark.parametrize(
    ("payload", "sent"), [("as it is", b"as it is"), ({"b": 1}, b'{"b":1}'), ([], b"[]"), ("", b"")]
)
def test_a_payload_of_ones_own(payload: Any, sent: bytes) -> None:
    assert made(title="x", overrides={"payload": payload}).plaintext == sent


def test_declarative_web_push() -> None:
    message = made(
        title="Hi",
        url="https://x/",
        badge=2,
        actions=(Action("a", "A"),),
        overrides={"declarative": {"silent": True}, "mutable": True},
    )
    assert dict(message.headers)["content-type"] == "application/notification+json"
    assert message.plaintext is not None
    assert json.loads(message.plaintext) == {
        "web_push": 8030,
        "notification": {
            "title": "Hi",
            "navigate": "https://x/",
            "actions": [{"action": "a", "title": "A", "navigate": "https://x/"}],
            "data": {"fanout": {"id": ID}},
            "silent": True,
        },
        "app_badge": "2",
        "mutable": True,
    }


def test_the_limit_is_3993_bytes_to_the_byte() -> None:
    room = 3993 - len(made(title="x", body="").plaintext or b"")
    assert made(title="x", body="b" * room).size == 3993
    with pytest.raises(MessageTooLarge) as raised:
        made(title="x", body="b" * (room + 1))
    assert (raised.value.size, raised.value.limit) == (3994, 3993)
    with pytest.raises(MessageTooLarge):
        made(overrides={"payload": "é" * 1997})


@pytest.mark.parametrize("key", ["news", "a", "x" * 32, "A_b-9", "abc"])
def test_a_legal_collapse_key_of_a_length_that_apple_takes_is_itself(key: str) -> None:
    expected = len(key) % 4 != 1
    assert (topic_of(key) == key) is expected


@given(st.text(min_size=1, max_size=80))
@settings(max_examples=examples(300), deadline=None, derandomize=True)
def test_every_collapse_key_has_a_legal_topic(key: str) -> None:
    topic = topic_of(key)
    assert 0 < len(topic) <= 32
    assert len(topic) % 4 != 1
    assert set(topic) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert topic_of(key) == topic


def test_the_topic_of_a_key_never_changes() -> None:
    assert topic_of("order 4711") == "Rb0HWjLBse4WQtIpPe7FiuGBf7TGSGsF"
    assert topic_of("order 4712") != topic_of("order 4711")


def test_encoding_is_pure() -> None:
    one, two = made(title="x", data={"a": 1}), made(title="x", data={"a": 1})
    assert (one.record, one.headers, one.fields) == (two.record, two.headers, two.fields)


def test_the_ttl_field_is_one_literal() -> None:
    assert ttl_field(86400).endswith(b"\x0586400")
    assert b"ttl" in ttl_field(0)
