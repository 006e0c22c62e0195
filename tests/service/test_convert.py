"""From the Graph resource to what is sent: the pure part, over its whole space."""

from __future__ import annotations

from itertools import product

import pytest

from fanout.core.feed import FeedItem
from fanout.service.graph.convert import DEFAULT_EXPIRY, convert, resource
from fanout.service.graph.resource import GraphNotification

NOW = 1_900_000_000.0
PLATFORMS = ("windows", "ios", "android", "webpush")


def reaches(body: dict[str, object], platform: str) -> list[str]:
    """Which forms of a post a device of that platform gets: `shown` or `silent`."""
    plan = convert(GraphNotification.model_validate(body), NOW)
    found = []
    for part in plan.parts:
        named = part.platforms is None or (platform in part.platforms) is not part.inverse
        if named:
            found.append("shown" if part.notification.visible else "silent")
    return found


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("visual", [False, True])
@pytest.mark.parametrize("platform", [*PLATFORMS, "linux", ""])
def test_every_platform_gets_at_most_one_form_and_the_right_one(raw: bool, visual: bool, platform: str) -> None:
    if not raw and not visual:
        return
    payload = {**({"rawContent": "r"} if raw else {}), **({"visualContent": {"title": "t"}} if visual else {})}
    choices = [
        None,
        *([name for name, on in zip(PLATFORMS, bits, strict=True) if on] for bits in product((0, 1), repeat=4)),
    ]
    for chosen in choices:
        if chosen == []:
            continue
        body: dict[str, object] = {"payload": payload}
        if chosen is not None:
            body["targetPolicy"] = {"platformTypes": chosen}
        wanted = chosen is None or platform in chosen
        web = platform == "webpush"
        expected = [] if not wanted else ["shown"] if visual and not web else ["silent"] if raw else []
        assert reaches(body, platform) == expected, (payload, chosen)


def test_times() -> None:
    body: dict[str, object] = {"payload": {"rawContent": "r"}}
    plan = convert(GraphNotification.model_validate(body), NOW)
    assert plan.item.expires_at == NOW + DEFAULT_EXPIRY
    assert plan.parts[0].notification.ttl == DEFAULT_EXPIRY
    shown = convert(GraphNotification.model_validate({**body, "displayTimeToLive": 90}), NOW)
    assert shown.parts[0].notification.ttl == 90
    assert shown.item.expires_at == NOW + DEFAULT_EXPIRY
    soon = {**body, "displayTimeToLive": 90, "expirationDateTime": "2030-03-17T17:46:50Z"}
    assert convert(GraphNotification.model_validate(soon), NOW).parts[0].notification.ttl == 10


def test_a_long_senders_id_still_collapses() -> None:
    body: dict[str, object] = {"payload": {"rawContent": "r"}, "appNotificationId": "é" * 512}
    key = convert(GraphNotification.model_validate(body), NOW).parts[0].collapse_key
    assert key is not None
    assert len(key.encode()) <= 200


def test_what_is_left_of_the_display_time_is_never_below_zero() -> None:
    item = FeedItem(
        id="x", number=1, seq=1, external_id=None, group=None, priority="high", content=b'{"title":"t"}', created_at=NOW,
        modified_at=None, expires_at=NOW + 60, display_until=NOW + 1.5, fallback_at=None,
    )  # fmt: skip
    assert resource(item, user="a", root="", now=NOW)["displayTimeToLive"] == 1
    assert resource(item, user="a", root="", now=NOW + 100)["displayTimeToLive"] == 0
    assert resource(item, user="a", root="", now=NOW)["expirationDateTime"] == "2030-03-17T17:47:40.000Z"


def test_a_raw_post_collapses_in_the_queue_only() -> None:
    """FCM keeps the messages of four collapse keys for a device that is offline, and drops the rest."""
    body = {"appNotificationId": "order-42", "payload": {"rawContent": "x", "visualContent": {"title": "t"}}}
    visual, raw = convert(GraphNotification.model_validate(body), NOW).parts
    assert (visual.notification.collapse_key, visual.collapse_key) == ("order-42", None)
    assert (raw.notification.collapse_key, raw.collapse_key) == (None, "order-42")
