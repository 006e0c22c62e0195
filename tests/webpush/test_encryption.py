"""aes128gcm against the RFCs' own numbers and against two independent implementations, in both directions."""

from __future__ import annotations

import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode

import http_ece
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout_webpush.browsers import Browser, Undecryptable, decode
from fanout_webpush.encryption import BODY_LIMIT, DELIMITER, MAX_PLAINTEXT, encrypt, seal


def raw(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


RFC8188_3_1 = {
    "plaintext": b"I am the walrus",
    "key": "yqdlZ-tYemfogSmv7Ws5PQ",
    "body": "I1BsxtFttlv3u_Oo94xnmwAAEAAA-NAVub2qFgBEuQKRapoZu-IxkIva3MEB1PD-ly8Thjg",
}
RFC8188_3_2 = {
    "records": [b"I am th", b"e walrus"],
    "key": "BO3ZVPxUlnLORbVGMpbT1Q",
    "key_id": b"a1",
    "body": "uNCkWiNYzKTnBN9ji3-qWAAAABkCYTHOG8chz_gnvgOqdGYovxyjuqRyJFjEDyoF1Fvkj6hQPdPHI51OEUKEpgz3SsLWIqS_uA",
}
RFC8291_5 = {
    "plaintext": b"When I grow up, I want to be a watermelon",
    "as_private": "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw",
    "ua_public": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
    "ua_private": "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94",
    "salt": "DGv6ra1nlYgDCS1FRnbzlw",
    "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    "body": (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_"
        "yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    ),
}


def private(text: str) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(raw(text), "big"), ec.SECP256R1())


def browser() -> Browser:
    return Browser("https://updates.push.services.mozilla.com/wpush/v2/x", "")


def test_the_example_of_rfc_8291_comes_out_bit_for_bit() -> None:
    v = RFC8291_5
    body = seal(
        v["plaintext"] + DELIMITER, raw(v["ua_public"]), raw(v["auth"]), private(v["as_private"]), raw(v["salt"])
    )
    assert body == raw(v["body"])
    assert len(body) == 144  # the RFC's own example says Content-Length 145, of a body that has 144


def test_the_browser_reads_the_example_of_rfc_8291() -> None:
    v = RFC8291_5
    reader = Browser("", "", key=private(v["ua_private"]), auth=raw(v["auth"]))
    assert reader.public == raw(v["ua_public"])
    assert reader.decrypt(raw(v["body"])) == v["plaintext"]


def test_the_examples_of_rfc_8188_are_read() -> None:
    one, two = RFC8188_3_1, RFC8188_3_2
    assert decode(raw(one["body"]), lambda key_id: raw(one["key"])) == [one["plaintext"]]
    seen: list[bytes] = []
    assert decode(raw(two["body"]), lambda key_id: seen.append(key_id) or raw(two["key"])) == two["records"]
    assert seen == [two["key_id"]]


def test_http_ece_reads_ours_and_we_read_its() -> None:
    ua = browser()
    plaintext = os.urandom(300)
    ours = encrypt(plaintext + DELIMITER, ua.public, ua.auth)
    assert http_ece.decrypt(ours, private_key=ua.key, auth_secret=ua.auth, version="aes128gcm") == plaintext
    theirs = http_ece.encrypt(
        plaintext,
        private_key=ec.generate_private_key(ec.SECP256R1()),
        dh=ua.public,
        auth_secret=ua.auth,
        version="aes128gcm",
    )
    assert ua.decrypt(theirs) == plaintext


def test_what_pywebpush_encrypts_is_read_and_what_it_would_send_is_like_ours() -> None:
    pywebpush = pytest.importorskip("pywebpush")
    ua = browser()
    encoded = pywebpush.WebPusher(ua.subscription()).encode(b'{"a":1}', "aes128gcm")
    assert ua.decrypt(bytes(encoded["body"])) == b'{"a":1}'
    assert len(encoded["body"]) == len(encrypt(b'{"a":1}' + DELIMITER, ua.public, ua.auth))


@given(st.binary(max_size=MAX_PLAINTEXT))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_every_plaintext_comes_back(plaintext: bytes) -> None:
    ua = browser()
    body = encrypt(plaintext + DELIMITER, ua.public, ua.auth)
    assert ua.decrypt(body) == plaintext
    assert len(body) == len(plaintext) + BODY_LIMIT - MAX_PLAINTEXT


def test_the_largest_plaintext_fills_the_body_exactly() -> None:
    ua = browser()
    assert len(encrypt(bytes(3993) + DELIMITER, ua.public, ua.auth)) == 4096
    assert MAX_PLAINTEXT == 3993


def test_salt_and_key_are_new_for_each_message() -> None:
    ua = browser()
    bodies = {encrypt(b"x" + DELIMITER, ua.public, ua.auth) for _ in range(50)}
    assert len({body[:16] for body in bodies}) == 50
    assert len({body[21:86] for body in bodies}) == 50


def _forged(ua: Browser, *, size: int = 4096, key_id: bytes | None = None, record: bytes = b"x\x02") -> bytes:
    """A body that is right but for what the arguments change."""
    key = ec.generate_private_key(ec.SECP256R1())
    body = seal(record, ua.public, ua.auth, key, os.urandom(16))
    return (
        body[:16]
        + size.to_bytes(4, "big")
        + (body[20:] if key_id is None else bytes((len(key_id),)) + key_id + body[86:])
    )


def _damaged(body: bytes) -> bytes:
    return body[:-1] + bytes((body[-1] ^ 1,))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda ua: _forged(ua, record=b"x\x01"), "delimiter"),
        (lambda ua: _forged(ua, record=b"x\x02\x00\x01"), "delimiter"),
        (lambda ua: _forged(ua, record=bytes(8)), "delimiter"),
        (lambda ua: _forged(ua, size=17), "record size is 17"),
        (lambda ua: _forged(ua, key_id=b""), "key id has 0 bytes"),
        (lambda ua: _forged(ua, key_id=bytes(64)), "key id has 64 bytes"),
        (lambda ua: _forged(ua, key_id=b"\x04" + bytes(63) + b"\x01"), "no point"),
        (lambda ua: _damaged(_forged(ua)), "other keys, or damaged"),
        (lambda ua: _forged(browser()), "other keys, or damaged"),
        (lambda ua: _forged(ua)[:20], "cut off"),
        (lambda ua: _forged(ua)[:86], "no record"),
    ],
)
def test_a_browser_refuses(make, why: str) -> None:  # type: ignore[no-untyped-def]
    ua = browser()
    with pytest.raises(Undecryptable, match=why):
        ua.decrypt(make(ua))


def test_a_browser_refuses_two_records() -> None:
    ua = browser()
    key = ec.generate_private_key(ec.SECP256R1())
    theirs = http_ece.encrypt(bytes(40), private_key=key, dh=ua.public, auth_secret=ua.auth, rs=40, version="aes128gcm")
    with pytest.raises(Undecryptable, match="more than one record"):
        ua.decrypt(theirs)


def test_padding_after_the_delimiter_is_taken_off() -> None:
    ua = browser()
    assert ua.decrypt(encrypt(b"hello\x02" + bytes(100), ua.public, ua.auth)) == b"hello"


def test_a_point_off_the_curve_is_refused() -> None:
    ua = browser()
    off = ua.public[:-1] + bytes((ua.public[-1] ^ 1,))
    with pytest.raises(ValueError, match=r".*"):
        encrypt(b"x\x02", off, ua.auth)


def test_a_subscription_looks_like_the_browsers() -> None:
    subscription = json.loads(json.dumps(browser().subscription()))
    assert set(subscription) == {"endpoint", "expirationTime", "keys"}
    assert len(subscription["keys"]["p256dh"]) == 87
    assert len(subscription["keys"]["auth"]) == 22
    assert urlsafe_b64encode(raw(subscription["keys"]["auth"])).rstrip(b"=").decode() == subscription["keys"]["auth"]
    assert "auth" not in repr(browser())
