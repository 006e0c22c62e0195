"""What a run leaves behind in `bench-results/`: rows as JSON with date and machine, a picture for each figure, rows as Markdown."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import svg
from benchmarks.row import Row, number

__all__ = ["FOLDER", "fill", "machine", "markdown", "read", "write"]

FOLDER = Path("bench-results")
README = Path(__file__).with_name("README.md")
_TABLE = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def machine() -> dict[str, Any]:
    """What figures depend on, without a name that would tell whose it is."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _model(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def write(
    name: str, form: str, rows: Sequence[Row], folder: Path = FOLDER, about: Mapping[str, Any] | None = None
) -> list[Path]:
    """Keep the rows of one benchmark, and draw its figures. `form` is how large the run was: quick, short or full.

    `about` is the `machine` as it was before the run (default: now).
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        "benchmark": name,
        "form": form,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": about or machine(),
        "rows": [row._asdict() for row in rows],
    }
    file = folder / f"{name}.json"
    file.write_text(json.dumps(kept, indent=1) + "\n")
    return [file, *_draw(name, rows, folder)]


def _draw(name: str, rows: Sequence[Row], folder: Path) -> list[Path]:
    figures: dict[str, list[Row]] = {}
    for row in rows:
        if row.unit:  # a row without one says what was left out
            figures.setdefault(row.figure or f"{name}, {row.unit}", []).append(row)
    files = []
    for title, members in figures.items():
        file = folder / f"{name}-{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}.svg"
        file.write_text(svg.lines(title, members) if all(row.x for row in members) else svg.bars(title, members))
        files.append(file)
    return files


def read(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """What runs have left, by benchmark, with their rows as `Row`."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        kept = json.loads(file.read_text())
        kept["rows"] = [Row(**row | {"spread": tuple(row["spread"])}) for row in kept["rows"]]
        found[kept["benchmark"]] = kept
    return found


def markdown(kept: Mapping[str, Any]) -> str:
    """A table of one benchmark, under a line that says when and where it was measured."""
    about = kept["machine"]
    lines = [
        f"Measured {kept['date']} ({kept['form']} form): {about['python']}, {about['system']}, {about['cpus']} CPUs, {about['cpu']}; "
        f"load before the run {about['load']}.",
        "",
        "| row | figure | compared | CPU for each | cores | |",
        "|---|---:|---|---|---|---|",
    ]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in kept["rows"]]
    return "\n".join(lines)


def _cells(row: Row) -> Iterable[str]:
    figure = f"{number(row.value)} {row.unit}" if row.unit else ""
    return (text.replace("|", "\\|") for text in (row.name, figure, row.compared, row.cpu, row.cores, row.note))


def fill(results: Mapping[str, Mapping[str, Any]], file: Path = README) -> list[str]:
    """Put the tables into their places in the README; returns the benchmarks whose table was filled."""
    filled = []

    def table(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in results:
            return found.group(0)
        filled.append(name)
        return f"<!-- table: {name} -->\n{markdown(results[name])}\n<!-- end -->"

    file.write_text(_TABLE.sub(table, file.read_text()))
    return filled
