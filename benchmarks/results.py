"""The files of a run in `bench-results/`: rows as JSON with date and machine, a picture for each figure, rows as
Markdown."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from benchmarks import svg
from benchmarks.row import Row, number

__all__ = [
    "FOLDER", "fill", "fill_tables", "interpreter", "machine", "markdown", "picture_name", "pictures", "read", "today", "write",
]  # fmt: skip

FOLDER = Path("bench-results")
README = Path(__file__).with_name("README.md")
_TABLE = re.compile(r"<!-- table: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def _interpreter() -> Any:
    """This checkout's `fanout.cli.interpreter`: a revision that is compared may have none."""
    path = Path(__file__).parents[1] / "fanout" / "cli" / "interpreter.py"
    spec = spec_from_file_location("interpreter", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def machine() -> dict[str, Any]:
    """The machine that the figures depend on, without a name that would tell its owner."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "build": _interpreter().present(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _model(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def interpreter(about: Mapping[str, Any]) -> str:
    """The interpreter's name, version and build; a run of earlier days does not know its build."""
    return " ".join(part for part in (about["python"], about.get("build", "")) if part)


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def write(
    name: str,
    form: str,
    rows: Sequence[Row],
    folder: Path = FOLDER,
    about: Mapping[str, Any] | None = None,
    date: str = "",
) -> list[Path]:
    """Keep the rows of one benchmark, and draw its figures. `form` is how large the run was: quick, short or full.

    `about` is the `machine` as it was before the run, and `date` the day on which the run began (defaults: now).
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        "benchmark": name,
        "form": form,
        "date": date or today(),
        "machine": about or machine(),
        "rows": [row._asdict() for row in rows],
    }
    file = folder / f"{name}.json"
    file.write_text(json.dumps(kept, indent=1) + "\n")
    files = [file]
    for picture, text in pictures(name, rows).items():
        files.append(folder / picture)
        files[-1].write_text(text)
    return files


def today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def picture_name(name: str, title: str) -> str:
    """The file name of the picture of one figure of a benchmark."""
    return f"{name}-{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}.svg"


def pictures(name: str, rows: Sequence[Row]) -> dict[str, str]:
    """SVG by file name, one for each figure."""
    figures: dict[str, list[Row]] = {}
    for row in rows:
        if row.unit:  # a row without one names the part that was left out
            figures.setdefault(row.figure or f"{name}, {row.unit}", []).append(row)
    return {
        picture_name(name, title): (svg.lines if all(row.x for row in members) else svg.bars)(title, members)
        for title, members in figures.items()
    }


def read(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """The rows of former runs, by benchmark, with their rows as `Row`."""
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
        f"Measured {kept['date']} ({kept['form']} form): {interpreter(about)}, {about['system']}, {about['cpus']} CPUs, {about['cpu']};",
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
    return fill_tables({name: markdown(kept) for name, kept in results.items()}, file)


def fill_tables(tables: Mapping[str, str], file: Path) -> list[str]:
    """Put each table into the place of its name in a page; returns the names of those that have one."""
    filled = []

    def table(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in tables:
            return found.group(0)
        filled.append(name)
        return f"<!-- table: {name} -->\n{tables[name]}\n<!-- end -->"

    file.write_text(_TABLE.sub(table, file.read_text(encoding="utf-8")), encoding="utf-8")
    return filled
