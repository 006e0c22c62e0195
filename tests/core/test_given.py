"""What a caller gives is judged at the door: by the field's name, without its content, and by one rule for each kind of
value."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.address import Address
from fanout.core.codec import decode, encode
from fanout.core.endpoint import Registration
from fanout.core.model import Action, Notification, Target
from fanout.core.outcome import Gone, Misconfigured, Moved, Rejected, Throttled, Unavailable
from fanout.core.policy import Policy
from fanout.core.settlement import Attempted, Final, decide
from fanout.core.submission import submission_of
from fanout.core.text import REASON_LIMIT, cleaned, storable
from fanout.enqueue import Statement
from fanout.errors import AddressInvalid, UsageError

HI = Notification(title="Hi")
ADDRESS = Address("phone")
BROKEN = "half \ud800 a pair"

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.datetimes()
    | st.timedeltas()
    | st.just(object()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.sets(st.integers(), max_size=2)
        | st.dictionaries(st.text(st.characters(), max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [
    "title",
    "body",
    "subtitle",
    "data",
    "image",
    "icon",
    "badge",
    "sound",
    "url",
    "category",
    "thread",
    "actions",
    "ttl",
    "lane",
    "collapse_key",
    "repeat",
    "transports",
]


@given(field=st.sampled_from(FIELDS), value=anything)
def test_whatever_a_field_is_given_is_stored_as_it_is_or_refused_by_its_name(field: str, value: Any) -> None:
    try:
        notification = Notification(**{field: value})
    except UsageError as error:
        assert field in str(error)
        assert str(error).endswith(".")
        return
    try:
        content = encode(notification)
    except UsageError as error:
        assert field in str(error)
        return
    again = decode(content, id="", accepted_at=0.0, expires_at=math.inf)

    assert encode(again) == content
    assert b"null" not in content or "None" in repr(getattr(notification, field))


def _submit(**changed: Any) -> Any:
    values: dict[str, Any] = {"notification": HI, "target": "user:alice", "app": "default", "at": None}
    values |= {"idempotency_key": None, "now": 1000.0, "random": bytes(10), "zero_ttl_grace": 5.0} | changed
    return submission_of(values.pop("notification"), values.pop("target"), **values)


@given(field=st.sampled_from(("notification", "target", "at", "idempotency_key")), value=anything)
def test_whatever_send_is_given_is_taken_or_refused_by_its_name(field: str, value: Any) -> None:
    try:
        submission = _submit(**{field: value})
    except UsageError as error:
        assert field in str(error)
    else:
        assert math.isfinite(submission.due_at)
        assert submission.idempotency_key is None or storable(submission.idempotency_key)


@given(field=st.sampled_from(("user", "binding", "app", "platform", "tags", "expires_at")), value=anything)
def test_whatever_a_registration_is_given_can_be_stored_or_is_refused_by_its_name(field: str, value: Any) -> None:
    values: dict[str, Any] = {"user": "alice", "binding": "push", "address": ADDRESS} | {field: value}
    try:
        made = Registration(**values)
    except UsageError as error:
        assert field.removesuffix("s") in str(error)
    else:
        assert all(map(storable, (made.user, made.binding, made.app, made.platform, *made.tags)))
        assert type(made.tags) is tuple
        assert made.expires_at is None or math.isfinite(made.expires_at)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"title": 5}, "title"),
        ({"body": ["a"]}, "body"),
        ({"sound": 5}, "sound"),
        ({"title": b"bytes"}, "title"),
        ({"data": {"a": {"b": [1, math.nan]}}}, r"data\.a\.b\[1\]"),
        ({"data": {"a": math.inf}}, r"data\.a"),
        ({"data": {"a": b"x"}}, r"data\.a"),
        ({"data": {"a": datetime.now(UTC)}}, r"data\.a"),
        ({"data": {5: "a"}}, "data"),
        ({"data": {"a": 2**64}}, r"data\.a"),
        ({"data": ["a"]}, "data"),
        ({"data": "text"}, "data"),
        ({"data": {BROKEN: 1}}, "data"),
        ({"data": {"a": BROKEN}}, r"data\.a"),
        ({"transports": {"apns": "x"}}, r"transports\.apns"),
        ({"transports": {"apns": {"a": math.nan}}}, r"transports\.apns\.a"),
        ({"actions": "news"}, "actions"),
        ({"actions": [{"id": "a"}]}, "actions"),
        ({"collapse_key": 5}, "collapse_key"),
        ({"collapse_key": BROKEN}, "collapse_key"),
        ({"collapse_key": "ä" * 200}, "collapse_key"),
        ({"ttl": True}, "ttl"),
        ({"ttl": "1h"}, "ttl"),
        ({"ttl": timedelta(seconds=-1)}, "ttl"),
        ({"badge": 1.5}, "badge"),
        ({"badge": "5"}, "badge"),
    ],
)
def test_a_field_is_refused_with_its_name(values: dict[str, Any], place: str) -> None:
    with pytest.raises(UsageError, match=place):
        Notification(**values)


def test_what_is_nested_without_end_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["a"] = loop

    with pytest.raises(UsageError, match=r"data\.a.*deep"):
        Notification(data=loop)


def test_a_nan_that_comes_into_data_afterwards_is_not_stored_as_null() -> None:
    data: dict[str, Any] = {"a": 1}
    notification = Notification(data=data)
    data["a"] = math.nan

    with pytest.raises(UsageError, match=r"data\.a"):
        encode(notification)


def test_natural_forms_are_taken() -> None:
    made = Notification(
        ttl=timedelta(hours=1), data=MappingProxyType({"a": (1, None)}), actions=[Action("ok", "OK")], badge=0
    )

    assert made.ttl == 3600
    assert orjson.loads(encode(made))["data"] == {"a": [1, None]}
    assert made.actions == (Action("ok", "OK"),)


@pytest.mark.parametrize("values", [("", "OK"), (5, "OK"), ("ok", ""), ("ok", None), ("ok", "OK", 5)])
def test_a_button_is_judged_too(values: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError, match="action"):
        Action(*values)


def test_when_is_unix_seconds_or_a_datetime_with_its_zone() -> None:
    berlin = timezone(timedelta(hours=1))

    assert _submit(at=datetime(1970, 1, 1, 2, tzinfo=berlin)).due_at == 3600
    assert _submit(at=datetime(1970, 1, 1, 1, tzinfo=UTC)).digest == _submit(at=3600).digest
    for wrong in (datetime(1970, 1, 1, 1), math.nan, "soon", True, b"1", 1e10, datetime(2038, 1, 1, tzinfo=UTC)):  # noqa: DTZ001
        with pytest.raises(UsageError, match="at"):
            _submit(at=wrong)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("title", {"title": BROKEN}),
        (r"actions\[0\]", {"actions": [Action("a", BROKEN)]}),
        ("collapse_key", {"collapse_key": "a\x00"}),
    ],
)
def test_a_text_that_cannot_be_stored_is_refused_by_send(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=field):
        _submit(notification=Notification(**values))


# -- collections

_COLLECTIONS: list[Callable[[Any], object]] = [
    Target.users,
    Target.endpoints,
    lambda given: Notification(actions=given),
    lambda given: Registration(user="a", binding="b", address=ADDRESS, tags=given),
]


@pytest.mark.parametrize("take", _COLLECTIONS)
@pytest.mark.parametrize("text", ["12", b"12", bytearray(b"12"), memoryview(b"12"), 12, None])
def test_one_text_is_no_collection(take: Callable[[Any], object], text: Any) -> None:
    with pytest.raises(UsageError, match="must be a list"):
        take(text)


@pytest.mark.parametrize("id", ["7", 1.0, True, -1, 2**63, None])
def test_an_endpoint_is_named_by_a_whole_number(id: Any) -> None:
    with pytest.raises(UsageError, match="endpoint"):
        Target.endpoints([id])


@pytest.mark.parametrize("values", [("users", "ab"), ("users", ["ab"]), ("nobody",), ("endpoints", (), "12")])
def test_a_target_made_by_hand_is_judged(values: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError, match="made by"):
        Target(*values)


@pytest.mark.parametrize("user", ["", 5, None, "a" * 513, "a\x00", BROKEN, b"alice"])
def test_a_user_is_a_text_that_can_be_stored(user: Any) -> None:
    for take in (Target.user, lambda user: Target.users([user])):
        with pytest.raises(UsageError, match="user"):
            take(user)


@pytest.mark.parametrize("letter", [*"&|!()<>=", " ", "\t", "\n", "\u00a0", "\u3000"])
def test_reserved_in_the_text_form_and_taken_with_a_warning_in_python(letter: str) -> None:
    tag = f"news{letter}android"
    with pytest.raises(UsageError, match="reserved"):
        Target.parse(f"topic:{tag}")
    with pytest.warns(UserWarning, match="new tags may not"):
        assert Target.topic(tag).names == (tag,)


def test_other_topics_need_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Target.parse("topic:böses/news-24.de:a@b#c") == Target.topic("böses/news-24.de:a@b#c")


def test_an_address_that_no_storage_can_hold_is_refused() -> None:
    for address in (Address("a\x00"), Address(BROKEN), Address("a", group=BROKEN), Address(""), "phone"):
        with pytest.raises(AddressInvalid, match="address"):
            Registration(user="alice", binding="push", address=address)  # type: ignore[arg-type]


# -- what others say


@given(st.text(st.characters()) | st.binary() | st.none() | st.integers())
def test_a_reason_is_made_fit_to_be_stored(said: Any) -> None:
    for outcome in (
        Rejected(said),
        Gone(said),
        Moved(ADDRESS, said),
        Throttled(None, reason=said),
        Unavailable(reason=said),
        Misconfigured(said),
    ):
        assert storable(outcome.reason)
        assert len(outcome.reason) <= REASON_LIMIT
        if isinstance(said, str) and storable(said) and len(said) <= REASON_LIMIT:
            assert outcome.reason == said


def test_what_cannot_be_stored_is_replaced_letter_by_letter() -> None:
    assert cleaned("a\x00b\ud800c\udfffé😀") == "a\ufffdb\ufffdc\ufffdé😀"
    assert cleaned("x" * 5000) == "x" * (REASON_LIMIT - 1) + "…"


def test_a_gateway_cannot_move_an_endpoint_to_where_nothing_can_be_stored() -> None:
    import random

    tried = Attempted(attempt=1, free=0, expires_at=1e9, registered_at=0.0)
    decision = decide(Moved(Address("a\x00b")), tried, Policy(), 0.0, random.Random(1))

    assert isinstance(decision, Final)
    assert decision.state == "rejected"


def test_a_gateway_that_names_no_number_names_no_time() -> None:
    import random

    tried = Attempted(attempt=1, free=0, expires_at=1e9, registered_at=0.0)
    for outcome in (Throttled(math.nan), Unavailable(after=math.nan)):
        decision = decide(outcome, tried, Policy(), 0.0, random.Random(1))
        assert math.isfinite(decision.due_at)  # type: ignore[union-attr]


@pytest.mark.parametrize("changed", [{"app": 5}, {"app": "a\x00"}, {"app": BROKEN}, {"schema": 5}, {"schema": "a b"}])
def test_what_is_enqueued_is_judged_before_the_statement_is_run(changed: dict[str, Any]) -> None:
    values = {"app": "default", "schema": "fanout"} | changed
    with pytest.raises(UsageError, match=next(iter(changed))):
        Statement(_submit(app=values["app"]), values["schema"], 0.0)
