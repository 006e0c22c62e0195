"""The small pure pieces: ids, durations, codec, lanes, the purge guard, and what values refuse."""

from __future__ import annotations

import pickle
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.address import Address
from fanout.core.codec import decode, digest, encode
from fanout.core.delivery import Delivery
from fanout.core.duration import parse_duration, parse_retry_after, parse_when
from fanout.core.endpoint import Endpoint
from fanout.core.ids import DeliveryIds, delivery_id, notification_id
from fanout.core.lanes import Lanes
from fanout.core.model import Action, Notification, Target, stamped
from fanout.core.purge import PurgeGuard
from fanout.core.secret import Secret
from fanout.errors import UsageError


@given(st.uuids(), st.integers(1, 2**62))
def test_delivery_ids_are_uuid5(notification: uuid.UUID, endpoint: int) -> None:
    assert delivery_id(str(notification), endpoint) == str(uuid.uuid5(notification, str(endpoint)))
    assert DeliveryIds(str(notification))(endpoint) == delivery_id(str(notification), endpoint)


@given(st.floats(0, 2**47 / 1000), st.binary(min_size=10, max_size=10))
def test_notification_ids_are_uuid7_and_sort_by_time(now: float, random: bytes) -> None:
    made = uuid.UUID(notification_id(now, random))

    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert notification_id(now, random) <= notification_id(now + 1, random)


@pytest.mark.parametrize("given_", [Notification(), Notification(title="Hi", data={"a": [1]}, lane="bulk", badge=3)])
def test_a_stamped_notification_differs_in_its_envelope_alone(given_: Notification) -> None:
    made = stamped(given_, id="0198", accepted_at=1.5, expires_at=2.5)

    assert made == replace(given_, id="0198", accepted_at=1.5, expires_at=2.5)
    assert given_.id == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("250ms", 0.25), ("0", 0), ("1.5h", 5400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.text(max_size=12))
def test_a_duration_is_parsed_or_refused_in_a_sentence(text: str) -> None:
    try:
        assert parse_duration(text) >= 0
    except UsageError as error:
        assert str(error).endswith(".")


@pytest.mark.parametrize("text", ["-5", "1h-5m", "h", "", "1 h", "nan", "inf", "1e9", "-1h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="no length of time"):
        parse_duration(text)


def test_when() -> None:
    assert parse_when("+1h", 100.0) == 3700.0
    assert parse_when("1970-01-01T01:00:00+01:00", 0) == 0
    assert parse_when("1970-01-01T00:01:00", 0) == 60
    with pytest.raises(UsageError, match="no time"):
        parse_when("tomorrow", 0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("-1", None),
        (None, None),
        ("soon", None),
        ("", None),
        ("1" * 14, float("1" * 14)),
        ("1" * 40, None),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
        ("Fri, 01 Jan 2027 00:01:00 GMT", 60),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    now = datetime(2027, 1, 1, tzinfo=UTC).timestamp()

    assert parse_retry_after(value, now) == seconds


@pytest.mark.parametrize("off", [0.0, 8 * 3600.0, -8 * 3600.0])
def test_a_date_to_wait_for_counts_from_the_answers_own(off: float) -> None:
    """Ours may be hours off: what the gateway dates is so long after its answer, and not after what we think of the
    time."""
    ours = datetime(2027, 1, 1, tzinfo=UTC).timestamp() + off
    said = "Fri, 01 Jan 2027 00:00:10 GMT"

    assert parse_retry_after("Fri, 01 Jan 2027 00:01:00 GMT", ours, said) == 50
    assert parse_retry_after("Fri, 01 Jan 2027 00:00:00 GMT", ours, said) == 0
    assert parse_retry_after("120", ours, said) == 120
    assert parse_retry_after("Fri, 01 Jan 2027 00:01:00 GMT", ours, "soon") == max(0.0, 60 - off)


@given(st.text(max_size=40), st.none() | st.text(max_size=40))
def test_retry_after_never_raises_whatever_the_date(value: str, date: str | None) -> None:
    parsed = parse_retry_after(value, 0.0, date)

    assert parsed is None or parsed >= 0


@given(st.text(max_size=40))
def test_retry_after_never_raises(value: str) -> None:
    parsed = parse_retry_after(value, 0.0)

    assert parsed is None or parsed >= 0


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    title=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    data=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), json, max_size=3),
    ttl=st.floats(0, 1000),
    badge=st.none() | st.integers(0, 99),
)
def test_a_notification_survives_its_codec(
    title: str | None, data: dict[str, object], ttl: float, badge: int | None
) -> None:
    said = Notification(
        title=title,
        data=data,
        ttl=ttl,
        badge=badge,
        actions=(Action("a", "Open", "https://x"),),
        transports={"apns": {"x": 1}},
    )

    back = decode(encode(said), id=said.id, accepted_at=said.accepted_at, expires_at=said.expires_at)

    assert back == said


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="plain JSON"):
        encode(Notification(title="x", data={"a": object()}))
    with pytest.raises(UsageError, match="plain JSON"):
        encode(Notification(title="\ud800"))


def test_a_digest_tells_requests_apart() -> None:
    content = encode(Notification(title="x"))
    seen = {
        digest(content, Target.user("a"), None),
        digest(content, Target.user("b"), None),
        digest(content, Target.topic("a"), None),
        digest(content, Target.user("a"), 5.0),
        digest(encode(Notification(title="y")), Target.user("a"), None),
    }

    assert len(seen) == 5


@pytest.mark.parametrize(
    "values",
    [
        {"ttl": -1},
        {"ttl": float("nan")},
        {"ttl": float("inf")},
        {"lane": "fast"},
        {"repeat": "maybe"},
        {"collapse_key": ""},
        {"collapse_key": "k" * 257},
        {"badge": -1},
        {"badge": True},
    ],
)
def test_a_notification_refuses(values: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Notification(title="x", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "user:", "alice", "endpoint:x", "endpoint:-1", "topic:", "users:a", "all:x", "user:\0"]
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(UsageError):
        Target.parse(text)


def test_targets() -> None:
    assert Target.parse("user:alice") == Target.user("alice")
    assert Target.parse("endpoint:7") == Target.endpoints([7])
    assert Target.users(["a", "b", "a"]).names == ("a", "b")
    with pytest.raises(UsageError, match="no user"):
        Target.users([])
    with pytest.raises(UsageError, match="no endpoint"):
        Target.endpoints([])


def test_lanes_share_by_weight_and_starve_nobody() -> None:
    lanes = Lanes()
    served = [0, 0, 0]
    for _ in range(2000):
        lane = lanes.order()[0]
        served[lane] += 100
        lanes.took(lane, 100, [True, True, True])

    assert served[0] > 3 * served[1] > 9 * served[2] > 0


def test_an_idle_lane_saves_nothing_up() -> None:
    lanes = Lanes()
    for _ in range(100):
        lane = next(lane for lane in lanes.order() if lane == 2)
        lanes.took(lane, 1000, [False, False, True])

    assert lanes.order()[0] == 0, "urgent work goes first, however long bulk has been alone"


def test_the_purge_guard_believes_a_few_and_doubts_a_flood() -> None:
    guard = PurgeGuard()
    assert all(guard.saw_uncertain_death() for _ in range(19)), "few verdicts are believed"
    assert not guard.saw_uncertain_death(), "from the twentieth on, nothing but deaths is our own fault"
    for _ in range(200):
        guard.saw_alive()
    assert guard.saw_uncertain_death(), "one death among many living is believed again"


@given(st.lists(st.booleans(), max_size=200))
def test_the_purge_guard_counts_its_window(verdicts: list[bool]) -> None:
    guard = PurgeGuard(window=10, minimum=5)
    for bad in verdicts:
        if bad:
            guard.saw_uncertain_death()
        else:
            guard.saw_alive()
    recent = verdicts[-10:]

    assert guard.tripped == (len(recent) >= 5 and sum(recent) > 0.5 * len(recent))


def test_secrets_and_addresses_do_not_show() -> None:
    secret = Secret("s3cret-key", "apns.key")
    address = Address("deadbeef" * 8, kind="device", identity="deadbeef" * 8)
    endpoint = Endpoint(id=1, app="default", user="u", binding="apns", address=address)
    target = Target("addresses", binding="apns", addresses=(address,))
    delivery = Delivery.of(address)

    for value in (secret, address, endpoint, target, delivery):
        for text in (repr(value), str(value), f"{value}"):
            assert "s3cret" not in text
            assert "deadbeef" not in text
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
