"""The Prometheus text format, version 0.0.4. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from fanout.engine.counters import Histogram

__all__ = ["CONTENT_TYPE", "Family", "page"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABEL = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its samples by their labels. A counter's name ends in `_total`."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[tuple[Mapping[str, str], float | Histogram]] = field(default_factory=list)

    def add(self, value: float | Histogram, **labels: str) -> Self:
        """One more sample; the family itself, where that is all of it."""
        self.samples.append((labels, value))
        return self

    def of(self, app: str) -> Family:
        """The samples of that app, and those of none."""
        kept = [(labels, value) for labels, value in self.samples if labels.get("app", "") in ("", app)]
        return replace(self, samples=kept)


def page(families: Iterable[Family]) -> bytes:
    """The families as a scrape reads them; those without samples are left out."""
    return "".join(line for family in families if family.samples for line in _lines(family)).encode()


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help.translate(_HELP)}\n"
    yield f"# TYPE {family.name} {family.kind}\n"
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            yield from _histogram(family.name, labels, value)
        else:
            yield f"{family.name}{_labels(labels)} {_number(value)}\n"


def _histogram(name: str, labels: Mapping[str, str], histogram: Histogram) -> Iterator[str]:
    """Buckets are cumulative, the last is +Inf, and it equals the count."""
    below = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        yield f"{name}_bucket{_labels({**labels, 'le': _number(bound)})} {below}\n"
    yield f"{name}_sum{_labels(labels)} {_number(histogram.sum)}\n"
    yield f"{name}_count{_labels(labels)} {below}\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{text.translate(_LABEL)}"' for name, text in labels.items()) + "}"


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(value)
