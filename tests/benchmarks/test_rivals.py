"""Contenders in other languages: how they are built, what stands in a row where one is not to be had, and the protocol
of their drivers."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks import figures
from benchmarks.contenders import rivals
from benchmarks.contenders.driven import started
from benchmarks.contenders.rivals import Absent, Rival, built, present
from benchmarks.row import Row

ALL = [each for each in vars(rivals).values() if isinstance(each, Rival)]
SOURCES = Path(rivals.__file__).parent
ECHO = Rival("echo", "node", (), ("{python}", "-c", "open('made', 'a').write('x')"), ("{python}", "driver.mjs"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fanout-benchmarks"


def test_it_is_built_once_outside_the_checkout(cache: Path) -> None:
    first, command = built(ECHO)
    second, _ = built(ECHO)

    assert first == second
    assert first.parent == cache
    assert (first / "made").read_text() == "x"
    assert (first / "driver.mjs").read_bytes() == (SOURCES / "node" / "driver.mjs").read_bytes()
    assert command == [sys.executable, "driver.mjs"]
    assert not (SOURCES / "node" / "made").exists()


def test_what_cannot_be_built_is_named_in_a_row_and_tried_again(cache: Path) -> None:
    broken = Rival("broken", "node", (), ("{python}", "-c", "raise SystemExit('no such package')"), ())

    for _ in range(2):
        found, rows = present(broken, ECHO)

        assert found == [ECHO]
        assert [row.name for row in rows] == ["skipped: pip could not build broken (no such package)"]


@pytest.mark.parametrize("rival", [each for each in ALL if each.programs], ids=lambda rival: rival.name)
def test_without_its_programs_a_sentence_says_what_to_install(rival: Rival, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(Absent, match=rf"skipped: install .* to compare with {re.escape(rival.name)}"):
        built(rival)


@pytest.mark.parametrize("rival", ALL, ids=lambda rival: rival.name)
def test_every_version_is_pinned(rival: Rival) -> None:
    folder = SOURCES / rival.folder
    texts = {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}

    if "requirements.txt" in texts:
        assert all("==" in line for line in texts["requirements.txt"].splitlines())
    elif "package.json" in texts:
        assert all(version[0].isdigit() for version in json.loads(texts["package.json"])["dependencies"].values())
    elif "pom.xml" in texts:
        assert texts["pom.xml"].count("<artifactId>") == texts["pom.xml"].count("<version>")
    else:
        assert {"go.mod", "go.sum"} <= texts.keys() or {"Cargo.toml", "locked.toml"} <= texts.keys()


DRIVER = """
import json, sys
job = json.loads(sys.stdin.readline())
print("ready", flush=True)
for line in sys.stdin:
    if job.get("fails"):
        raise SystemExit("the gateway answered 500")
    print(json.dumps({"requests": job["requests"], "cpu": 0.5, "wall": 2.0, "accepted": 1.0}), flush=True)
"""


def test_a_driver_runs_once_for_each_line(tmp_path: Path) -> None:
    used = iter([1.0, 1.25, 3.0, 3.5])
    with started("theirs", tmp_path, [sys.executable, "-c", DRIVER], {"requests": 10}) as driver:
        samples = [driver.run(lambda: next(used)) for _ in range(2)]

    assert [(sample.requests, sample.cpu, sample.gateway_cpu, sample.wall) for sample in samples] == [
        (10, 0.5, 0.25, 2.0),
        (10, 0.5, 0.5, 2.0),
    ]
    assert driver.accepted == [1.0, 1.0]


def test_a_driver_that_ends_leaves_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER]
    with (
        pytest.raises(RuntimeError, match=r"theirs ended:\nthe gateway answered 500"),
        started("theirs", tmp_path, command, {"requests": 10, "fails": True}) as driver,
    ):
        driver.run(lambda: 0.0)


def test_the_readme_shows_them_where_they_were_measured() -> None:
    found = figures.kept()
    for name, row, against in (
        ("broadcast", "client CPU per delivery, ours, durable, uvloop", "less than hyper (Rust)"),
        ("webpush", "Web Push, ours, durable", "less than webpush-go (Go)"),
        ("postgres", "single sends, ours, uvloop", "River (Go)"),
    ):
        found[name]["rows"] = [each for each in found[name]["rows"] if not each.against.endswith(")")]
        assert against not in figures.tables(found)["fast"]
        found[name]["rows"].append(Row(row, 10.0, "us of CPU", against, 1.25))

    fast = figures.tables(found)["fast"]

    assert "1.25 x less than hyper (Rust)" in fast
    assert "1.25 x less than webpush-go (Go)" in fast
    assert "1.25 x River (Go)" in fast


@pytest.mark.external
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="benchmarks pin processes to CPUs, as Linux can")
@pytest.mark.parametrize("rival", [rivals.HYPER, rivals.APNS2], ids=lambda rival: rival.name)
def test_what_was_built_before_sends(rival: Rival, tmp_path: Path) -> None:
    from benchmarks import rig
    from benchmarks.contenders.apns import job_of
    from benchmarks.contenders.driven import driven

    place = rivals.place(rival)
    if not rivals.is_built(place):
        pytest.skip(f"{rival.name} is built by `python -m benchmarks broadcast`")
    if missing := rig.missing("nginx", *rival.programs):
        pytest.skip(missing)
    rig.make_certificate(tmp_path)
    port = rig.free_port()
    job = job_of(f"https://127.0.0.1:{port}", tmp_path / "cert.pem", 20) | {"atOnce": 5, "warmUp": 5}

    log = tmp_path / "access.log"
    with rig.gateway(rig.nginx(tmp_path, port, str(log)), port) as process, driven(rival, job) as driver:
        assert driver.run(lambda: rig.cpu_of(process)).requests == 20
    tokens = set(re.findall(r"POST /3/device/([0-9a-f]{64}) ", log.read_text()))
    assert len(tokens) == 26, "one that opens the connection, a warm-up and a run, each to a device of its own"
