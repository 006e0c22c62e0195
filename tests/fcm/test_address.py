"""Registration tokens and installation ids."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.plugin import AddressInvalid
from fanout_fcm.address import APPLE, FID, TOKEN, WEB, parse_address
from fanout_fcm.simulator import FcmSimulator
from fanout_kit.examples import examples

FID_TEXT = FcmSimulator.address(1, "fid")
TOKEN_TEXT = FcmSimulator.address(1)


def test_a_text_is_told_by_its_form() -> None:
    assert parse_address(TOKEN_TEXT).kind == TOKEN
    assert parse_address(f" {FID_TEXT}\n").kind == FID
    assert parse_address(f" {FID_TEXT}\n").value == FID_TEXT
    assert parse_address("g" + FID_TEXT[1:] + "x").kind == TOKEN  # an id begins with c, d, e or f


def test_a_mapping_says_which_it_is() -> None:
    assert parse_address({"fid": FID_TEXT}).kind == FID
    assert parse_address({"token": FID_TEXT}).kind == TOKEN  # Google takes an id in the token's field meanwhile
    assert parse_address(orjson.dumps({"token": TOKEN_TEXT}).decode()) == parse_address(TOKEN_TEXT)


@pytest.mark.parametrize(
    ("platform", "group"), [("android", ""), ("ios", APPLE), ("Apple", APPLE), ("Web", WEB), ("", "")]
)
def test_the_platform_decides_with_whom_it_shares_fate(platform: str, group: str) -> None:
    assert parse_address({"token": TOKEN_TEXT, "platform": platform}).group == group


@pytest.mark.parametrize(
    "raw",
    [
        {"fid": TOKEN_TEXT},
        {"fid": "g" + FID_TEXT[1:]},
        {"token": TOKEN_TEXT, "fid": FID_TEXT},
        {"token": TOKEN_TEXT, "platform": "symbian"},
        {"token": TOKEN_TEXT, "platform": 5},
        {"token": TOKEN_TEXT, "other": "x"},
        {"token": None},
        {},
        "",
        "a",
        f"{TOKEN_TEXT} {TOKEN_TEXT}",
        TOKEN_TEXT + '"',
        TOKEN_TEXT + "\\",
        TOKEN_TEXT + "\u00e9",
        TOKEN_TEXT + "\x00",
        "{",
        '{"token": 1}',
        '["x"]',
    ],
)
def test_anything_else_is_refused_and_not_repeated(raw: object) -> None:
    with pytest.raises(AddressInvalid) as caught:
        parse_address(raw)  # type: ignore[arg-type]
    assert TOKEN_TEXT[:20] not in str(caught.value)


@settings(derandomize=True, deadline=None, max_examples=examples(300))
@given(st.text(max_size=200))
def test_no_text_breaks_it_and_what_it_takes_needs_no_escaping(text: str) -> None:
    try:
        value = parse_address(text).value
    except AddressInvalid:
        return
    assert orjson.dumps(value) == b'"' + value.encode("ascii") + b'"'
    assert parse_address(value).value == value
