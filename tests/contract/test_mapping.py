"""The table in docs/transports.md of one notification in four forms, held row by row to what the four transports really
make."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from fanout.plugin import Action, InvalidMessage, MessageTooLarge, Notification
from fanout_apns import payload as apns
from fanout_fcm import payload as fcm
from fanout_webpush import payload as webpush
from fanout_wns import payload as wns
from tests.contract.pages import section

SECTION = section("One notification, four shapes")
ROWS = {
    cells[0]: dict(zip(("apns", "fcm", "webpush", "wns"), cells[1:], strict=True))
    for line in SECTION.splitlines()
    if line.startswith("| ") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 5
}
FIELDS: dict[str, dict[str, Any]] = {
    "`title`, `body`": {"title": "Hi", "body": "there"},
    "`subtitle`": {"subtitle": "softly"},
    "`image`": {"image": "https://app.example/picture.png"},
    "`icon`": {"icon": "https://app.example/icon.png"},
    "`badge`": {"badge": 3},
    "`sound`": {"sound": "ms-winsoundevent:Notification.Mail"},
    "`category`": {"category": "chat"},
    "`thread`": {"thread": "room-7"},
    "`url`": {"url": "https://app.example/chat"},
    "`actions`": {"actions": (Action("yes", "Yes", "https://app.example/yes"),)},
    "`data`": {"data": {"order": 17}},
    "`collapse_key`": {"collapse_key": "match-17"},
}
ID = "0197f0c0-0000-7000-8000-000000000000"


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every part of a JSON value under its dotted path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for inner in value:
            yield from flat(inner, path)
    else:
        yield path, value


def of_apns(notification: Notification) -> set[tuple[str, Any]]:
    message = apns.encode(notification, "com.example.app", notification.override("apns"))
    parts = set(flat(json.loads(message.payload)))
    headers = message.headers
    return parts | {
        ("apns-collapse-id", headers.collapse_id),
        ("apns-priority", str(headers.priority)),
        ("apns-push-type", headers.push_type),
        ("apns-expiration", headers.expiration),
    }


def of_fcm(notification: Notification, ttl: int = 60) -> set[tuple[str, Any]]:
    message = fcm.encode(notification, notification.override("fcm"))
    content = json.loads(message.body("token", "x", ttl))["message"]
    parts = set(flat(content))
    return parts | {(f"data.fanout.{path}", value) for path, value in flat(json.loads(content["data"]["fanout"]))}


def of_webpush(notification: Notification) -> set[tuple[str, Any]]:
    message = webpush.encode(notification, notification.override("webpush"))
    parts = set(flat(json.loads(message.plaintext))) if message.plaintext else set()
    return parts | {(name.title(), value) for name, value in message.headers}


def of_wns(notification: Notification) -> set[tuple[str, Any]]:
    message = wns.encode(notification, notification.override("wns"))
    parts: set[tuple[str, Any]] = set(message.headers.items())
    if message.kind == "raw":
        return parts | set(flat(json.loads(message.body)))
    for element in ET.fromstring(message.body).iter():
        parts |= {(element.tag, element.text)} | {(f"{element.tag}.{name}", text) for name, text in element.items()}
        if "launch" in element.attrib:
            parts |= set(flat(json.loads(element.attrib["launch"]), "launch"))
    return parts


FORMS: dict[str, Callable[[Notification], set[tuple[str, Any]]]] = {
    "apns": of_apns,
    "fcm": of_fcm,
    "webpush": of_webpush,
    "wns": of_wns,
}


def test_the_table_has_every_field_of_a_notification() -> None:
    fields = {name for cell in ROWS for name in re.findall(r"`(\w+)`", cell)}
    ours = set(Notification.__dataclass_fields__) - {"id", "accepted_at", "expires_at", "repeat", "transports"}
    assert ours <= fields, ours - fields
    assert set(FIELDS) <= set(ROWS)


@pytest.mark.parametrize("transport", FORMS)
@pytest.mark.parametrize("row", FIELDS)
def test_what_a_field_becomes(row: str, transport: str) -> None:
    """Each name in backticks stands for something that is there with the field and not without it; a dash for
    nothing."""
    cell = ROWS[row][transport]
    plain = (
        Notification(id=ID, title="T")
        if "title" not in FIELDS[row]
        else Notification(id=ID, image="https://a.example/i")
    )
    with_it = Notification(**{"id": ID, "title": plain.title, "image": plain.image} | FIELDS[row])
    form = FORMS[transport]
    paths = {path for path, _ in form(with_it) - form(plain)}
    if cell.startswith("–"):
        assert not paths, f"the table says nothing of {paths}"
        return
    assert paths, f"nothing comes of it, although the table says {cell}"
    named = set(re.findall(r"`([^`]+)`", cell)) - {"setAppBadge", "silent"}
    for name in named - {"aps"}:
        if transport == "wns" and name == "fanout.url":
            name = "launch.fanout.url"
        if transport == "fcm" and name.startswith("fanout."):
            name = f"data.{name}"
        assert any(f".{name}." in f".{path}." for path in paths), f"{name} is not among {sorted(paths)}"


def test_badges_and_sounds_by_themselves() -> None:
    assert ("badge.value", "3") in of_wns(Notification(id=ID, badge=3))
    assert ("X-WNS-Type", "wns/badge") in of_wns(Notification(id=ID, badge=3))
    assert ("fanout.badge", 3) in of_wns(Notification(id=ID, badge=3, data={"a": 1}))
    assert ("launch.fanout.badge", 3) in of_wns(Notification(id=ID, title="T", badge=3))
    assert ("audio.silent", "true") in of_wns(Notification(id=ID, title="T", sound="silent"))
    for alone in ({"badge": 3}, {"sound": "ping"}):
        assert ("apns-push-type", "alert") in of_apns(Notification(id=ID, **alone))
    counted = of_fcm(Notification(id=ID, title="T", badge=3))
    assert ("android.notification.notificationCount", 3) in counted
    for hidden in (Notification(id=ID, badge=3), Notification(id=ID, title="T", badge=0)):
        assert not [path for path, _ in of_fcm(hidden) if path.endswith("notificationCount")]


def test_raw() -> None:
    raw = Notification(id=ID, data={"order": 17})
    assert {("apns-push-type", "background"), ("apns-priority", "5"), ("aps.content-available", 1)} <= of_apns(raw)
    made = of_fcm(raw)
    assert not [path for path, _ in made if "notification" in path]
    assert {("apns.headers.apns-push-type", "background"), ("apns.headers.apns-priority", "5")} <= made
    assert of_webpush(raw) == {("data.order", 17), ("fanout.id", ID)}
    assert webpush.encode(Notification(id=ID), {}).plaintext is None
    assert {("X-WNS-Type", "wns/raw"), ("order", 17), ("fanout.id", ID)} <= of_wns(raw)


def test_its_id_is_everywhere() -> None:
    for kind in ({"title": "T"}, {"data": {"order": 17}}):
        notification = Notification(id=ID, **kind)
        assert ("fanout.id", ID) in of_apns(notification)
        assert ("data.fanout.id", ID) in of_fcm(notification)
        assert ("fanout.id", ID) in of_webpush(notification)
        assert {("fanout.id", ID), ("launch.fanout.id", ID)} & of_wns(notification)


@pytest.mark.parametrize(
    ("lane", "expected"),
    [
        ("urgent", ("10", "HIGH", "HIGH", "10", "high", ("Urgency", "high"), "1")),
        ("normal", ("10", "HIGH", "NORMAL", "10", "normal", None, None)),
        ("bulk", ("5", "NORMAL", "NORMAL", "5", "low", ("Urgency", "low"), "3")),
    ],
)
def test_lanes(lane: Any, expected: tuple[Any, ...]) -> None:
    apple, android, android_raw, ios, web, urgency, windows = expected
    visible, raw = Notification(id=ID, title="T", lane=lane), Notification(id=ID, data={"a": 1}, lane=lane)
    assert ("apns-priority", apple) in of_apns(visible)
    made = of_fcm(visible)
    assert {
        ("android.priority", android),
        ("apns.headers.apns-priority", ios),
        ("webpush.headers.Urgency", web),
    } <= made
    assert ("android.priority", android_raw) in of_fcm(raw)
    assert {one for one in of_webpush(visible) if one[0] == "Urgency"} == ({urgency} if urgency else set())
    assert {value for name, value in of_wns(visible) if name == "X-WNS-Priority"} == ({windows} if windows else set())


def test_times_to_live() -> None:
    notification = Notification(id=ID, title="T", ttl=3600, accepted_at=1e9, expires_at=1e9 + 3600)
    assert ("apns-expiration", 1_000_003_600) in of_apns(notification)
    made = of_fcm(notification, 90 * 86_400)
    assert ("android.ttl", f"{28 * 86_400}s") in made
    assert ("apns.headers.apns-expiration", "1000003600") in made
    assert ("webpush.headers.TTL", "60") in of_fcm(notification, 60)


@pytest.mark.parametrize(("transport", "limit"), [("apns", 4096), ("fcm", 4096), ("webpush", 3993), ("wns", 5000)])
def test_sizes(transport: str, limit: int) -> None:
    assert ROWS["bytes at most"][transport].startswith(str(limit))
    with pytest.raises(MessageTooLarge) as refused:
        FORMS[transport](Notification(id=ID, title="T", body="x" * 6000))
    assert refused.value.limit == limit


def test_a_collapse_key_of_any_form_is_taken_and_is_the_same_everywhere() -> None:
    wild = Notification(id=ID, title="T", collapse_key="ein Schlüssel, länger als es sich gehört: " + "x" * 100)
    for form in FORMS.values():
        assert form(wild) == form(wild)
    assert webpush.topic_of(wild.collapse_key or "") in {value for name, value in of_webpush(wild) if name == "Topic"}


def test_keys_that_data_may_not_have() -> None:
    for transport, names in (("apns", ("fanout", "aps")), ("fcm", ("fanout",)), ("wns", ("fanout",))):
        for name in names:
            with pytest.raises(InvalidMessage):
                FORMS[transport](Notification(id=ID, title="T", data={name: 1}))
    assert of_webpush(Notification(id=ID, title="T", data={"fanout": 1}))


def test_the_example_of_overrides() -> None:
    import fanout

    (code,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    notification = eval(code, {"fanout": fanout})
    assert ("aps.interruption-level", "time-sensitive") in of_apns(notification)
    assert ("X-WNS-Type", "wns/tile") in of_wns(notification)
