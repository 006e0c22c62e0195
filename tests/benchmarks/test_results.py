"""What a run leaves behind: ratios with their spread, JSON that is read again, pictures that are XML, tables in the
README's places."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import results, rig, svg
from benchmarks.__main__ import QUICK, main, report
from benchmarks.contenders import rivals
from benchmarks.growth import decades, straight
from benchmarks.rig import Sample
from benchmarks.row import Row

README = Path(__file__).parents[2] / "benchmarks" / "README.md"


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    theirs = [Sample(100, 1.0, 0.1, 1.0), Sample(100, 2.0, 0.1, 2.0), Sample(100, 4.0, 0.1, 4.0)]
    ours = [Sample(100, 0.1, 0.2, 0.5), Sample(100, 0.1, 0.2, 0.5), Sample(100, 0.1, 0.2, 0.5)]

    baseline, row = rig.compared({"theirs": theirs, "ours": ours}, "theirs", cores="client CPU 0, nginx CPU 1")

    assert (baseline.value, baseline.against) == (50.0, "")
    assert (row.value, row.unit, row.against) == (200.0, "/s", "theirs")
    assert (row.ratio, row.spread) == (4.0, (2.0, 8.0))
    assert (row.client_cpu, row.gateway_cpu) == (pytest.approx(1000), pytest.approx(2000))
    assert "4.00 x theirs [2.00 to 8.00]" in str(row)
    assert "client 1,000 us of CPU, gateway 2,000 us of CPU; client CPU 0, nginx CPU 1" in str(row)


def test_by_cost_the_ratio_says_how_many_times_less() -> None:
    samples = {"theirs": [Sample(10, 1.0, 0.0, 1.0)], "ours": [Sample(10, 0.25, 0.0, 1.0)]}

    _, row = rig.compared(samples, "theirs", "cost")

    assert (row.ratio, row.against) == (4.0, "less than theirs")


def rows() -> list[Row]:
    return [
        Row("a & b", 10.0, "/s", figure="rates <a>"),
        Row("c", 20.0, "/s", "a", 2.0, figure="rates <a>", spread=(1.5, 2.5)),
        Row("small", 5.0, "us", figure="growth", series="x", x=1.0),
        Row("large", 6.0, "us", figure="growth", series="x", x=1000.0),
        Row("skipped: install nginx", 0.0, ""),
    ]


def test_rows_are_read_again_and_each_figure_has_a_picture(tmp_path: Path) -> None:
    files = results.write("some", "short", rows(), tmp_path)

    assert [file.name for file in files] == ["some.json", "some-rates-a.svg", "some-growth.svg"]
    assert results.read(tmp_path)["some"]["rows"] == rows()
    for picture in files[1:]:
        ElementTree.fromstring(picture.read_text())


def test_a_picture_shows_every_row() -> None:
    bars = ElementTree.fromstring(svg.bars("rates", rows()[:2]))
    lines = ElementTree.fromstring(svg.lines("growth", rows()[2:4]))
    space = "{http://www.w3.org/2000/svg}"

    widths = [float(bar.get("width", "")) for bar in bars.iter(f"{space}rect")][1:]
    assert widths[1] == pytest.approx(2 * widths[0])
    assert len(list(lines.iter(f"{space}circle"))) == 2


def test_tables_go_to_their_places(tmp_path: Path) -> None:
    results.write("some", "short", rows(), tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text(
        "Before.\n<!-- table: some -->\nold\n<!-- end -->\nAfter.\n<!-- table: other -->\nkept\n<!-- end -->\n"
    )

    assert results.fill(results.read(tmp_path), readme) == ["some"]

    text = readme.read_text()
    assert "old" not in text
    assert "| c | 20.0 /s | 2.00 x a [1.50 to 2.50] |" in text
    assert text.startswith("Before.\n<!-- table: some -->\nMeasured ")
    assert text.endswith("<!-- end -->\nAfter.\n<!-- table: other -->\nkept\n<!-- end -->\n")


def test_tiny_runs_are_not_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.write("http_client", "quick", rows(), tmp_path)

    assert report(["--write", "--results", str(tmp_path)]) == 2
    assert "not to be quoted" in capsys.readouterr().err


def test_a_report_of_nothing_says_what_to_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(["--results", str(tmp_path)]) == 2
    assert "make bench" in capsys.readouterr().err


def test_the_readme_has_a_place_for_each_benchmark() -> None:
    places = re.findall(r"<!-- table: (\w+) -->", README.read_text())

    assert sorted(places) == sorted(QUICK)


def test_what_counts_as_straight() -> None:
    assert decades(1, 500) == [1, 10, 100, 500]
    assert straight([20.0, 10.0, 12.0])
    assert not straight([10.0, 11.0, 14.0])


def test_without_node_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(rivals.Absent, match="install nodejs and npm"):
        rivals.built(rivals.NODE_APN)


def test_guard_and_report_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "report", "--results", str(tmp_path)])

    assert main() == 2
