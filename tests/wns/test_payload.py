"""A notification in Windows' form."""

from __future__ import annotations

import string
from typing import Any
from xml.etree import ElementTree as ET

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fanout.plugin import Action, InvalidMessage, MessageTooLarge, Notification
from fanout_kit.examples import examples
from fanout_wns.payload import LIMIT, encode, tag

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


def note(**values: Any) -> Notification:
    return Notification(id=ID, **values)


def test_a_visible_notification_is_a_toast() -> None:
    message = encode(
        note(
            title='Ti<t>le & "more"',
            subtitle="sub",
            body="]]> 'body' \n\tné ☃",
            data={"k": [1, {"a": None}], "q": "\"<&>'"},
            image="https://example.com/a.png?x=1&y=2",
            icon="ms-appx:///icon.png",
            url="https://example.com/",
            badge=3,
            sound="ms-winsoundevent:Notification.Mail",
            actions=(Action("yes", "Yes & no"), Action("web", "Web", "https://example.com/?a=b&c")),
        ),
        {},
    )
    root = ET.fromstring(message.body)
    assert root.tag == "toast"
    assert orjson.loads(root.attrib["launch"]) == {
        "k": [1, {"a": None}],
        "q": "\"<&>'",
        "fanout": {"id": ID, "url": "https://example.com/", "badge": 3},
    }
    binding = root.find("visual/binding")
    assert binding is not None
    assert binding.attrib == {"template": "ToastGeneric"}
    assert [text.text for text in binding.findall("text")] == ['Ti<t>le & "more"', "sub", "]]> 'body' \n\tné ☃"]
    assert [image.attrib for image in binding.findall("image")] == [
        {"placement": "appLogoOverride", "src": "ms-appx:///icon.png"},
        {"src": "https://example.com/a.png?x=1&y=2"},
    ]
    first, second = root.findall("actions/action")
    assert first.attrib["content"] == "Yes & no"
    assert first.attrib["activationType"] == "foreground"
    assert orjson.loads(first.attrib["arguments"])["fanout"] == {"id": ID, "action": "yes"}
    assert second.attrib == {"content": "Web", "arguments": "https://example.com/?a=b&c", "activationType": "protocol"}
    audio = root.find("audio")
    assert audio is not None
    assert audio.attrib == {"src": "ms-winsoundevent:Notification.Mail"}
    assert message.headers == {"X-WNS-Type": "wns/toast", "Content-Type": "text/xml"}
    assert message.size == len(message.body)


@pytest.mark.parametrize(
    ("sound", "audio"),
    [(None, None), ("default", None), ("chime.caf", None), ("silent", {"silent": "true"}), ("", {"silent": "true"})],
)
def test_sounds(sound: str | None, audio: dict[str, str] | None) -> None:
    found = ET.fromstring(encode(note(title="t", sound=sound), {}).body).find("audio")
    assert (None if found is None else found.attrib) == audio


def test_data_alone_is_raw_json() -> None:
    message = encode(note(data={"k": "v"}), {})
    assert orjson.loads(message.body) == {"k": "v", "fanout": {"id": ID}}
    assert message.headers == {
        "X-WNS-Type": "wns/raw",
        "Content-Type": "application/octet-stream",
        "X-WNS-Cache-Policy": "cache",
    }


def test_nothing_at_all_is_raw_and_not_empty() -> None:
    assert orjson.loads(encode(note(), {}).body) == {"fanout": {"id": ID}}


def test_a_badge_alone_is_a_badge() -> None:
    message = encode(note(badge=7), {})
    root = ET.fromstring(message.body)
    assert (root.tag, root.attrib) == ("badge", {"value": "7"})
    assert ID.encode() in message.body
    assert message.headers["X-WNS-Type"] == "wns/badge"
    assert orjson.loads(encode(note(badge=7, data={"a": 1}), {}).body)["fanout"]["badge"] == 7


def test_a_tile_is_asked_for() -> None:
    message = encode(note(title="t", body="b", image="ms-appx:///a.png"), {"type": "tile"})
    root = ET.fromstring(message.body)
    assert root.tag == "tile"
    assert {binding.attrib["template"] for binding in root.findall("visual/binding")} == {
        "TileMedium",
        "TileWide",
        "TileLarge",
    }
    assert ID in root.findall("visual")[0].attrib["arguments"]
    assert message.headers["X-WNS-Cache-Policy"] == "cache"


def test_ones_own_xml_is_passed_through_untouched() -> None:
    xml = "<?xml version='1.0'?>\n<toast ><visual/> <!-- é --></toast>"
    message = encode(note(title="other"), {"xml": xml})
    assert message.body == xml.encode()
    assert message.headers["X-WNS-Type"] == "wns/toast"
    assert encode(note(), {"xml": "<badge value='alert'/>"}).headers["X-WNS-Type"] == "wns/badge"


def test_ones_own_raw_text_is_passed_through_untouched() -> None:
    message = encode(note(title="other"), {"raw": " é\x00"})
    assert message.body == " é\x00".encode()
    assert message.kind == "raw"


@pytest.mark.parametrize(
    "overrides",
    [
        {"xml": "<toast>"},
        {"xml": "text"},
        {"xml": "<other/>"},
        {"xml": 5},
        {"xml": "<toast/>", "type": "tile"},
        {"xml": "<toast/>", "raw": "x"},
        {"xml": '<!DOCTYPE toast [<!ENTITY a "b">]><toast>&a;</toast>'},
        {"xml": "<?xml version='1.0' encoding='utf-16'?><toast/>"},
        {"xml": "<toast>\ud800</toast>"},
        {"raw": ""},
        {"raw": b"x"},
        {"raw": "\ud800"},
        {"raw": "x", "type": "toast"},
        {"type": "balloon"},
        {"type": 1},
        {"type": "badge"},
        {"tag": "has space"},
        {"tag": "x" * 17},
        {"group": ""},
        {"priority": 0},
        {"priority": "5"},
        {"priority": True},
        {"cache_policy": "maybe"},
        {"request_for_status": "yes"},
        {"headers": "x"},
        {"headers": {"Authorization": "x"}},
        {"headers": {"X-WNS-Type": "wns/raw"}},
        {"headers": {"x-wns-ttl": "5"}},
        {"headers": {"X-WNS-Foo": "a\r\nInjected: b"}},
        {"headers": {"X-WNS-Foo": "é"}},
        {"headers": {"X-WNS-Foo\r\nA": "b"}},
        {"headers": {"X-WNS-Foo": None}},
        {"launch": "x"},
    ],
)
def test_overrides_that_wns_would_refuse(overrides: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage):
        encode(note(title="t"), overrides)


@pytest.mark.parametrize("kind", ["toast", "tile"])
def test_a_toast_or_tile_shows_something(kind: str) -> None:
    with pytest.raises(InvalidMessage, match="title"):
        encode(note(data={"a": 1}), {"type": kind})


@pytest.mark.parametrize("text", ["\x00", "a\x08b", "\x1b[0m", "\ufffe", "\ud83d"])
def test_what_xml_cannot_hold_is_refused_and_named(text: str) -> None:
    for values in (
        {"title": text},
        {"body": text},
        {"title": "t", "image": text},
        {"title": "t", "icon": text},
        {"title": "t", "actions": (Action("a", text),)},
        {"title": "t", "actions": (Action("a", "b", text),)},
    ):
        with pytest.raises(InvalidMessage, match="control character"):
            encode(note(**values), {})


@pytest.mark.parametrize("data", [{"fanout": 1}, {"k": object()}, {"k": {1, 2}}, {"k": "\ud800"}])
def test_data_that_cannot_be_sent(data: dict[str, Any]) -> None:
    for values in ({"data": data}, {"data": data, "title": "t"}):
        with pytest.raises(InvalidMessage):
            encode(note(**values), {})


def test_the_limit_is_5000_bytes() -> None:
    empty = len(encode(note(title="t", body=""), {}).body) - len("<text />") + len("<text></text>")
    assert encode(note(title="t", body="x" * (LIMIT - empty)), {}).size == LIMIT == 5000
    with pytest.raises(MessageTooLarge) as caught:
        encode(note(title="t", body="x" * (LIMIT - empty + 1)), {})
    assert (caught.value.size, caught.value.limit) == (5001, 5000)
    assert encode(note(), {"raw": "é" * 2500}).size == 5000
    with pytest.raises(MessageTooLarge):
        encode(note(), {"raw": "é" * 2500 + "x"})


@pytest.mark.parametrize(
    ("lane", "given", "header"),
    [("urgent", {}, "1"), ("normal", {}, None), ("bulk", {}, "3"), ("bulk", {"priority": 4}, "4")],
)
def test_the_lane_is_the_priority(lane: Any, given: dict[str, Any], header: str | None) -> None:
    assert encode(note(title="t", lane=lane), given).headers.get("X-WNS-Priority") == header


def test_headers_can_be_given() -> None:
    message = encode(
        note(title="t", collapse_key="key"),
        {
            "tag": "T1",
            "group": "G1",
            "request_for_status": True,
            "headers": {"x-wns-suppresspopup": "true", "x-wns-priority": 2},
        },
    )
    assert message.headers == {
        "X-WNS-Type": "wns/toast",
        "Content-Type": "text/xml",
        "X-WNS-Tag": "T1",
        "X-WNS-Group": "G1",
        "X-WNS-RequestForStatus": "true",
        "x-wns-suppresspopup": "true",
        "X-WNS-Priority": "2",
    }
    assert encode(note(title="t"), {}, request_for_status=True).headers["X-WNS-RequestForStatus"] == "true"
    assert (
        encode(note(title="t"), {"request_for_status": False}, request_for_status=True).headers[
            "X-WNS-RequestForStatus"
        ]
        == "false"
    )


def test_now_or_never_is_not_stored() -> None:
    for values in ({"title": "t"}, {"badge": 1}, {"data": {"a": 1}}):
        message = encode(note(**values), {})
        assert message.now_or_never["X-WNS-Cache-Policy"] == "no-cache"
        assert message.now_or_never.items() - {("X-WNS-Cache-Policy", "no-cache")} <= message.headers.items()


def test_a_collapse_key_is_a_tag() -> None:
    assert encode(note(title="t", collapse_key="score7"), {}).headers["X-WNS-Tag"] == "score7"
    assert "X-WNS-Tag" not in encode(note(data={"a": 1}, collapse_key="score7"), {}).headers
    assert tag("match/7: a score") == tag("match/7: a score") != tag("match/7: a score.")


@settings(derandomize=True, deadline=None, max_examples=examples(200))
@given(st.text(min_size=1, max_size=64))
def test_any_collapse_key_has_a_legal_tag(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        return
    assert 1 <= len(tag(key)) <= 16
    assert set(tag(key)) <= set(string.ascii_letters + string.digits)


@settings(derandomize=True, deadline=None, max_examples=examples(300))
@example("", "", {"\ufffe": "\uffff"})
@given(
    st.text(max_size=80), st.text(max_size=80), st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=3)
)
def test_any_text_comes_out_as_it_went_in_or_is_refused(title: str, body: str, data: dict[str, str]) -> None:
    try:
        message = encode(note(title=title, body=body, data=data), {})
    except InvalidMessage:
        return
    root = ET.fromstring(message.body)
    texts = [text.text or "" for text in root.iter("text")]
    # XML reads every end of a line as one newline (XML 1.0, section 2.11), unless it is escaped.
    assert [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts] == [
        text.replace("\r\n", "\n").replace("\r", "\n") for text in (title, body)
    ]
    assert orjson.loads(root.attrib["launch"]) == {**data, "fanout": {"id": ID}}


def test_what_json_may_hold_and_xml_may_not_arrives_with_an_action_too() -> None:
    message = encode(note(title="t", data={"\ufffe": "\uffff"}, actions=[Action(id="yes", title="Yes")]), {})
    action = ET.fromstring(message.body).find("actions/action")
    assert action is not None
    assert orjson.loads(action.attrib["arguments"])["\ufffe"] == "\uffff"
