"""The text format against Prometheus's own parser."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fanout.engine.counters import Histogram
from fanout.metrics.text import Family, page

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=30)


@UNHURRIED
@given(label=TEXT, help=TEXT, value=st.floats(allow_nan=False) | st.integers(0, 2**53))
def test_whatever_a_label_holds_comes_back(label: str, help: str, value: float) -> None:
    family = Family("fanout_thing", "gauge", help or "h")
    family.add(value, app=label)
    (read,) = text_string_to_metric_families(page([family]).decode())
    (sample,) = read.samples
    assert sample.labels == {"app": label}
    assert sample.value == value
    assert read.type == "gauge"


@UNHURRIED
@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 9)), max_size=40))
def test_a_histogram_counts_what_is_at_most_each_bound(values: list[tuple[float, int]]) -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    for value, times in values:
        histogram.observe(value, times)
    family = Family("fanout_seconds", "histogram", "h")
    family.add(histogram, lane="bulk")
    (read,) = text_string_to_metric_families(page([family]).decode())
    found = {(s.name.removeprefix("fanout_seconds_"), s.labels.get("le")): s.value for s in read.samples}
    for bound, text in ((0.1, "0.1"), (1.0, "1.0"), (10.0, "10.0"), (math.inf, "+Inf")):
        assert found["bucket", text] == sum(times for value, times in values if value <= bound)
    assert found["count", None] == sum(times for _, times in values)
    assert found["sum", None] == pytest.approx(sum(value * times for value, times in values))


def test_a_family_without_samples_is_left_out() -> None:
    assert page([Family("fanout_thing", "gauge", "h")]) == b""
