"""The figures that the pages show: one run of one day, kept in `figures.json`, and the tables and plots that are made
from it.

`python -m benchmarks report --write` keeps a run and fills the pages. A test holds every page to the file. Of the
benchmarks only the command line imports this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks import results
from benchmarks.row import Row, number

__all__ = ["KEPT", "PAGES", "PLOTS", "Results", "faults", "keep", "kept", "plots", "tables", "write"]

ROOT = Path(__file__).parents[1]
KEPT = Path(__file__).with_name("figures.json")
PLOTS = ROOT / "docs" / "plots"
PAGES = ("README.md", "benchmarks/README.md", "docs/scaling-out.md")
_WIDTH = 120
Results = Mapping[str, Mapping[str, Any]]


def faults(found: Results, wanted: Sequence[str]) -> list[str]:
    """The reasons why these results may not be quoted; none where they may."""
    said = []
    if tiny := sorted(name for name, each in found.items() if each["form"] == "quick"):
        said.append(f"{', '.join(tiny)}: tiny runs are not to be quoted. Run without --quick first.")
    if days := sorted({each["date"] for each in found.values()})[1:]:
        said.append(f"The results are of several days, the last of them {days[-1]}: run all benchmarks on one day.")
    if absent := [name for name in wanted if name not in found]:
        said.append(f"There is no result of {', '.join(absent)}: run `make bench-all`.")
    if not said:
        try:
            tables(found)
        except LookupError as error:
            said.append(f"{error.args[0]} Install what the benchmark left out, and run it again.")
    return said


def keep(found: Results, file: Path = KEPT) -> None:
    """Write one run. Fields of a row that are empty are left out."""
    content = {
        name: {**each, "rows": [{k: v for k, v in row._asdict().items() if v not in ("", 0.0, (0.0, 0.0))} for row in each["rows"]]}
        for name, each in found.items()
    }  # fmt: skip
    lines = [
        f'"{name}": {json.dumps({k: v for k, v in each.items() if k != "rows"}, ensure_ascii=False)[:-1]}, "rows": [\n  '
        + ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in each["rows"])
        + "\n]}"
        for name, each in content.items()
    ]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def kept(file: Path = KEPT) -> dict[str, dict[str, Any]]:
    """The run that the pages show, in the form of `results.read`."""
    found: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    for each in found.values():
        each["rows"] = [
            Row(**{"value": 0.0, "unit": "", **row, "spread": tuple(row.get("spread", (0.0, 0.0)))})
            for row in each["rows"]
        ]
    return found


def plots(found: Results) -> dict[str, str]:
    """SVG by file name: one for each figure that has a title of its own."""
    return {
        name: picture
        for benchmark, each in found.items()
        for name, picture in results.pictures(benchmark, [row for row in each["rows"] if row.figure]).items()
    }


def tables(found: Results) -> dict[str, str]:
    """Markdown by the name of its place in a page."""
    made = {name: f"{results.markdown(each)}{_shown(name, each)}" for name, each in found.items()}
    made |= {name: make(_Look(found)) for name, make in (("fast", _fast), ("scaling", _scaling))}
    return made


def write(found: Results) -> list[str]:
    """Keep a run, draw its plots and fill the pages; returns the names of the places that were filled."""
    made = tables(found)
    keep(found)
    PLOTS.mkdir(exist_ok=True)
    drawn = plots(found)
    for old in PLOTS.glob("*.svg"):
        if old.name not in drawn:
            old.unlink()
    for name, picture in drawn.items():
        (PLOTS / name).write_text(picture, encoding="utf-8")
    return [name for page in PAGES for name in results.fill_tables(made, ROOT / page)]


def _shown(name: str, each: Mapping[str, Any]) -> str:
    titles = dict.fromkeys(row.figure for row in each["rows"] if row.figure)
    return "".join(f"\n\n{_image(title, results.picture_name(name, title))}" for title in titles)


def _image(title: str, file: str) -> str:
    line = f"![{title}](../docs/plots/{file})"
    return line if len(line) <= _WIDTH else f"![{title.rpartition(' against ')[2]}](../docs/plots/{file})"


class _Look:
    """Finds rows by benchmark and the beginning of their name: sizes in a name differ between the forms."""

    def __init__(self, found: Results) -> None:
        self.found = found

    def __call__(self, benchmark: str, name: str, *, against: str = "") -> Row:
        rows = [
            row
            for row in self.found[benchmark]["rows"]
            if re.match(rf"{name}(?!, uvloop)", row.name) and row.against.endswith(against)
        ]
        if not rows:
            raise LookupError(f"The results of {benchmark} have no row {name!r}.")
        row: Row = rows[0]
        return row

    @property
    def about(self) -> str:
        date, machine = next((each["date"], each["machine"]) for each in self.found.values())
        return fill(
            f"One run of {date}: {results.interpreter(machine)}, {machine['cpus']} shared cores, the client on one and the "
            "gateway on the other, contenders in turns. `make bench` repeats it. Ratios carry over to other machines; "
            "absolute figures do not.",
            _WIDTH,
        )


def _us(row: Row) -> str:
    return f"{number(row.value)} µs"


def _times(row: Row) -> str:
    if not row.ratio:
        raise LookupError(f"{row.name!r} is compared with nothing.")
    return f"{row.ratio:.2g}" if row.ratio < 10 else f"{row.ratio:.0f}"


def _beside(look: _Look, what: str, benchmark: str, name: str) -> list[tuple[str, str, str]]:
    """A line of the ratios to contenders in other languages, which a row names with its language; none where none was
    to be had."""
    found = [
        # Of a cost: 0.91 times less is 1.10 times as much.
        f"{1 / row.ratio:.2f} times that of {row.against.removeprefix('less than ')}"
        if row.ratio < 1 and row.against.startswith("less than ")
        else f"{row.ratio:.2f} x {row.against}"
        for row in look.found[benchmark]["rows"]
        if name in row.name and row.against.endswith(")")
    ]
    return [(what, "; ".join(found), benchmark)] if found else []


def _fast(look: _Look) -> str:
    http, uv = (
        look("http_client", "client CPU per request, ours$"),
        look("http_client", "client CPU per request, ours, uvloop"),
    )
    rate, rate_uv = (
        look("http_client", "requests a second, ours$"),
        look("http_client", "requests a second, ours, uvloop"),
    )
    whole = look("broadcast", "client CPU per delivery, ours, durable$")
    whole_uv = look("broadcast", "client CPU per delivery, ours, durable, uvloop")
    push, seal = (
        look("webpush", "Web Push, ours", against="pywebpush"),
        look("webpush", "Web Push, ours", against="alone"),
    )
    lost, worst = look("kills", "lost, "), look("kills", "duplicates, worst kill")
    urgent, memory = look("lanes", "urgent beside bulk"), look("macro", "broadcast to .*: peak memory")
    single, other = look("macro", "single users"), look("engine", "send in another process")
    rows = [
        ("HTTP/2 client, CPU for each request over TLS", f"{_us(http)}: {_times(http)} times less than aioapns (uvloop: {_times(uv)} times)", "http_client"),
        ("its rate over one connection", f"{rate.ratio:.2f} of h2load's (uvloop: {rate_uv.ratio:.2f})", "http_client"),
        (
            "durable broadcast, CPU for each delivery",
            f"{_us(whole)}: {_times(whole)} times less than aioapns, which stores nothing (uvloop: {_times(whole_uv)} times)",
            "broadcast",
        ),
        *_beside(look, "the same beside other clients, which store nothing", "broadcast", ", uvloop"),
        *_beside(look, "Web Push, CPU for each message", "webpush", "Web Push, ours"),
        *_beside(look, "single sends on PostgreSQL, settled a second", "postgres", "single sends, ours, uvloop"),
        ("engine and SQLite alone", f"{number(look('engine', 'durable deliveries').value)} durable deliveries a second", "engine"),
        ("`send` to single users, until settled", f"{number(single.value)} a second", "macro"),
        ("an urgent alert beside a broadcast, p99 from `send` to the gateway", f"{number(urgent.value)} {urgent.unit}", "lanes"),
        (f"peak memory, {memory.name.partition(':')[0]}", f"{number(memory.value)} {memory.unit}", "macro"),
        ("`send` in one process to delivery in another", f"{number(other.value)} {other.unit}", "engine"),
        (
            lost.name.removeprefix("lost, ").replace("kills of", "times `kill -9`,"),
            f"{number(lost.value)} lost; at most {number(worst.value)} sent twice for one kill ({worst.note.partition(';')[0]})",
            "kills",
        ),
        ("Web Push, durable", f"{_times(push)} times pywebpush; {seal.note.removeprefix('by CPU ').removesuffix(' x')} of the encryption alone, by CPU", "webpush"),
        ("FCM, durable", f"{_times(look('fcm', 'FCM, ours'))} times firebase-admin", "fcm"),
        ("WNS", _beside_aiohttp(look("wns", "WNS, what the engine adds").value), "wns"),
    ]  # fmt: skip
    lines = [f"| {what} | {measured} | `{command}` |" for what, measured, command in rows]
    return "\n".join([look.about, "", "| | measured | `python -m benchmarks …` |", "|---|---|---|", *lines])


def _scaling(look: _Look) -> str:
    own, other = (
        look("postgres", "engine with an instant transport, SQLite"),
        look("postgres", "engine with .* PostgreSQL"),
    )
    imports, imports_sqlite = look("postgres", "import of .* PostgreSQL"), look("postgres", "import of .* SQLite")
    pair = look("postgres", "two workers")
    log, bytes_ = look("postgres", "write-ahead log"), look("postgres", "PostgreSQL, tables and indexes")
    rows: list[tuple[str, str, str]] = [
        ("deliveries a second, one worker, a transport that answers at once", f"{number(other.value)} ({other.ratio:.2f} x)", number(own.value)),
        ("CPU for each delivery, client and server", f"{number(other.client_cpu)} µs and {number(other.gateway_cpu)} µs", f"{number(own.client_cpu)} µs"),
        ("two workers against one, gateways that answer in 20 ms", f"{pair.ratio:.2f} x", ""),
        ("rows written for a million deliveries, 1 % of them tried twice", number(look("postgres", "rows written").value), ""),
        ("write-ahead log for each delivery", f"{number(log.value)} {log.unit}", ""),
        (imports.name.rpartition(",")[0], f"{number(imports.value)} s", f"{number(imports_sqlite.value)} s"),
        ("tables and indexes for each device", f"{number(bytes_.value)} {bytes_.unit}", ""),
    ]  # fmt: skip
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(
        [look.about, "", "| `python -m benchmarks postgres` | PostgreSQL | SQLite |", "|---|---|---|", *lines]
    )


def _beside_aiohttp(more: float) -> str:
    """In words: by how many per cent a delivery costs more than a request without an engine, or less."""
    return f"a durable delivery takes {number(abs(more))} % {'less' if more < 0 else 'more'} CPU than plain aiohttp workers"
