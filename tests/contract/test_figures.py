"""The figures of all pages are those of one run: `benchmarks/figures.json`, which `python -m benchmarks report --write`
writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import figures, results
from benchmarks.__main__ import QUICK
from tests.contract.pages import PAGES, ROOT

RUN = figures.kept()
_PLACE = re.compile(r"<!-- table: (\w+) -->\n(.*?)\n<!-- end -->", re.DOTALL)
_FIGURE = re.compile(
    r"\d[\d.,]*\s?(?:(?:[µun]s|bytes)\b|%|x\b)?\s*(?:of (?:the server's )?CPU|per delivery|a second\b|deliveries/s|/s\b)|\d[\d.,]*\s?µs"
)
_HISTORY = ("docs/decisions.md",)
"""Figures of a decision are of its day, and their command stands beside them."""


def test_the_run_is_one_of_one_day_and_whole() -> None:
    assert figures.faults(RUN, list(QUICK)) == []


@pytest.mark.parametrize("page", figures.PAGES)
def test_each_table_is_made_from_the_run(page: str) -> None:
    made = figures.tables(RUN)
    found = _PLACE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert found
    for name, text in found:
        assert text == made[name], f"{page}: {name} differs: python -m benchmarks report --write"


def test_each_plot_is_drawn_from_the_run() -> None:
    drawn = figures.plots(RUN)
    assert {file.name: file.read_text(encoding="utf-8") for file in figures.PLOTS.glob("*.svg")} == drawn
    assert len(drawn) >= 15


def test_a_figure_outside_the_tables_would_be_a_second_one() -> None:
    """Speeds and costs stand in the tables alone, so that no page can give another value. Code blocks hold settings."""
    others = [*(ROOT / "transports").glob("*/README.md"), ROOT / "deploy" / "README.md", ROOT / "ARCHITECTURE.md"]
    for page, text in {**PAGES, **{str(file): file.read_text(encoding="utf-8") for file in others}}.items():
        if page not in _HISTORY:
            plain = re.sub(r"```.*?```", "", _PLACE.sub("", text), flags=re.DOTALL)
            assert not (found := [each[0] for each in _FIGURE.finditer(plain)]), f"{page}: {found}"


def test_a_run_of_two_days_or_without_a_benchmark_is_refused(tmp_path: Path) -> None:
    for name in QUICK:
        results.write(name, "full", RUN[name]["rows"], tmp_path, date="2026-01-02")
    found = results.read(tmp_path)
    assert figures.faults(found, list(QUICK)) == []
    rows = found["fcm"]["rows"]
    found["fcm"]["rows"] = [row for row in rows if "ours" not in row.name]
    assert "fcm" in figures.faults(found, list(QUICK))[0]
    found["fcm"]["rows"] = [row._replace(ratio=0.0) for row in rows]
    assert "compared with nothing" in figures.faults(found, list(QUICK))[0]
    found["fcm"]["rows"] = rows
    found["wns"]["date"] = "2026-01-03"
    assert "2026-01-03" in figures.faults(found, list(QUICK))[0]
    del found["wns"]
    assert "wns" in figures.faults(found, list(QUICK))[0]


def test_a_run_is_read_as_it_was_kept(tmp_path: Path) -> None:
    figures.keep(RUN, tmp_path / "figures.json")
    assert figures.kept(tmp_path / "figures.json") == RUN
