"""What a built-in transport says to fit it never refuses, over made-up content; and it says so of what is usually
sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fanout.core.codec import encode
from fanout.core.model import Action, Notification
from fanout_apns.payload import encode as apns
from fanout_apns.transport import ApnsTransport
from fanout_fcm.payload import encode as fcm
from fanout_fcm.transport import FcmTransport
from fanout_webpush.payload import encode as webpush
from fanout_webpush.transport import WebPushTransport
from fanout_wns.payload import encode as wns
from fanout_wns.transport import WnsTransport

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
BUILT_IN: dict[str, tuple[Callable[[Notification, int], bool], Callable[[Notification], Any], int]] = {
    "apns": (ApnsTransport.fits, lambda each: apns(each, "com.example.app", {}), 4096),
    "fcm": (FcmTransport.fits, partial(fcm, overrides={}), 4096),
    "webpush": (WebPushTransport.fits, partial(webpush, overrides={}), 3993),
    "wns": (WnsTransport.fits, partial(wns, overrides={}), 5000),
}

PIECES = st.sampled_from(
    ["a", '"', "\\", "\n", "\x01", "<", "&", "é", "\ufffe", "😀", "google.", "from", "fanout", "aps"]
)
LONG = st.builds(
    lambda piece, times: piece * times, PIECES, st.integers(0, 4000) | st.sampled_from([500, 680, 750, 1190, 3580])
)
TEXT = st.none() | LONG | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | LONG,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(LONG, inner, max_size=3),
    max_leaves=5,
)
ACTIONS = st.lists(st.builds(Action, PIECES, PIECES, url=st.none() | PIECES), max_size=15)
CONTENT = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("title", "body", "subtitle", "image", "icon", "sound", "url", "category", "thread"), TEXT),
        "data": st.dictionaries(PIECES | LONG, JSON, max_size=4),
        "actions": ACTIONS.map(tuple),
        "badge": st.none() | st.integers(0, 2**31 - 1),
        "collapse_key": st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60),
        "ttl": st.sampled_from([0.0, 60.0, 1e7]),
        "lane": st.sampled_from(["urgent", "normal", "bulk"]),
        "transports": st.just({"apns": {"payload": {"fanout": 1}}}),
    },
)


@pytest.mark.parametrize("name", BUILT_IN)
@settings(derandomize=True, deadline=None, max_examples=25)
@given(content=CONTENT)
@example(content={"title": "t", "data": {"google.x": "y"}})
@example(content={"title": '"' * 700, "body": "\ufffe"})
def test_what_fits_is_never_refused(name: str, content: dict[str, Any]) -> None:
    fits, prepare, limit = BUILT_IN[name]
    notification = Notification(**content, id=ID)
    if not fits(notification, len(encode(notification))):
        return
    assert prepare(notification).size <= limit


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_usually_sent_fits(name: str) -> None:
    fits = BUILT_IN[name][0]
    usual = Notification(
        title="Shipped", body="Your order is on its way. " * 10, data={"order": "4711", "n": 3}, badge=2
    )
    assert fits(usual, len(encode(usual)))
    assert not fits(Notification(title="t", transports={name: {"x": 1}}), 40)
