"""A browser's PushSubscription, as it is registered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.plugin import AddressInvalid
from fanout_kit.examples import examples
from fanout_webpush.address import canonical, on_curve, parse, take_apart
from fanout_webpush.browsers import Browser

URL = "https://updates.push.services.mozilla.com/wpush/v2/gAAAAABsecret"


def subscription() -> dict[str, Any]:
    return Browser(URL, "").subscription()


def test_text_and_object_are_one_subscription() -> None:
    raw = subscription()
    spaced = json.dumps(raw, indent=4)
    assert parse(raw) == parse(spaced)
    assert canonical(parse(raw)) == canonical(parse(spaced))


def test_the_canonical_text_reads_back_and_stays_itself() -> None:
    text = canonical(parse(subscription()))
    assert take_apart(text) == parse(text)
    assert canonical(parse(text)) == text
    assert set(json.loads(text)) == {"endpoint", "keys"}


def test_other_forms_of_base64_are_the_same_keys() -> None:
    raw = subscription()
    other = {
        "endpoint": URL,
        "keys": {name: value.replace("-", "+").replace("_", "/") + "=" for name, value in raw["keys"].items()},
    }
    assert parse(other) == parse(raw)


def _with(**changes: Any) -> dict[str, Any]:
    raw = subscription()
    keys = raw["keys"] | {name: changes.pop(name) for name in ("p256dh", "auth") if name in changes}
    return raw | {"keys": keys} | changes


OFF_CURVE = "BP" + "A" * 85
INFINITY = "AA"
COMPRESSED = "A" + "x" * 43


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ("", "not JSON"),
        (URL, "not JSON"),
        ("[1]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("{" * 9000, "8192"),
        ({}, "endpoint"),
        ({"endpoint": URL}, "no keys"),
        ({"endpoint": URL, "keys": None}, "no keys"),
        ({"endpoint": URL, "keys": {"auth": "AA"}}, "p256dh"),
        (_with(endpoint=7), "endpoint"),
        (_with(endpoint=""), "endpoint"),
        (_with(endpoint=URL + " x"), "endpoint"),
        (_with(endpoint=URL + "\r\nX: y"), "endpoint"),
        (_with(endpoint=URL + "é"), "endpoint"),
        (_with(endpoint=URL + "x" * 2048), "endpoint"),
        (_with(p256dh=7), "p256dh"),
        (_with(p256dh="!!!"), "p256dh"),
        (_with(p256dh="A"), "p256dh"),
        (_with(p256dh=OFF_CURVE), "P-256"),
        (_with(p256dh=INFINITY), "P-256"),
        (_with(p256dh=COMPRESSED), "P-256"),
        (_with(auth=""), "auth has 0 bytes"),
        (_with(auth="A" * 20), "auth has 15 bytes"),
        (_with(auth="A" * 24), "auth has 18 bytes"),
        (_with(auth=None), "auth"),
    ],
)
def test_what_is_no_subscription_is_refused_without_being_shown(raw: Any, says: str) -> None:
    with pytest.raises(AddressInvalid) as raised:
        parse(raw)
    assert says in str(raised.value)
    assert "gAAAAABsecret" not in str(raised.value)


def test_our_curve_check_agrees_with_the_library() -> None:
    for _ in range(50):
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        assert on_curve(point)
        off = point[:-1] + bytes((point[-1] ^ 1,))
        assert not on_curve(off)
        with pytest.raises(ValueError, match=r".*"):
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), off)


def test_coordinates_beyond_the_field_are_off_the_curve() -> None:
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    y = pow(b, (p + 1) // 4, p)  # the point with x = 0
    assert on_curve(b"\4" + bytes(32) + y.to_bytes(32, "big"))
    assert not on_curve(b"\4" + p.to_bytes(32, "big") + y.to_bytes(32, "big"))


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=20),
        lambda x: (
            st.dictionaries(st.sampled_from(["endpoint", "keys", "auth", "p256dh", "x"]), x) | st.lists(x, max_size=2)
        ),
    )
)
@settings(max_examples=examples(300), deadline=None, derandomize=True)
def test_anything_else_is_refused_in_one_way(raw: Any) -> None:
    with pytest.raises(AddressInvalid):
        parse(json.dumps(raw))


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"endpoint":"x","keys":{"p256dh":1,"auth":2}}', '{"keys":[]}']
)
def test_a_damaged_row_is_told_apart(text: str) -> None:
    with pytest.raises(ValueError, match="no subscription"):
        take_apart(text)


def test_nothing_is_shown() -> None:
    assert "mozilla" not in repr(parse(subscription()))


@pytest.mark.parametrize("change", [('"auth":"', '"autx":"'), ('"p256dh"', '"p256dx"'), ("{", "["), ("}}", "}]")])
def test_a_text_that_is_not_quite_canonical_is_told_apart(change: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="no subscription"):
        take_apart(canonical(parse(subscription())).replace(*change))


def test_keys_that_are_no_base64_are_told_apart() -> None:
    text = canonical(parse(subscription()))
    with pytest.raises(ValueError, match=r".*"):
        take_apart(text[:-30] + "!" + text[-29:])
    with pytest.raises(ValueError, match=r".*"):
        take_apart(text[:-10] + "!" + text[-9:])
