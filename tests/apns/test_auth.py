"""The provider token: what is in it, and when there is a new one."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.plugin import Secret
from fanout_apns.auth import CLOCK_SLACK, LIFETIME, OLD, SLOT, SPACING, Expired, ProviderToken, shared_token
from fanout_kit.examples import examples

START = 1_800_000_123.0
PRIVATE = ec.generate_private_key(ec.SECP256R1())
KEY = Secret(PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def made(now: float = START, monotonic: float = 0.0) -> ProviderToken:
    token = ProviderToken("ABCDE12345", "KEY1234567", KEY)
    assert token.refresh(now, monotonic)
    return token


def claims(token: ProviderToken) -> dict[str, Any]:
    options: Any = {"verify_iat": False}
    return dict(jwt.decode(token.text, PRIVATE.public_key(), algorithms=["ES256"], options=options))


def test_an_independent_library_accepts_it() -> None:
    token = made()
    assert jwt.get_unverified_header(token.text) == {"alg": "ES256", "kid": "KEY1234567"}
    assert claims(token) == {"iss": "ABCDE12345", "iat": int(START // SLOT * SLOT) - CLOCK_SLACK}


def test_signatures_are_64_bytes_whatever_r_and_s_are() -> None:
    for n in range(300):  # about one in 128 has a leading zero byte in r or s
        token = made(START + n * SLOT)
        assert claims(token)["iat"] < START + n * SLOT


def test_processes_of_one_slot_agree() -> None:
    first = START // SLOT * SLOT
    assert made(first).text == made(first + SLOT - 1).text
    assert made(first).text != made(first + SLOT).text


def test_it_is_renewed_between_45_and_50_minutes_of_age() -> None:
    token = made()
    first, issued = token.text, claims(token)["iat"]
    assert not token.refresh(issued + 45 * 60, 45 * 60)
    assert token.text == first
    assert token.refresh(issued + 47 * 60, 47 * 60)
    assert token.text != first
    assert token.generation == 2
    assert LIFETIME + 60 <= OLD < 3600


def test_an_expired_answer_to_an_old_token_renews_it() -> None:
    token = made()
    assert token.expired(1, START + OLD + SLOT, OLD) is Expired.REPLACED
    assert token.generation == 2


def test_an_expired_answer_to_a_young_token_blames_the_clock() -> None:
    token = made()
    assert token.expired(1, START + 60, 60) is Expired.CLOCK
    assert token.generation == 1


def test_an_expired_answer_to_a_former_token_changes_nothing() -> None:
    token = made()
    token.refresh(START + 3000, 3000)
    assert token.expired(1, START + 3001, 3001) is Expired.REPLACED
    assert token.generation == 2


def test_a_hold_goes_back_to_the_former_token_and_waits() -> None:
    token = made()
    former = token.text
    token.refresh(START + LIFETIME, LIFETIME)
    token.hold(START + LIFETIME + 1, LIFETIME + 1)
    assert token.text == former
    token.hold(START + LIFETIME + 2, LIFETIME + 2)  # a second answer of the same burst
    assert token.text == former
    late = LIFETIME + SPACING
    assert not token.refresh(START + late, late)
    assert token.refresh(START + late + 2, late + 2)


def test_a_hold_keeps_a_token_whose_former_is_too_old() -> None:
    token = made()
    token.refresh(START + 4000, 4000)
    present = token.text
    token.hold(START + 4001, 4001)
    assert token.text == present


def test_a_clock_set_back_makes_a_token_that_is_valid_again() -> None:
    token = made()
    assert not token.refresh(START - 7200, 60)  # too soon after the last
    assert token.refresh(START - 7200, SPACING)
    assert claims(token)["iat"] < START - 7200


def test_a_refused_token_is_dropped_when_somebody_says_so() -> None:
    """Made while the clock was 8 h ahead, which was then put right: within the 20 minutes too."""
    token = made(START + 8 * 3600)
    assert token.expired(1, START + 8 * 3600 + 5, 5) is Expired.CLOCK
    assert not token.refresh(START + 60, 60)
    assert token.drop_refused()
    assert token.refresh(START + 60, 60)
    assert claims(token)["iat"] < START
    assert not token.drop_refused(), "the present one was never refused"


def test_a_token_that_was_not_refused_is_kept_whatever_is_said() -> None:
    token = made()
    assert not token.drop_refused()
    assert not token.refresh(START + 1, 1)


@settings(derandomize=True, deadline=None, max_examples=examples(200))
@given(
    st.lists(
        st.tuples(st.floats(0, 7200), st.sampled_from(["refresh", "expired", "hold"]), st.floats(-3600, 3600)),
        max_size=30,
    )
)
def test_new_tokens_are_never_closer_than_twenty_minutes(steps: list[tuple[float, str, float]]) -> None:
    token = ProviderToken("ABCDE12345", "KEY1234567", KEY)
    now, monotonic = START, 0.0
    token.refresh(now, monotonic)
    made_at, seen = [0.0], {token.text}
    for wait, what, jump in steps:
        now, monotonic = now + wait + (jump if what == "refresh" else 0.0), monotonic + wait
        match what:
            case "refresh":
                token.refresh(now, monotonic)
            case "expired":
                token.expired(token.generation, now, monotonic)
            case _:
                token.hold(now, monotonic)
        if token.text not in seen:
            seen.add(token.text)
            made_at.append(monotonic)
    assert all(later - earlier >= SPACING for earlier, later in itertools.pairwise(made_at))


def test_bindings_of_one_key_share_one_token() -> None:
    first = shared_token("ABCDE12345", "KEY1234567", KEY)
    assert shared_token("ABCDE12345", "KEY1234567", Secret(KEY.reveal())) is first
    assert shared_token("ABCDE12345", "KEY7654321", KEY) is not first
    first.refresh(START, 0)
    text = first.text
    del first
    gc.collect()
    assert shared_token("ABCDE12345", "KEY1234567", KEY).text != text  # nobody held it any more


@pytest.mark.parametrize("hidden", ["text", "_key"])
def test_nothing_shows_it(hidden: str) -> None:
    token = made()
    assert str(getattr(token, hidden)) not in f"{token!r} {token}"
